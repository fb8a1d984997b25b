// The panel of one layer, built when it is opened.

/** What starts the charts of the open panel, once it stands in the page. @type {(() => any)[]} */
let panelCharts = [];

const startPanel = () => panelCharts.splice(0).forEach((start) => start());

/** @param {number} row @param {number} width */
function panelRow(row, width) {
  const picture = page.pictures[row];
  const drawn = page.runs ? runFigures(row) : !picture ? [] : page.kind === "comparison" ? changeFigures(picture) : layerFigures(picture);
  panelCharts = drawn.map(({ start }) => start);
  const name = page.texts.name[row];
  const findings = findingsOf[row].map((finding) => el("li", { class: `is-${finding.severity}` },
    term(finding.kind, page.explanations[finding.kind] || ""), el("span", { text: ` ${finding.text}` })));
  const cells = page.columns.filter((column) => page.texts[column.name][row] !== "").map((column) => el("div", {},
    el("dt", {}, term(column.name, column.explain)),
    el("dd", {}, el("b", { text: `${page.texts[column.name][row]}${column.unit ? ` ${column.unit}` : ""}` }), el("span", { class: "quiet", text: ` ${column.meaning}` }))));
  const place = page.places.label[row] ? `${page.places.role[row]} of ${page.places.label[row]}` : page.places.role[row] || "";
  return el("tr", { class: "panel" }, el("td", { colspan: width }, el("div", { class: "panel" },
    el("h3", {}, el("span", { text: name }), el("a", { href: `#layer=${encodeURIComponent(name)}`, class: "quiet", text: "link to this layer" })),
    place ? el("p", { class: "quiet", text: place }) : null,
    findings.length ? el("ul", { class: "findings" }, ...findings) : null,
    drawn.length ? el("div", { class: "figures" }, ...drawn.map((one) => one.figure)) : el("p", { class: "quiet", text: "There is no spectrum to draw." }),
    el("h4", { text: "Every number" }), el("dl", { class: "cells" }, ...cells))));
}

/** Open the layer that the address names. */
function openAddressed() {
  const name = /#layer=(.*)/.exec(location.hash);
  const row = name ? page.texts.name.indexOf(decodeURIComponent(name[1])) : -1;
  if (row >= 0 && view.open !== row) openRow(row, true);
}
