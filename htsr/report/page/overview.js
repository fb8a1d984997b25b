// The first screen: what the model is, the verdict, the layers to look at first, and the metric by depth.

/** The header of the page: what it is about, the verdict, and what the worst finding means. */
function headerOf() {
  const known = [...new Set(page.findings.map((finding) => finding.kind))];
  const sentences = page.verdict.map(({ text, kinds }) => {
    const found = kinds.filter((kind) => known.includes(kind));
    if (!found.length) return el("li", { text });
    return el("li", {}, el("a", { href: "#table", text: `${text} →`, title: "show these layers", click: (event) => {
      event.preventDefault();
      change({ kinds: found, sort: "findings", up: true });
      tableNote.scrollIntoView({ block: "center" });
    } }));
  });
  const words = [page.metric, ...known].filter((word) => page.explanations[word]);
  return el("header", {},
    el("div", { class: "top" }, el("h1", { text: page.title }), themeSwitch()),
    el("p", { class: "quiet", text: page.facts.join(" · ") }),
    sentences.length ? el("ul", { class: "verdict", "aria-label": "Verdict" }, ...sentences) : null,
    page.meaning ? el("p", { class: "meaning", text: page.meaning }) : null,
    el("p", { class: "quiet" }, page.lead, ...(page.links ?? []).flatMap(([text, href]) => [" ", el("a", { href, text })])),
    el("p", { class: "quiet words" }, "In words: ", ...words.map((word) => term(word, page.explanations[word]))));
}

/** A card that opens a row. @param {number} row @param {string} title @param {...(Node|null)} children */
const cardOf = (row, title, ...children) => el("button", {
  type: "button", class: `card is-${severityOf(row)}`, click: () => openRow(row, true),
}, el("b", { text: title }), ...children);

/** The cards of the layers that come first. */
function cardsOf() {
  return el("div", { class: "cards" }, ...page.cards.map((row) => {
    const { texts } = page, name = texts.name[row], finding = findingsOf[row][0], value = texts[page.metric]?.[row];
    const picture = page.pictures[row]?.delta || page.pictures[row], drawing = picture?.esd && sparkline(`Spectrum of ${name}`);
    if (drawing) fillSparkline(drawing, picture.esd, picture.fit?.xmin);
    const error = texts.sigma?.[row] ? ` ± ${texts.sigma[row]}` : "";
    const interval = texts.alpha_low?.[row] ? ` (${texts.alpha_low[row]} to ${texts.alpha_high[row]})` : error;
    const text = value ? `${page.metric} ${value}${interval}` : page.notes[row];
    return cardOf(row, name, drawing || null, el("span", { class: "value", text }),
      finding ? el("span", { class: "reason" }, el("em", { text: `${finding.kind}: ` }), finding.text) : null);
  }));
}

/** Panels of the metric by depth, one for each role, with the band of noise behind each point. */
function depthOf() {
  const { depth, metric } = page, column = page.columns.find((one) => one.name === metric);
  if (!depth || !column) return null;
  const alpha = metric === "alpha", texts = page.texts[metric];
  const panels = depth.panels.map(({ role, inside, rows, x, low, high, noise }) => {
    const y = rows.map((row) => page.numbers[metric][row]);
    const values = rows.slice(0, 40).map((row) => `${page.texts.name[row]} ${texts[row]}`).join(", ");
    return figure(rows.length > 1 || inside ? role : `${role}: ${page.texts.name[rows[0]]}`, {
      name: `${metric} of ${counted(rows.length, "layer")} (${role}): ${values}`, height: 150, legend: false,
      x: {
        label: inside ? "block" : "", range: [-0.6, Math.max(...x, inside ? depth.blocks - 1 : 0) + 0.6], whole: true,
        ticks: (value) => (inside && Number.isInteger(value) && value < depth.blocks ? String(value) : ""),
      },
      y: { label: "", log: depth.log, range: depth.range }, series: [{ label: metric, x, y, color: "blue", kind: "points" }],
      marks: () => (alpha ? [{ at: 2, across: true }, { at: 6, across: true }] : []),
      under: (ctx, at) => noise.forEach(([from, to], i) => {
        if (from === null || to === null) return;
        const [left, bottom] = at(x[i] - 0.4, from), [right, top] = at(x[i] + 0.4, to), wide = Math.max(3, right - left);
        ctx.fillStyle = `${css("quiet")}40`;
        ctx.fillRect((left + right - wide) / 2, top, wide, Math.max(2, bottom - top));
      }),
      over: (ctx, at) => rows.forEach((row, i) => {
        const [left, middle] = at(x[i], Number(y[i])), severity = severityOf(row);
        ctx.fillStyle = css(severity === "problem" || severity === "caution" ? severity : "blue");
        const from = low[i], to = high[i], wide = 1.5 * devicePixelRatio;
        if (from !== null && to !== null) ctx.fillRect(left - wide / 2, at(1, to)[1], wide, at(1, from)[1] - at(1, to)[1]);
        ctx.beginPath();
        ctx.arc(left, middle, 3.2 * devicePixelRatio, 0, 7);
        ctx.fill();
      }),
      hover: (_, i) => {
        const said = [`${metric} ${texts[rows[i]]}`, page.texts.phase?.[rows[i]], page.notes[rows[i]]].filter(Boolean).join("; ");
        return el("div", {}, el("b", { text: page.texts.name[rows[i]] }), el("div", { text: said }));
      },
      click: (_, i) => openRow(rows[i], true),
    });
  });
  const note = "Smaller is heavier-tailed. Grey: 90 % of noise of this shape. Dashed: 2 and 6. Bars: 95 % interval, or ± sigma.";
  const node = el("section", {}, el("h2", {}, term(metric, meaningOf(column)), " by depth"),
    el("div", { class: "figures depth" }, ...panels.map((panel) => panel.figure)),
    alpha ? el("p", { class: "quiet", text: note }) : null);
  return { node, start: () => panels.forEach((panel) => panel.start()) };
}
