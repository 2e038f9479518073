"use strict";
// Shared by every page. Text reaches the page through text nodes and attributes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const missing = "–";

// Escapes control characters and changes of text direction, as in the terminal.
const escaped = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
  (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null)
    .map((child) => (typeof child === "string" ? escaped(child) : child)));
  return node;
}
const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const finite = (value) => typeof value === "number" && Number.isFinite(value);
function format(value, digits = 3) {
  return finite(value) ? value.toFixed(digits).replace("-", "\u2212") : missing;
}
function signed(value, digits = 3) {
  return finite(value) && value > 0 ? "+" + format(value, digits) : format(value, digits);
}
// The number of decimals that shows three significant digits.
const digitsOf = (value) => (finite(value) && value ? Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))) : 2);
const integer = (value) => (finite(value) ? Math.round(value).toLocaleString("en").replace(/,/g, "\u202f") : missing);
function size(bytes) {
  if (!finite(bytes)) return missing;
  const power = bytes > 0 ? Math.min(3, Math.floor(Math.log2(bytes) / 10)) : 0;
  const value = bytes / 1024 ** power;
  return `${value.toFixed(power && value < 99.95 && value % 1 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][power]}`;
}

// A row of options, as radio buttons, which keyboards and screen readers support.
let choices = 0;
function choice(label, options, chosen, onchange) {
  const name = `choice${choices++}`;
  const inputs = options.map(([value, text]) =>
    element("label", {},
      element("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }),
      element("span", {}, text)));
  return element("fieldset", { class: "choice" }, element("legend", {}, label), element("span", {}, inputs));
}

const tip = {
  node: element("div", { id: "tip", role: "status", hidden: true }),
  show(target, title, pairs) {
    this.node.replaceChildren(element("b", {}, title),
      ...pairs.map(([name, value]) => element("span", {}, element("span", {}, name), element("span", {}, value))));
    this.node.hidden = false;
    this.target = target;
    this.place();
  },
  place() {
    const target = this.target;
    const [anchor, box] = [target.getClientRects()[0] ?? target.getBoundingClientRect(), this.node.getBoundingClientRect()];
    const left = Math.min(Math.max(8, anchor.left + anchor.width / 2 - box.width / 2), innerWidth - box.width - 8);
    const above = anchor.top - box.height - 8;
    this.node.style.left = `${left}px`;
    this.node.style.top = `${above < 8 ? anchor.bottom + 8 : above}px`;
  },
  hide() { this.node.hidden = true; },
};
document.body.append(tip.node);
addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hide(); });
addEventListener("scroll", () => { if (!tip.node.hidden) tip.place(); }, { passive: true, capture: true });

const theme = document.getElementById("theme");
const themes = ["light dark", "light", "dark"];
theme.addEventListener("click", () => {
  const next = themes[(themes.indexOf(theme.dataset.scheme) + 1) % themes.length];
  theme.dataset.scheme = document.documentElement.style.colorScheme = next;
  theme.textContent = `Theme: ${next === "light dark" ? "auto" : next}`;
});

// What scrolls can be scrolled by keyboard.
for (const block of document.querySelectorAll("pre")) block.tabIndex = 0;
