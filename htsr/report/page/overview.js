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
      ? el("a", { href: "#table", text, click: (/** @type {Event} */ event) => (event.preventDefault(), showKinds(found)) })
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
    return el("button", { type: "button", class: `card ${severityOf(row)}`, click: () => openRow(row, true) },
      el("b", { text: page.texts.name[row] }),
      esd ? sparkline(esd, (picture.fit || picture.delta?.fit)?.xmin ?? null, `Spectrum of ${page.texts.name[row]}`) : null,
      el("span", { class: "value", text: value ? `${page.metric} ${value}${page.metric === "alpha" ? interval : ""}` : page.notes[row] }),
      finding ? el("span", { class: "reason" }, el("em", { text: `${finding.kind}: ` }), finding.text) : null);
  }));
}

/** Panels of a metric by depth, one for each role, with the band of noise behind each point. */
function depthOf() {
  const metric = page.metric, column = page.columns.find((one) => one.name === metric);
  const roles = ["embedding", "q", "k", "v", "kv", "qkv", "o", "router", "gate", "up", "down", "conv", "head", "other"];
  const rows = page.places.order.filter((row) => numberOf(metric, row) !== null && !page.tied[row]);
  if (!column || !rows.length) return null;
  const values = rows.flatMap((row) => ["", "_low", "_high"].map((end) => numberOf(metric + end, row) ?? numberOf(metric, row))).map(Number);
  const band = (/** @type {number} */ row) => metric === "alpha" ? [numberOf("null_alpha_low", row), numberOf("null_alpha_high", row)] : [null, null];
  const all = [...values, ...rows.flatMap(band).filter((value) => value !== null).map(Number)].filter((value) => value > 0);
  const log = Math.max(...all) > 4 * Math.min(...all) && Math.min(...values) > 0;
  const [low, high] = log ? [Math.min(...all) / 1.15, Math.max(...all) * 1.15] : [Math.min(...values, metric === "alpha" ? 1.9 : Infinity) - 0.2 * (metric === "alpha" ? 1 : 0), Math.max(...all, ...values) * 1.05];
  const blocks = Math.max(...page.places.block) + 1;
  const panels = roles.map((role) => ({ role, rows: rows.filter((row) => page.places.role[row] === role) })).filter((panel) => panel.rows.length);
  const host = el("div", { class: "figures depth" });
  const starts = panels.map(({ role, rows: members }) => {
    const inside = members.some((row) => page.places.block[row] >= 0);
    const beside = new Map();
    const x = members.map((row, i) => {
      const block = inside ? (page.places.block[row] >= 0 ? page.places.block[row] : blocks + i) : i;
      beside.set(block, (beside.get(block) ?? -1) + 1);
      return block + 0.18 * beside.get(block);
    });
    const ends = (/** @type {number} */ row) => [numberOf(`${metric}_low`, row) ?? (numberOf(metric, row) || 0) - (metric === "alpha" ? numberOf("sigma", row) || 0 : 0),
      numberOf(`${metric}_high`, row) ?? (numberOf(metric, row) || 0) + (metric === "alpha" ? numberOf("sigma", row) || 0 : 0)].map(Number);
    const one = figure(members.length > 1 || inside ? role : `${role}: ${page.texts.name[members[0]]}`, {
      name: `${metric} of ${counted(members.length, "layer")} (${role}) by block: ${members.slice(0, 40).map((row) => page.texts[metric][row]).join(", ")}`,
      x: { label: inside ? "block" : "", range: inside ? [-0.6, Math.max(...x, blocks - 1) + 0.6] : [-0.6, Math.max(...x) + 0.6], every: 1, ticks: (value) => (inside && Number.isInteger(value) && value < blocks && value >= 0 ? String(value) : "") },
      y: { label: "", log, range: [low, high] }, height: 150, legend: false,
      series: [{ label: metric, x, y: members.map((row) => numberOf(metric, row)), color: "blue", kind: "points" }],
      marks: () => (metric === "alpha" ? [{ at: 2, across: true }, { at: 6, across: true }] : []),
      under: (u, ctx, at) => members.forEach((row, i) => {
        const [from, to] = band(row), wide = Math.max(3, Math.abs(at(x[i] + 0.4, 1)[0] - at(x[i] - 0.4, 1)[0]));
        if (from === null || to === null) return;
        ctx.fillStyle = `${css("quiet")}40`;
        ctx.fillRect(at(x[i], 1)[0] - wide / 2, at(1, to)[1], wide, at(1, from)[1] - at(1, to)[1]);
      }),
      over: (u, ctx, at) => members.forEach((row, i) => {
        const [from, to] = ends(row), left = at(x[i], 1)[0], color = css({ problem: "problem", caution: "caution" }[severityOf(row)] || "blue");
        ctx.strokeStyle = ctx.fillStyle = color;
        ctx.lineWidth = 1.5 * devicePixelRatio;
        ctx.beginPath();
        ctx.moveTo(left, at(1, Math.max(from, log ? low : -Infinity))[1]);
        ctx.lineTo(left, at(1, to)[1]);
        ctx.stroke();
        ctx.beginPath();
        ctx.arc(left, at(1, Number(numberOf(metric, row)))[1], 3.2 * devicePixelRatio, 0, 7);
        ctx.fill();
      }),
      hover: (_, i) => el("div", {}, el("b", { text: page.texts.name[members[i]] }), el("div", { text: [`${metric} ${page.texts[metric][members[i]]}`, page.texts.phase?.[members[i]], page.notes[members[i]]].filter(Boolean).join("; ") })),
      click: (_, i) => openRow(members[i], true),
    });
    host.append(one.figure);
    return one.start;
  });
  const title = el("h2", {}, term(metric, meaningOf(column)), ` by depth${column.unit ? `, ${column.unit}` : ""}`);
  const note = metric === "alpha" ? el("p", { class: "quiet", text: "Smaller is heavier-tailed. Grey: where 90 % of noise of the same shape lies. Dashed: 2 and 6. Bars: 95 % interval, or one standard error each way." }) : null;
  return { section: el("section", {}, title, host, note), start: () => starts.forEach((start) => start()) };
}
