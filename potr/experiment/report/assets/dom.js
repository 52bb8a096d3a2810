// SPDX-License-Identifier: Apache-2.0
// Elements and numbers. Names from folders reach the page as text nodes and attributes' values only, never as HTML.
const SVG = "http://www.w3.org/2000/svg";
const MISSING = "\u2014";
const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "css") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

const fixed = (value, digits) =>
  value === null || value === undefined ? MISSING : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const whole = (value) => fixed(value, 0);
const signed = (value, digits) => (value === null ? MISSING : (value < 0 ? "\u2212" : "+") + fixed(Math.abs(value), digits));
const minus = (a, b) => (a === null || b === null ? null : a - b);
const percent = (share) => (share === null ? MISSING : `${fixed(100 * share, 1)} %`);
const ratioText = (ratio) => `${fixed(ratio, ratio < 100 ? 1 : 0)}\u00d7`;
const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

// MB = 10^6 bytes, with three digits at least.
function megabytes(bytes) {
  const size = bytes / 1e6;
  return `${size >= 100 ? fixed(size, 0) : size >= 10 ? fixed(size, 1) : String(Number(size.toPrecision(3)))} MB`;
}

// One of several, as radio buttons; tells ``onchange`` the value.
function choice(fieldset, name, options, onchange) {
  for (const [value, text, disabled] of options) {
    const input = el("input", { type: "radio", name, value, disabled, onchange: () => onchange(value) });
    fieldset.append(el("label", disabled ? { title: disabled } : {}, input, el("span", {}, text)));
  }
}

function check(fieldset, value) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === value;
}

// The options of a <select>; keeps what is selected where it is still there.
function options(select, pairs, wanted = select.value) {
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));
  const values = pairs.map(([value]) => String(value));
  select.value = values.includes(String(wanted)) ? String(wanted) : (values[0] ?? "");
}
