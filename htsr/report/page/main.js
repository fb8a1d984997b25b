// Put the page together.

{
  const overview = page.runs ? runsOverview() : null;
  const parts = [headerOf(), overview ? overview.node : cardsOf()].filter((part) => part !== null);
  const depth = page.runs ? null : depthOf();
  const main = el("main", {}, ...parts, ...(depth ? [depth.section] : []),
    el("section", { id: "table" }, el("h2", { text: page.kind === "runs" ? "Runs" : "Layers" }), tableTools(), tableNote, tableHost));
  if (page.skipped.length) {
    const reasons = new Map();
    for (const [name, shape, reason] of page.skipped) reasons.set(reason, [...(reasons.get(reason) || []), `${name}${shape ? ` (${shape})` : ""}`]);
    main.append(el("section", {}, el("h2", { text: `Not analysed: ${counted(page.skipped.length, "tensor")}` }),
      ...[...reasons].map(([reason, names]) => el("details", {}, el("summary", { text: `${reason}: ${names.length}` }), el("p", { class: "quiet names", text: names.join(", ") })))));
  }
  main.append(el("footer", {}, el("dl", {}, ...page.foot.flatMap(([label, text]) => [el("dt", { text: label }), el("dd", { text })]))));
  document.body.append(main, tip);
  drawTable();
  depth?.start();
  overview?.start();
  openAddressed();
  addEventListener("hashchange", openAddressed);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width && view.open === null) (width = innerWidth), drawTable();
  });
  performance.mark("htsrReady");
}
