// SPDX-License-Identifier: Apache-2.0
// Puts the page together from the data embedded in it.
const data = JSON.parse($("data").textContent);
const codecs = new Set(data.curves.map((curve) => curve.label));
const without = data.holes.length ? `; ${plural(data.holes.length, "hole")}, listed at the end` : "";
$("summary").textContent = `${plural(data.runs.length, "run")} of ${plural(codecs.size, "codec")} on ${plural(data.scenes.length, "scene")}${without}. Made on ${data.made}.`;

const viewer = new Viewer(data);
const plots = data.scenes.map((_, scene) => new Plot(data, scene, (run) => viewer.pick(run)));
let metric = "psnr";
const hidden = legend($("legend"), data, () => redraw());

function redraw() {
  for (const plot of plots) plot.set(metric, hidden);
  $("metric-note").textContent = METRICS[metric].note + (metric === "fps" && data.machines.length > 1 ? " The runs are of several machines: do not compare their speeds." : "");
}

const measured = (key) => data.runs.some((run) => run.after[key] !== null);
choice($("metric"), "metric", Object.entries(METRICS).map(([key, { name }]) => [key, name, !measured(key) && "not measured in any run"]), (key) => { metric = key; redraw(); });
metric = Object.keys(METRICS).find(measured) ?? "psnr";
check($("metric"), metric);
$("plots").append(...plots.map((plot) => plot.node));
$("plots").classList.toggle("single", plots.length === 1);
redraw();

const showRuns = () => $("runs").replaceChildren(runsTable(data, viewer, $("runs-scene").value === "" ? null : Number($("runs-scene").value)));
options($("runs-scene"), [["", "all"], ...data.scenes.map((scene, at) => [at, scene.name])]);
$("runs-scene").addEventListener("change", showRuns);
showRuns();
$("runs-note").textContent = "A click on a column's head sorts by it, a click on a codec shows the run's pictures." + (data.repeated ? ` ${plural(data.repeated, "more run")} gave the same bytes as one of these and ${data.repeated === 1 ? "is" : "are"} not listed.` : "");

if (data.compared?.rows.length) {
  $("compared-section").hidden = false;
  $("compared-title").textContent = data.compared.title;
  $("compared").append(printedTable(data.compared));
  $("compared-notes").append(...data.compared.notes.map((note) => el("p", {}, `${note}.`)));
}

if (data.holes.length) {
  $("holes-section").hidden = false;
  $("holes").append(holesTable(data));
}

const commits = data.commits.map(([commit, count]) => `${commit ? commit.slice(0, 12) + (commit.endsWith("+") ? "+" : "") : "no git checkout"} (${plural(count, "run")})`);
const machines = data.machines.map((machine, at) => `${machine} (${plural(data.runs.filter((run) => run.machine === at).length, "run")})`);
const facts = [
  ["Measured", "on the test views only, renders and photographs rounded to 8 bits; nothing on this page is a published figure"],
  ["Uncompressed", "248 bytes a splat: the 62 float32 properties of a 3DGS .ply"],
  ["Rasterisers", [...new Set(data.runs.map((run) => run.backend))].join(", ")],
  ["Machines", machines.join("; ")],
  ["Versions", data.versions.join(", ")],
  ["Commits", commits.join(", ") + (data.commits.some(([commit]) => commit.endsWith("+")) ? "; + is a checkout with changes" : "")],
  ["Made", `${data.made} by potr report`],
];
$("footer").append(el("dl", {}, ...facts.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])));
document.documentElement.dataset.ready = "true";
