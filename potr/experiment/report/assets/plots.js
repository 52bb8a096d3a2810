// SPDX-License-Identifier: Apache-2.0
// Rate-distortion curves: one plot a scene, the size on a logarithmic axis with the ratio above it.
const METRICS = {
  psnr: { name: "PSNR", unit: "dB", digits: 2, note: "Mean of the test views' PSNR against the photographs; higher is better." },
  ssim: { name: "SSIM", unit: "", digits: 4, note: "Mean of the test views' SSIM against the photographs; higher is better." },
  lpips: { name: "LPIPS \u22121..1", unit: "", digits: 4, note: "LPIPS with input from -1 to 1, as its authors define it, mean over the views it was computed on; lower is better." },
  lpips_3dgs: { name: "LPIPS 0..1", unit: "", digits: 4, note: "LPIPS with input from 0 to 1, as 3DGS's evaluation and most papers have it, mean over the views it was computed on; lower is better." },
  fps: { name: "FPS", unit: "1/s", digits: 1, note: "Frames per second of the decoded model, median over the test cameras, on the machine named below; higher is better." },
};
const DASHES = ["none", "7 4", "2 3", "10 3 2 3", "5 2"];
const NEAR = 36; // pixels from a point within which it is the one meant

// Paths around the origin, by matplotlib's names for markers.
const MARKERS = { s: polygon(4, 4.9, 45), "^": polygon(3, 5.6, -90), v: polygon(3, 5.6, 90), "<": polygon(3, 5.6, 180), ">": polygon(3, 5.6, 0), D: polygon(4, 5.6, 0), d: "M0 -6L3.4 0L0 6L-3.4 0Z", h: polygon(6, 5, 0), p: polygon(5, 5.2, -90), "8": polygon(8, 5, 22.5), P: "M-1.8 -5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z", X: "M0 -2.4L2.8 -5L5 -2.8L2.4 0L5 2.8L2.8 5L0 2.4L-2.8 5L-5 2.8L-2.4 0L-5 -2.8L-2.8 -5Z", "*": star() };
const CIRCLE = "M4.4 0A4.4 4.4 0 1 1 -4.4 0A4.4 4.4 0 1 1 4.4 0Z";

function polygon(corners, radius, start) {
  const at = (k) => { const a = ((start + (360 * k) / corners) * Math.PI) / 180; return `${(radius * Math.cos(a)).toFixed(2)} ${(radius * Math.sin(a)).toFixed(2)}`; };
  return `M${Array.from({ length: corners }, (_, k) => at(k)).join("L")}Z`;
}

function star() {
  const at = (k) => { const a = ((-90 + 36 * k) * Math.PI) / 180, r = k % 2 ? 2.6 : 6; return `${(r * Math.cos(a)).toFixed(2)} ${(r * Math.sin(a)).toFixed(2)}`; };
  return `M${Array.from({ length: 10 }, (_, k) => at(k)).join("L")}Z`;
}

const marker = (curve) => MARKERS[curve.marker] ?? CIRCLE;

function linearTicks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return { ticks, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (String(step / power) === "2.5" ? 1 : 0)) };
}

