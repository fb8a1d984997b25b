// The panel of one layer, built when it is opened.

/** The row of the table that holds the panel, and what starts its charts. @param {number} row @param {number} width */
function panelOf(row, width) {
  const { texts, places, pictures: { [row]: picture } } = page, name = texts.name[row];
  let drawn = page.runs ? runFigures(row) : [];
  if (picture) drawn = page.kind === "comparison" ? changeFigures(picture) : layerFigures(picture);
  const findings = findingsOf[row].map(({ kind, severity, text }) =>
    el("li", { class: `is-${severity}` }, term(kind, page.explanations[kind] || ""), ` ${text}`));
  const filled = page.columns.filter((column) => texts[column.name][row] !== "");
  const cells = filled.map(({ name, unit, meaning, explain }) => el("div", {}, el("dt", {}, term(name, explain)), el("dd", {},
    el("b", { text: texts[name][row] }), unit ? ` ${unit}` : null, el("span", { class: "quiet", text: ` ${meaning}` }))));
  const link = framed ? null : el("a", { href: addressOf(row), class: "quiet", text: "link to this row" });
  const node = el("tr", { class: "panel" }, el("td", { colspan: width }, el("div", { class: "panel" },
    el("h3", {}, el("span", { text: name }), link),
    el("p", { class: "quiet", text: [places.role[row], places.label[row]].filter(Boolean).join(" of ") }),
    findings.length ? el("ul", { class: "findings" }, ...findings) : null,
    el("div", { class: "figures" }, ...drawn.map((one) => one.figure), drawn.length || several ? null : "There is no spectrum."),
    el("h4", { text: "Every number" }), el("dl", { class: "cells" }, ...cells))));
  return { node, start: () => drawn.forEach((one) => one.start()) };
}

/** @param {number|null} row */
const addressOf = (row) => (row === null ? "#" : `#layer=${encodeURIComponent(page.texts.name[row])}`);

/** Open the row that the address names. */
function openAddressed() {
  const name = new URLSearchParams(location.hash.slice(1).replace(/\+/g, "%2B")).get("layer");
  const row = name === null ? -1 : page.texts.name.indexOf(name);
  if (row >= 0 && view.open !== row) openRow(row, true);
}
