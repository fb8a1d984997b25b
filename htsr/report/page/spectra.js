// Pictures of spectra: of a card, of a layer, before and after.

/** The colours of categories, in their order. */
const CATEGORIES = ["blue", "orange", "green", "vermilion", "purple", "sky"];

/** Return color and dash of the n-th category. @param {number} n */
const look = (n) => ({ color: CATEGORIES[n % CATEGORIES.length], dash: n < CATEGORIES.length ? undefined : [5, 3] });

/** Return a histogram as steps: the density of each bin, null where a bin is empty. @param {Esd} esd */
function steps({ ends: [low, high], counts, n }) {
  const x = [...counts, 0].map((_, i) => 10 ** (low + ((high - low) * i) / counts.length));
  const y = counts.map((count, i) => (count ? count / n / (x[i + 1] - x[i]) : null));
  return { x, y: [...y, y[y.length - 1]], kind: /** @type {const} */ ("steps") };
}

/** Return the density of the fitted tail among all values. @param {Law} fit @param {string} label @param {string} color */
const tailSeries = ({ line: [x, y] }, label, color) => ({ label, x, y, color, width: 2 });

/** Return a chart of densities of eigenvalues on logarithmic axes. @param {string} title @param {string} name
 * @param {Series[]} series @param {[number, number]} [range] @param {Partial<Chart>} [more] @returns {Figure} */
const densities = (title, name, series, range, more = {}) => figure(title, {
  name, series, height: 250, x: { label: "eigenvalue λ of WᵀW", log: true, range }, y: { label: "density", log: true },
  hover: (s, i) => (series[s].label ? `${series[s].label}: λ ${short(series[s].x[i])}, density ${short(series[s].y[i])}` : null),
  ...more,
});

/** The pictures of an analysed layer. @param {Picture} picture @returns {Figure[]} */
function layerFigures({ esd, shuffled, law, fit, edge, scan, qq }) {
  /** @type {Series[]} */
  const series = [{ label: "spectrum", ...steps(esd), color: "sky", fill: true, width: 1 }];
  if (shuffled) series.push({ label: "shuffled", ...steps(shuffled), color: "purple" });
  if (law) series.push({ label: "noise law", x: law[0], y: law[1], color: "green" });
  if (fit) series.push(tailSeries(fit, "power law", "vermilion"));
  const marks = [
    ...(fit ? [{ at: fit.xmin, label: `xmin ${short(fit.xmin)}`, color: "vermilion" }] : []),
    ...(edge ? [{ at: edge, label: `noise edge ${short(edge)}` }] : []),
  ];
  const [low, high] = esd.ends.map((/** @type {number} */ end) => 10 ** end);
  const name = `Density of the ${esd.n} eigenvalues from ${short(low)} to ${short(high)} on logarithmic axes`;
  const figures = [densities("Spectrum (ESD)", name, series, [low / 1.1, high * 1.1], { marks: () => marks })];
  if (scan) {
    const [xmin, alpha, distance] = scan;
    for (const [label, y, chosen] of [["D", distance, fit.D], ["alpha", alpha, fit.alpha]])
      figures.push(figure(`Choice of xmin: ${label}`, {
        name: `${label} of each candidate for xmin; ${label} is ${short(chosen)} at the xmin that was chosen, ${short(fit.xmin)}`,
        x: { label: "xmin", log: true, range: [low, high] }, y: { label }, series: [{ label, x: xmin, y, color: "blue" }],
        marks: () => [{ at: fit.xmin, color: "vermilion" }], legend: false,
        hover: (s, i) => `xmin ${short(xmin[i])}: ${label} ${short(y[i])}`,
      }));
  }
  if (qq) {
    const [x, values, lows, highs] = qq;
    figures.push(figure("Tail against its law (QQ)", {
      name: `The ${fit.tail} values of the tail against the quantiles of the power law, with the band of 95 % of its draws`,
      x: { label: "quantile of the law", log: true }, y: { label: "eigenvalue", log: true },
      series: [
        { label: "tail", x, y: values, color: "blue", kind: "points" },
        { label: "the law, with 95 % of its draws", x, y: x, color: "vermilion", band: [lows, highs] },
      ],
      hover: (s, i) => `eigenvalue ${short(values[i])}, expected ${short(x[i])} (${short(lows[i])} to ${short(highs[i])})`,
    }));
  }
  return figures;
}

/** The spectra of A, of B and of the change in one panel. @param {Picture} picture @returns {Figure[]} */
function changeFigures(picture) {
  const sides = [["a", "A, before", "sky"], ["b", "B, after", "vermilion"], ["delta", "the change, B − A", "green"]];
  const series = sides.filter(([side]) => picture[side]).flatMap(([side, label, color]) => /** @type {Series[]} */ ([
    { label, ...steps(picture[side].esd), color, fill: side === "a" },
    ...(picture[side].fit ? [{ ...tailSeries(picture[side].fit, "", color), dash: [5, 3] }] : []),
  ]));
  const name = "Densities of the eigenvalues of A, of B and of the change; dashed lines are the power laws fitted to their tails";
  return [densities("Spectrum before and after", name, series)];
}

/** A spectrum the size of a word: a histogram on a logarithmic axis. @param {string} name */
const sparkline = (name) =>
  el("svg", { viewBox: "0 0 200 56", role: "img", "aria-label": name, preserveAspectRatio: "none", class: "sparkline" });

/** Draw a spectrum, its tail in colour. @param {SVGElement} svg @param {Esd} esd @param {number|null|undefined} xmin */
function fillSparkline(svg, { ends: [low, high], counts }, xmin) {
  const top = Math.log1p(Math.max(...counts)), from = xmin ? Math.log10(xmin) : Infinity, wide = 200 / counts.length;
  const paths = ["", ""];
  counts.forEach((count, i) => {
    const tall = ((Math.log1p(count) / top) * 54).toFixed(1), middle = low + ((high - low) * (i + 0.5)) / counts.length;
    if (count) paths[Number(middle >= from)] += `M${(i * wide).toFixed(1)} 56v-${tall}h${(0.95 * wide).toFixed(1)}v${tall}z`;
  });
  svg.replaceChildren(...paths.map((d, i) => el("path", { d, class: i ? "tail" : "bulk" })));
}