function logTicks(low, high, most) {
  for (const steps of [[1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
      for (const k of steps) { const t = k * 10 ** e; if (t >= low * 0.9999 && t <= high * 1.0001) ticks.push(Number(t.toPrecision(3))); }
    if (ticks.length <= most) return ticks;
  }
  return [];
}

class Plot {
  constructor(data, scene, onpick) {
    Object.assign(this, { data, scene, onpick, info: data.scenes[scene], curves: data.curves.filter((curve) => curve.scene === scene) });
    this.tip = el("div", { class: "tip", hidden: true, "aria-live": "polite" });
    this.box = el("div", {
      class: "plot", tabindex: 0, role: "group", "aria-roledescription": "plot",
      "aria-label": `${this.info.name}: rate and distortion. Arrow keys go through the runs; Enter shows a run's pictures.`,
      onpointermove: (event) => this.point(event), onpointerdown: (event) => this.press(event), onpointerleave: (event) => this.leave(event),
      onclick: () => this.again && this.current !== null && this.onpick(this.current), onkeydown: (event) => this.key(event), onblur: () => this.show(null),
    });
    const suite = this.info.suite ? ` (${this.info.suite})` : "";
    const soft = `${plural(this.info.splats, "splat")}, ${megabytes(this.info.bytes)} uncompressed, ${plural(this.info.views, "test view")}`;
    this.node = el("figure", { class: "plot-of-scene" }, el("figcaption", {}, el("strong", {}, this.info.name + suite), " ", el("span", { class: "soft" }, soft)), this.box);
    this.current = null;
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  set(metric, hidden) {
    Object.assign(this, { metric, hidden });
    this.draw();
  }

  draw() {
    const width = Math.round(this.box.clientWidth);
    if (!width || !this.metric) return;
    const height = Math.round(Math.min(440, Math.max(290, width * 0.6)));
    const value = (run) => this.data.runs[run].after[this.metric];
    this.shown = this.curves.filter((curve) => !this.hidden.has(curve.label)).map((curve) => ({ curve, runs: curve.runs.filter((run) => value(run) !== null) })).filter((one) => one.runs.length);
    const runs = this.shown.flatMap((one) => one.runs);
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    this.points = [];
    this.box.replaceChildren(root, this.tip);
    if (!runs.length) {
      root.append(svg("text", { class: "empty", x: width / 2, y: height / 2 }, `no ${METRICS[this.metric].name} to show`));
      return this.show(null);
    }
    const reference = this.info.before[this.metric];
    const area = { left: 56, right: width - 14, top: 46, bottom: height - 44 };
    const x = this.sizeAxis(runs, area), y = this.valueAxis([...runs.map(value), ...(reference === null ? [] : [reference])], area);
    this.axes(root, area, x, y, width);
    let words = null;
    if (reference !== null) {
      root.append(svg("line", { class: "reference", x1: area.left, x2: area.right, y1: y.at(reference), y2: y.at(reference) }));
      words = svg("text", { class: "reference", x: area.right - 4, y: y.at(reference) + (y.at(reference) < area.top + 20 ? 14 : -6) }, `uncompressed ${fixed(reference, METRICS[this.metric].digits)}`);
    }
    for (const { curve, runs: of } of this.shown) {
      const places = of.map((run) => ({ run, curve, x: x.at(this.data.runs[run].bytes), y: y.at(value(run)) }));
      const group = svg("g", { class: "curve", css: { "--c": curve.color } });
      group.append(svg("path", { class: "line", d: `M${places.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("L")}`, "stroke-dasharray": DASHES[curve.variant % DASHES.length] }));
      for (const place of places) {
        place.mark = svg("path", { class: "mark", d: marker(curve), transform: `translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})` });
        place.group = group;
        group.append(place.mark);
      }
      this.points.push(...places);
      root.append(group);
    }
    if (words) root.append(words);
    this.show(this.points.some((p) => p.run === this.current) ? this.current : null);
  }

  sizeAxis(runs, area) {
    const sizes = runs.map((run) => this.data.runs[run].bytes);
    const pad = Math.max(1.06, (Math.max(...sizes) / Math.min(...sizes)) ** 0.06);
    const low = Math.log(Math.min(...sizes) / pad), high = Math.log(Math.max(...sizes) * pad);
    return { low: Math.exp(low), high: Math.exp(high), at: (bytes) => area.left + ((Math.log(bytes) - low) / (high - low)) * (area.right - area.left) };
  }

  valueAxis(values, area) {
    const pad = (Math.max(...values) - Math.min(...values)) * 0.08 || Math.abs(values[0]) * 0.02 || 1;
    const low = Math.min(...values) - pad, high = Math.max(...values) + pad;
    return { low, high, at: (v) => area.bottom - ((v - low) / (high - low)) * (area.bottom - area.top) };
  }

  axes(root, area, x, y, width) {
    const line = (x1, y1, x2, y2) => root.append(svg("line", { class: "grid", x1, y1, x2, y2 }));
    const text = (css, px, py, words) => root.append(svg("text", { class: css, x: px, y: py }, words));
    const { ticks, digits } = linearTicks(y.low, y.high, (area.bottom - area.top) / 52);
    for (const tick of ticks) { line(area.left, y.at(tick), area.right, y.at(tick)); text("tick y", area.left - 8, y.at(tick) + 4, fixed(tick, digits)); }
    const most = Math.max(2, Math.floor((area.right - area.left) / 58));
    for (const tick of logTicks(x.low / 1e6, x.high / 1e6, most)) { line(x.at(tick * 1e6), area.top, x.at(tick * 1e6), area.bottom); text("tick x", x.at(tick * 1e6), area.bottom + 18, String(tick)); }
    for (const tick of logTicks(this.info.bytes / x.high, this.info.bytes / x.low, most)) { const at = x.at(this.info.bytes / tick); line(at, area.top, at, area.top - 4); text("tick x", at, area.top - 9, `${tick}\u00d7`); }
    root.append(svg("rect", { class: "edge", x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top }));
    const metric = METRICS[this.metric];
    text("axis", area.left, 14, metric.unit ? `${metric.name} (${metric.unit})` : metric.name);
    text("axis end", area.right, 14, width < 420 ? "ratio" : "times smaller than 248 bytes a splat");
    text("axis end", area.right, area.bottom + 37, "size (MB, logarithmic)");
  }

  point(event) {
    const bounds = this.box.getBoundingClientRect();
    const px = event.clientX - bounds.left, py = event.clientY - bounds.top;
    const far = (p) => Math.hypot(p.x - px, p.y - py);
    const nearest = this.points?.reduce((best, p) => (best === null || far(p) < far(best) ? p : best), null);
    this.show(nearest && far(nearest) <= NEAR ? nearest.run : null);
  }

  // A finger's first tap tells a run, its second shows the pictures; a mouse has pointed at it already.
  press(event) {
    const before = this.current;
    this.point(event);
    this.again = event.pointerType !== "touch" || before === this.current;
  }

  leave(event) {
    if (event.pointerType !== "touch" && !this.box.matches(":focus-visible")) this.show(null);
  }

  key(event) {
    if (event.key === "Escape") return this.show(null);
    if (event.key === "Enter") return this.current !== null && this.onpick(this.current);
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0, across = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0;
    if ((!along && !across) || !this.shown?.length) return;
    event.preventDefault();
    const at = this.shown.findIndex((one) => one.runs.includes(this.current));
    if (at < 0) return this.show(this.shown[0].runs[0]);
    const place = this.shown[at].runs.indexOf(this.current);
    const next = this.shown[(at + across + this.shown.length) % this.shown.length].runs;
    this.show(next[Math.min(next.length - 1, Math.max(0, place + along))]);
  }

  // Shows one run's figures, or none.
  show(run) {
    this.current = run;
    const chosen = this.points?.find((p) => p.run === run);
    for (const p of this.points ?? []) {
      p.mark.classList.toggle("on", p === chosen);
      p.group.classList.toggle("off", Boolean(chosen) && p.curve !== chosen.curve);
    }
    this.tip.hidden = !chosen;
    if (!chosen) return;
    this.tip.replaceChildren(...told(this.data, chosen.curve, run));
    const room = this.box.clientWidth - this.tip.offsetWidth;
    const left = chosen.x + 16 <= room ? chosen.x + 16 : Math.max(0, chosen.x - this.tip.offsetWidth - 16);
    const top = Math.max(0, Math.min(chosen.y - 40, this.box.clientHeight - this.tip.offsetHeight));
    const covers = left < chosen.x + 8 && left + this.tip.offsetWidth > chosen.x - 8; // on a phone there is no room beside it
    this.tip.style.left = `${Math.min(left, Math.max(0, room))}px`;
    this.tip.style.top = `${covers ? chosen.y + 14 : top}px`;
  }
}

// A run's figures for the tooltip, and what makes it this run.
function told(data, curve, number) {
  const run = data.runs[number], { before, after } = run;
  const rows = [["size", `${whole(run.bytes)} bytes`], ["ratio", ratioText(run.ratio)], ["splats", `${whole(run.splats)} (${percent(run.splats / data.scenes[run.scene].splats)})`]];
  if (run.splats) rows.push(["bits a splat", fixed((8 * run.bytes) / run.splats, 1)]);
  for (const [key, { name, digits }] of Object.entries(METRICS)) {
    if (after[key] === null) continue;
    const than = key === "fps" ? `was ${fixed(before.fps, digits)}` : signed(minus(after[key], before[key]), digits);
    rows.push([name, `${fixed(after[key], digits)} (${than})`]);
  }
  const quality = run.quality === null ? "one operating point" : `quality ${run.quality}`;
  const settings = Object.entries(run.settings).map(([key, value]) => `${key}=${value}`).join(", ");
  const table = el("table", {}, ...rows.map(([name, value]) => el("tr", {}, el("th", {}, name), el("td", {}, value))));
  return [el("strong", { css: { "--c": curve.color } }, curve.label), el("div", {}, quality), table, settings ? el("div", { class: "soft" }, settings) : null].filter(Boolean);
}

// Buttons that show and hide every curve of a label; returns the set of hidden labels.
function legend(node, data, onchange) {
  const hidden = new Set();
  for (const curve of new Map(data.curves.map((c) => [c.label, c])).values()) {
    const sample = svg("svg", { width: 34, height: 14, viewBox: "-17 -7 34 14", "aria-hidden": "true", css: { "--c": curve.color } }, svg("path", { class: "line", d: "M-16 0H16", "stroke-dasharray": DASHES[curve.variant % DASHES.length] }), svg("path", { class: "mark", d: marker(curve) }));
    const button = el("button", { type: "button", "aria-pressed": "true", onclick: () => {
      const on = !hidden.delete(curve.label);
      if (on) hidden.add(curve.label);
      button.setAttribute("aria-pressed", String(!on));
      onchange();
    } }, sample, curve.label);
    node.append(button);
  }
  return hidden;
}
