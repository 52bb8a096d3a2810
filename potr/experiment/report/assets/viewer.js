// SPDX-License-Identifier: Apache-2.0
// Two pictures of one view under a slider, an enlarged detail of both, and maps of their errors.
const MODES = [["pictures", "Pictures"], ["errors", "Errors against the photograph"], ["change", "Difference of the two"]];
const GRIP = 26; // pixels beside the divider within which a mouse moves it
const STEP = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Viewer {
  constructor(data) {
    this.data = data;
    this.pictures = new Pictures();
    this.colors = ramp(data.heat);
    this.labels = new Map(data.curves.flatMap((curve) => curve.runs.map((run) => [run, curve.label])));
    Object.assign(this, { mode: "pictures", lens: { x: 0, y: 0 }, pinned: false, drawing: 0, sides: null });
    if (!data.views.length) return this.without();
    $("viewer-body").hidden = false;
    choice($("mode"), "mode", MODES, (mode) => { this.mode = mode; this.draw(); });
    check($("mode"), this.mode);
    const scenes = [...new Set(data.views.map((view) => view.scene))];
    options($("scene"), scenes.map((scene) => [scene, data.scenes[scene].name]));
    $("scene").addEventListener("change", () => this.enter(Number($("scene").value)));
    $("view").addEventListener("change", () => this.look());
    for (const side of ["left", "right"]) $(side).addEventListener("change", () => this.draw());
    $("slider").addEventListener("input", () => this.slide(Number($("slider").value)));
    $("zoom").addEventListener("change", () => this.enlarge());
    $("pin").addEventListener("click", () => this.pin(!this.pinned));
    $("worst").addEventListener("click", () => { this.toWorst(); this.pin(true); });
    this.listen($("frame"));
    $("lens").addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.enlarge()).observe($("frame"));
    $("pictures-note").textContent = this.note();
    this.slide(50);
    this.enter(scenes[0]);
  }

  without() {
    $("no-pictures").hidden = false;
    const left = this.data.pictures.left_out;
    $("no-pictures").textContent = left
      ? `The runs have ${plural(left, "picture")}, all left out of this page by --pictures-mb.`
      : "No run kept pictures: evaluate.pictures was 0, the scenes have no test views, or the runs are of an earlier version; force=true does a run again.";
  }

  note() {
    const { count, left_out, quality } = this.data.pictures;
    const left = left_out ? ` ${plural(left_out, "picture")} more of these runs ${left_out === 1 ? "was" : "were"} left out to keep the page small (potr report --pictures-mb).` : "";
    return `${plural(count, "picture")}, stored as WebP at quality ${quality}: close, not exact. PSNR, and every other figure, was measured on the exact renders. A click on the picture pins the detail, the dot on the divider moves it.${left}`;
  }

  has(run) {
    return this.data.views.some((view) => view.shown.some((one) => one.run === run));
  }

  // Shows a run's pictures on the right.
  pick(run) {
    const at = this.data.views.findIndex((view) => view.shown.some((one) => one.run === run));
    if (at < 0) return;
    const { scene } = this.data.views[at];
    if (Number($("scene").value) !== scene) { $("scene").value = String(scene); this.enter(scene, run); }
    else if (this.view().shown.some((one) => one.run === run)) { $("right").value = `run:${run}`; this.draw(); }
    else { $("view").value = String(at); this.look(run); }
    $("viewer").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  enter(scene, run) {
    const views = this.data.views.map((view, at) => [view, at]).filter(([view]) => view.scene === scene);
    options($("view"), views.map(([view, at]) => [at, view.psnr === null ? view.name : `${view.name} (${fixed(view.psnr, 2)} dB uncompressed)`]), "");
    this.look(run);
  }

  view() {
    return this.data.views[Number($("view").value)];
  }

  look(run) {
    const view = this.view();
    const all = [["photo", "Photograph"], ["before", "Uncompressed model"], ...view.shown.map((one) => [`run:${one.run}`, this.nameOf(one.run)])];
    const wanted = run !== undefined && view.shown.some((one) => one.run === run) ? `run:${run}` : $("right").value;
    options($("left"), all, $("left").value || "before");
    options($("right"), all, all.some(([value]) => value === wanted) ? wanted : `run:${view.shown[0].run}`);
    if ($("left").selectedIndex < 0 || !$("left").value) $("left").value = "before";
    this.draw(true);
  }

  nameOf(run) {
    const { quality, bytes, ratio } = this.data.runs[run];
    return `${this.labels.get(run)}${quality === null ? "" : ` q${quality}`}: ${megabytes(bytes)}, ${ratioText(ratio)}`;
  }

  // What a drop-down's value stands for.
  shown(value) {
    const view = this.view(), scene = this.data.scenes[view.scene];
    if (value === "photo") return { picture: view.photo, name: "Photograph", psnr: null, one: null };
    if (value === "before") return { picture: view.before, name: `Uncompressed: ${megabytes(scene.bytes)}`, psnr: view.psnr, one: null };
    const one = view.shown.find((candidate) => `run:${candidate.run}` === value);
    return { picture: one.picture, name: this.nameOf(one.run), psnr: this.data.runs[one.run].view_psnr[view.name] ?? null, one };
  }

  async draw(moved = false) {
    const turn = ++this.drawing;
    $("frame").dataset.state = "drawing";
    const view = this.view(), left = this.shown($("left").value), right = this.shown($("right").value);
    const [a, b, photo] = await Promise.all([left.picture, right.picture, view.photo].map((number) => this.pictures.get(number)));
    if (turn !== this.drawing) return; // something else was chosen meanwhile
    const { width, height } = photo;
    const maps = { pictures: () => [], errors: () => [difference(a, photo), difference(b, photo)], change: () => [difference(a, b)] }[this.mode]();
    const scale = heatScale(maps), heat = maps.map((map) => heatMap(map, width, height, scale, this.colors));
    this.sides = { width, height, photo: photo.image, images: { pictures: [a.image, b.image], errors: heat, change: [a.image, heat[0]] }[this.mode] };
    $("frame").parentElement.style.setProperty("--ratio", width / height);
    for (const [side, image] of [["left-picture", this.sides.images[0]], ["right-picture", this.sides.images[1]]]) {
      const canvas = $(side);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      canvas.getContext("2d").drawImage(image, 0, 0);
    }
    this.captions(left, right);
    this.legend(maps.length ? scale : null, [left, right]);
    this.worst = right.one?.detail ?? left.one?.detail ?? [0, 0, width, height];
    if (moved && !this.pinned) this.toWorst();
    this.enlarge();
    $("frame").dataset.state = "ready";
  }

  captions(left, right) {
    const text = (side) => (side.psnr === null ? side.name : `${side.name}, ${fixed(side.psnr, 2)} dB in this view`);
    const words = { pictures: [text(left), text(right)], errors: [`Error: ${text(left)}`, `Error: ${text(right)}`], change: [text(left), `Difference from that: ${text(right)}`] }[this.mode];
    $("left-caption").textContent = words[0];
    $("right-caption").textContent = words[1];
    const zooms = [...document.querySelectorAll(".zooms figcaption")];
    [`Left. ${words[0]}`, `Right. ${words[1]}`, "Photograph"].forEach((caption, k) => { zooms[k].textContent = caption; });
    $("left-picture").setAttribute("aria-label", words[0]);
    $("right-picture").setAttribute("aria-label", words[1]);
    this.names = words;
    this.slide(Number($("slider").value));
  }

  legend(scale, sides) {
    $("scale").hidden = scale === null;
    if (scale === null) return;
    $("ramp").getContext("2d").putImageData(new ImageData(this.colors, 256, 1), 0, 0);
    $("ticks").replaceChildren(...[0, 1, 2, 3, 4].map((k) => el("span", { css: { "--k": k } }, `${(scale * k) / 4}${k === 4 ? " or more" : ""}`)));
    const rms = Math.max(0, ...sides.map((side) => side.one?.rms ?? 0));
    $("scale-note").textContent = rms ? `Made from the stored pictures, which are themselves off by up to ${fixed(rms, 1)} levels RMS.` : "Made from the stored pictures.";
  }

  slide(share) {
    $("slider").value = String(share);
    $("slider").setAttribute("aria-valuetext", `${Math.round(share)} % ${this.names?.[0] ?? ""}`);
    $("frame").style.setProperty("--share", `${share}%`);
  }

  listen(frame) {
    let start = null;
    const share = (event) => { const box = frame.getBoundingClientRect(); return Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100)); };
    const place = (event) => { const box = frame.getBoundingClientRect(); return { x: ((event.clientX - box.left) / box.width) * this.sides.width, y: ((event.clientY - box.top) / box.height) * this.sides.height }; };
    const near = (event) => event.pointerType === "touch" || Math.abs(share(event) - Number($("slider").value)) * frame.clientWidth < GRIP * 100;
    frame.addEventListener("pointerdown", (event) => {
      if (!this.sides || event.button !== 0) return;
      start = { x: event.clientX, y: event.clientY, drags: near(event), moved: false };
      if (start.drags) frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      if (!this.sides) return;
      if (start && Math.hypot(event.clientX - start.x, event.clientY - start.y) > 3) start.moved = true;
      if (start?.drags) { if (start.moved) this.slide(share(event)); }
      else if (!this.pinned && event.pointerType !== "touch") this.aim(place(event));
      frame.classList.toggle("grips", event.pointerType !== "touch" && near(event));
    });
    frame.addEventListener("pointerup", (event) => {
      if (start && !start.moved && this.sides) { this.aim(place(event)); this.pin(true); }
      start = null;
    });
    frame.addEventListener("pointercancel", () => { start = null; });
  }

  key(event) {
    const step = STEP[event.key];
    if (event.key === "Escape") return this.pin(false);
    if (!step || !this.sides) return;
    event.preventDefault();
    const far = event.shiftKey ? 20 : 4;
    this.aim({ x: this.lens.x + far * step[0], y: this.lens.y + far * step[1] });
    this.pin(true);
  }

  toWorst() {
    const [left, top, width, height] = this.worst;
    this.aim({ x: left + width / 2, y: top + height / 2 });
  }

  pin(pinned) {
    this.pinned = pinned;
    $("pin").setAttribute("aria-pressed", String(pinned));
    $("pin").textContent = pinned ? "Pinned" : "Pin";
    $("lens").classList.toggle("pinned", pinned);
  }

  aim(place) {
    this.lens = place;
    this.enlarge();
  }

  // Draws the detail around the lens from both sides and the photograph, pixel for pixel enlarged.
  enlarge() {
    if (!this.sides) return;
    const zoom = Number($("zoom").value), { width, height, images, photo } = this.sides;
    const shape = $("left-zoom").getBoundingClientRect();
    const w = Math.min(width, shape.width / zoom), h = Math.min(height, shape.height / zoom);
    this.lens.x = Math.min(width - w / 2, Math.max(w / 2, this.lens.x));
    this.lens.y = Math.min(height - h / 2, Math.max(h / 2, this.lens.y));
    const x = this.lens.x - w / 2, y = this.lens.y - h / 2;
    for (const [id, image] of [["left-zoom", images[0]], ["right-zoom", images[1]], ["third-zoom", photo]]) {
      const canvas = $(id), dense = Math.min(2, devicePixelRatio || 1);
      Object.assign(canvas, { width: Math.round(shape.width * dense), height: Math.round(shape.height * dense) });
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(image, x, y, w, h, 0, 0, w * zoom * dense, h * zoom * dense);
    }
    const lens = $("lens"), part = (value, of) => `${(100 * value) / of}%`;
    Object.assign(lens.style, { left: part(x, width), top: part(y, height), width: part(w, width), height: part(h, height) });
    lens.setAttribute("aria-label", `Detail at ${Math.round(x)}, ${Math.round(y)}; arrow keys move it`);
  }
}
