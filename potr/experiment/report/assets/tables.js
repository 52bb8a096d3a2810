// SPDX-License-Identifier: Apache-2.0
// Tables that sort by a click on a column's head.

// columns: {name, title, value(row) for sorting, cell(row) to show, text: whether it is a word}
function sortable(columns, rows) {
  let by = null, rising = true;
  const body = el("tbody");
  const heads = columns.map((column, at) => {
    const button = el("button", { type: "button", title: column.title, onclick: () => sort(at) }, column.name);
    return el("th", { scope: "col", class: column.text ? "text" : null }, button);
  });
  const made = rows.map((row) => [row, el("tr", {}, ...columns.map((column) => el("td", { class: column.text ? "text" : null }, column.cell(row))))]);
  const sort = (at) => {
    rising = by === at ? !rising : Boolean(columns[at].text);
    by = at;
    heads.forEach((head, k) => (k === at ? head.setAttribute("aria-sort", rising ? "ascending" : "descending") : head.removeAttribute("aria-sort")));
    const key = columns[at].value, missing = (v) => v === null || v === undefined;
    made.sort(([a], [b]) => {
      const x = key(a), y = key(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y); // holes last, either way
      return (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) * (rising ? 1 : -1);
    });
    body.replaceChildren(...made.map(([, line]) => line));
  };
  body.append(...made.map(([, line]) => line));
  return el("table", { class: "sortable" }, el("thead", {}, el("tr", {}, ...heads)), body);
}

function runsTable(data, viewer, scene) {
  const rows = data.curves.flatMap((curve) => curve.runs.map((number) => ({ number, curve, run: data.runs[number], info: data.scenes[curve.scene] }))).filter((row) => scene === null || row.run.scene === scene);
  const figure = (name, title, value, show) => ({ name, title, value, cell: (row) => show(value(row)) });
  const after = (key) => (row) => row.run.after[key];
  const change = (key) => (row) => minus(row.run.after[key], row.run.before[key]);
  const linked = (row) => (viewer.has(row.number) ? el("button", { type: "button", class: "link", title: "show its pictures", onclick: () => viewer.pick(row.number) }, row.curve.label) : row.curve.label);
  const columns = [
    { name: "Scene", title: "dataset", text: true, value: (row) => row.info.name, cell: (row) => row.info.name },
    { name: "Codec", title: "codec and settings", text: true, value: (row) => row.curve.label, cell: linked },
    figure("Quality", "the codec's own scale; none for one operating point", (row) => row.run.quality, (v) => (v === null ? MISSING : String(v))),
    figure("Size (MB)", "1 MB is 10\u2076 bytes", (row) => row.run.bytes, (v) => fixed(v / 1e6, 3)),
    figure("Ratio", "uncompressed, 248 bytes a splat, over compressed", (row) => row.run.ratio, ratioText),
    figure("PSNR (dB)", METRICS.psnr.note, after("psnr"), (v) => fixed(v, 2)),
    figure("\u0394 PSNR", "against the uncompressed model", change("psnr"), (v) => signed(v, 2)),
    figure("SSIM", METRICS.ssim.note, after("ssim"), (v) => fixed(v, 4)),
    figure(METRICS.lpips_3dgs.name, METRICS.lpips_3dgs.note, after("lpips_3dgs"), (v) => fixed(v, 4)),
    figure(METRICS.lpips.name, METRICS.lpips.note, after("lpips"), (v) => fixed(v, 4)),
    figure("Splats", "left of the model's", (row) => row.run.splats, whole),
    figure("Kept", "share of the splats", (row) => row.run.splats / row.info.splats, percent),
    figure("AC zeros", "share of the SH coefficients of degrees 1 to 3 that are zero in the bitstream", (row) => row.run.ac_zeros, percent),
    figure("FPS before", METRICS.fps.note, (row) => row.run.before.fps, (v) => fixed(v, 1)),
    figure("FPS", METRICS.fps.note, after("fps"), (v) => fixed(v, 1)),
    figure("Encode (s)", "wall clock; * after an interruption: the last part only", (row) => row.run.encode_seconds, (v) => fixed(v, 1)),
    figure("Decode (s)", "wall clock", (row) => row.run.decode_seconds, (v) => fixed(v, 2)),
  ];
  const encode = columns.find((column) => column.name === "Encode (s)");
  encode.cell = (row) => fixed(row.run.encode_seconds, 1) + (row.run.resumed ? "*" : "");
  return sortable(columns.filter((column) => column.text || rows.some((row) => column.value(row) !== null)), rows);
}

// A table that comes printed: cells are {text, value, mark}.
function printedTable({ columns, rows }) {
  const words = ({ value, text }) => (typeof value === "number" ? text.replace("-", "\u2212") : text);
  const cell = (at) => (row) => (row[at].mark ? el("span", {}, words(row[at]), el("sup", {}, row[at].mark)) : words(row[at]));
  return sortable(columns.map(({ name, text }, at) => ({ name, text, value: (row) => row[at].value, cell: cell(at) })), rows);
}

function holesTable(data) {
  const lines = data.holes.map(({ run, reason }) => el("tr", {}, el("td", { class: "text" }, run || MISSING), el("td", { class: "text reason" }, reason)));
  return el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "text" }, "Run"), el("th", { scope: "col", class: "text" }, "Why"))), el("tbody", {}, ...lines));
}
