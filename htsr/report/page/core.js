// What every part of the page shares: its data, elements, tooltips, the theme.
"use strict";

/** @type {Page} */
const page = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent || "{}");

/** Return a new element. `text` is its text, functions are listeners of the event that they are named after, null and false
 * leave an attribute out, and all else is an attribute. Nothing that a file says is ever read as HTML.
 * @param {string} tag @param {Attributes} [attributes] @param {...(Node|string|null)} children @returns {any} */
function el(tag, attributes = {}, ...children) {
  const drawn = tag === "svg" || tag === "path";
  const node = document.createElementNS(`http://www.w3.org/${drawn ? "2000/svg" : "1999/xhtml"}`, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = String(value);
    else if (typeof value === "function") node.addEventListener(name, value);
    else if ((value ?? false) !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Return the value of a colour or length of the style sheet. @param {string} name */
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Return a number for people, with so many significant digits. @param {number|null|undefined} value @param {number} [digits] */
function short(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

/** Whether the page stands in the frame of a notebook, where a link would open the notebook instead. */
const framed = location.protocol === "about:";

/** @param {number} count @param {string} one */
const counted = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;

/** Return items by the key of each. @param {any[]} items @param {(item: any) => string} key @returns {Map<string, any[]>} */
function grouped(items, key) {
  const groups = new Map(items.map((item) => [key(item), /** @type {any[]} */ ([])]));
  items.forEach((item) => groups.get(key(item))?.push(item));
  return groups;
}

/** Findings of each row, the worst first. @type {Finding[][]} */
const findingsOf = page.texts.name.map(() => []);
page.findings.forEach((finding) => findingsOf[finding.row].push(finding));

/** The worst severity of a row, or an empty text. @param {number} row */
const severityOf = (row) => (findingsOf[row].length ? findingsOf[row][0].severity : "");

/** What is known of a column: meaning, unit and the longer text. @param {Column} column */
const meaningOf = ({ meaning, unit, explain }) => `${meaning}${unit ? ` (${unit})` : ""}${explain ? `. ${explain}` : ""}`;

const tip = el("div", { id: "tip", role: "tooltip", hidden: true });

/** Show a text beside a place of the window, inside it. @param {Node|string} content @param {number} x @param {number} y */
function showTip(content, x, y) {
  tip.replaceChildren(content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 10) : y + 18}px`;
}

const hideTip = () => void (tip.hidden = true);
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
addEventListener("scroll", hideTip, { passive: true });

/** Return a word that explains itself, to the mouse and to the keyboard.
 * @param {string} word @param {string} meaning @param {Attributes} [attributes] */
function term(word, meaning, attributes = {}) {
  if (!meaning) return el(attributes.click ? "button" : "span", { text: word, ...attributes });
  const show = (/** @type {Event} */ event) => {
    const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    showTip(meaning, box.left, box.bottom - 8);
  };
  return el("button", {
    type: "button", class: "term", text: word, "aria-describedby": "tip",
    mouseenter: show, focus: show, click: show, mouseleave: hideTip, blur: hideTip, ...attributes,
  });
}

/** Return the switch between light and dark. */
function themeSwitch() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => {
    button.textContent = `${theme() === "dark" ? "Light" : "Dark"} theme`;
    redrawCharts();
  };
  const button = el("button", { type: "button", class: "switch", click: () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    show();
  } });
  dark.addEventListener("change", show);
  show();
  return button;
}

/** Let the reader save a text as a file. @param {string} name @param {string} type @param {string} text */
function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
