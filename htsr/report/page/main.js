// Put the page together.

{
  const overview = page.runs ? runsOverview() : null, depth = page.runs ? null : depthOf();
  const main = el("main", {}, headerOf(), overview ? overview.node : cardsOf(), depth ? depth.node : null,
    el("section", { id: "table" }, el("h2", { text: rowWord }), tableTools(), tableNote, tableHost));
  const said = page.directions.join("\n");
  if (said) main.append(el("section", {}, el("h2", { text: "What directions say" }), el("p", { class: "said", text: said })));
  const reasons = grouped(page.skipped, ([, , reason]) => reason);
  if (reasons.size) {
    main.append(el("section", {}, el("h2", { text: `Not analysed: ${counted(page.skipped.length, "tensor")}` }),
      ...[...reasons].map(([reason, tensors]) => {
        const text = tensors.map(([name, shape]) => (shape ? `${name} (${shape})` : name)).join(", ");
        const names = el("p", { class: "quiet names", text });
        return el("details", {}, el("summary", { text: `${reason}: ${tensors.length}` }), names);
      })));
  }
  const foot = page.foot.flatMap(([label, text]) => [el("dt", { text: label }), el("dd", { text })]);
  document.body.append(main, el("footer", {}, el("dl", {}, ...foot)), tip);
  drawTable();
  depth?.start();
  overview?.start();
  openAddressed();
  addEventListener("hashchange", openAddressed);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    drawTable();
    redrawCharts();
    overview?.resize();
  });
  performance.mark("htsrReady");
}
