// Put the page together.

{
  const overview = page.runs ? runsOverview() : null, depth = page.runs ? null : depthOf();
  const main = el("main", {}, headerOf(), overview ? overview.node : cardsOf(), depth ? depth.node : null,
    el("section", { id: "table" }, el("h2", { text: rowWord }), tableTools(), tableNote, tableHost));
  const reasons = grouped(page.skipped, ([, , reason]) => reason);
  if (reasons.size) {
    main.append(el("section", {}, el("h2", { text: `Not analysed: ${counted(page.skipped.length, "tensor")}` }),
      ...[...reasons].map(([reason, tensors]) => {
        const text = tensors.map(([name, shape]) => (shape ? `${name} (${shape})` : name)).join(", ");
        const summary = el("summary", { text: `${reason}: ${tensors.length}` });
        return el("details", {}, summary, el("p", { class: "quiet names", text }));
      })));
  }
  const foot = page.foot.flatMap(([label, text]) => [el("dt", { text: label }), el("dd", { text })]);
  main.append(el("footer", {}, el("dl", {}, ...foot)));
  document.body.append(main, tip);
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
