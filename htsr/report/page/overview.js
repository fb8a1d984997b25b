// The first screen: what the model is, the verdict, the layers to look at first, and the metric by depth.

/** Show the layers of some kinds of findings in the table. @param {string[]} kinds */
function showKinds(kinds) {
  view.kinds = kinds;
  view.sort = "findings";
  drawTable();
  tableNote.scrollIntoView({ block: "center" });
}

/** The header of the page. */
function headerOf() {
  const known = new Set(page.findings.map((finding) => finding.kind));
  const sentences = page.verdict.map(({ text, kinds }) => {
    const found = kinds.filter((kind) => known.has(kind));
    return el("li", {}, found.length
      ? el("a", { href: "#table", text: `${text} →`, title: "show these layers", click: (/** @type {Event} */ event) => (event.preventDefault(), showKinds(found)) })
      : el("span", { text }));
  });
  const kinds = [...known].map((kind) => term(kind, page.explanations[kind] || ""));
  return el("header", {},
    el("div", { class: "top" }, el("h1", { text: page.title }), themeSwitch()),
    el("p", { class: "quiet", text: [...page.facts].join(" · ") }),
    sentences.length ? el("ul", { class: "verdict", "aria-label": "Verdict" }, ...sentences) : null,
    page.lead ? el("p", { class: "lead", text: page.lead }) : null,
    kinds.length ? el("p", { class: "quiet words" }, "In words: ", term(page.metric, page.explanations[page.metric] || ""), ...kinds) : null);
}

/** The cards of the layers that come first. */
function cardsOf() {
  if (!page.cards.length) return null;
  return el("div", { class: "cards" }, ...page.cards.map((row) => {
    const picture = page.pictures[row], finding = findingsOf[row][0], esd = picture && (picture.esd || picture.delta?.esd);
    const interval = page.texts.alpha_low?.[row] ? ` (${page.texts.alpha_low[row]} to ${page.texts.alpha_high[row]})` : page.texts.sigma?.[row] ? ` ± ${page.texts.sigma[row]}` : "";
    const value = page.texts[page.metric]?.[row];
    return el("button", { type: "button", class: `card is-${severityOf(row)}`, click: () => openRow(row, true) },
      el("b", { text: page.texts.name[row] }),
      esd ? sparkline(esd, (picture.fit || picture.delta?.fit)?.xmin ?? null, `Spectrum of ${page.texts.name[row]}`) : null,
      el("span", { class: "value", text: value ? `${page.metric} ${value}${page.metric === "alpha" ? interval : ""}` : page.notes[row] }),
      finding ? el("span", { class: "reason" }, el("em", { text: `${finding.kind}: ` }), finding.text) : null);
  }));
}

/** Panels of the metric by depth, one for each role, with the band of noise behind each point. */
function depthOf() {
  const depth = page.depth, metric = page.metric, column = page.columns.find((one) => one.name === metric);
  if (!depth || !column) return null;
  const alpha = metric === "alpha", host = el("div", { class: "figures depth" });
  const starts = depth.panels.map(({ role, inside, rows, x, low, high, noise }) => {
    const y = rows.map((row) => numberOf(metric, row));
    const color = (/** @type {number} */ row) => css({ problem: "problem", caution: "caution" }[severityOf(row)] || "blue");
    const one = figure(rows.length > 1 || inside ? role : `${role}: ${page.texts.name[rows[0]]}`, {
      name: `${metric} of ${counted(rows.length, "layer")} (${role}) by block: ${rows.slice(0, 40).map((row) => page.texts[metric][row]).join(", ")}`,
      x: { label: inside ? "block" : "", range: [-0.6, Math.max(...x, inside ? depth.blocks - 1 : 0) + 0.6], every: 1,
        ticks: (value) => (inside && Number.isInteger(value) && value < depth.blocks ? String(value) : "") },
      y: { label: "", log: depth.log, range: depth.range }, height: 150, legend: false,
      series: [{ label: metric, x, y, color: "blue", kind: "points" }],
      marks: () => (alpha ? [{ at: 2, across: true }, { at: 6, across: true }] : []),
      under: (u, ctx, at) => noise.forEach(([from, to], i) => {
        if (from === null || to === null) return;
        const wide = Math.max(3, at(x[i] + 0.4, 1)[0] - at(x[i] - 0.4, 1)[0]), top = at(1, to)[1];
        ctx.fillStyle = `${css("quiet")}40`;
        ctx.fillRect(at(x[i], 1)[0] - wide / 2, top, wide, Math.max(2, at(1, from)[1] - top));
      }),
      over: (u, ctx, at) => rows.forEach((row, i) => {
        const [left, middle] = at(x[i], Number(y[i]));
        ctx.strokeStyle = ctx.fillStyle = color(row);
        ctx.lineWidth = 1.5 * devicePixelRatio;
        ctx.beginPath();
        if (low[i] !== null && high[i] !== null) ctx.moveTo(left, at(1, Number(low[i]))[1]), ctx.lineTo(left, at(1, Number(high[i]))[1]);
        ctx.stroke();
        ctx.beginPath();
        ctx.arc(left, middle, 3.2 * devicePixelRatio, 0, 7);
        ctx.fill();
      }),
      hover: (_, i) => el("div", {}, el("b", { text: page.texts.name[rows[i]] }),
        el("div", { text: [`${metric} ${page.texts[metric][rows[i]]}`, page.texts.phase?.[rows[i]], page.notes[rows[i]]].filter(Boolean).join("; ") })),
      click: (_, i) => openRow(rows[i], true),
    });
    host.append(one.figure);
    return one.start;
  });
  const note = alpha ? "Smaller is heavier-tailed. Grey: where 90 % of noise of the same shape lies. Dashed: 2 and 6. Bars: 95 % interval, or one standard error each way." : "";
  const section = el("section", {}, el("h2", {}, term(metric, meaningOf(column)), " by depth"), host, note ? el("p", { class: "quiet", text: note }) : null);
  return { section, start: () => starts.forEach((start) => start()) };
}
