// Pictures of spectra: of a card, of a layer, before and after.

/** Edges and density of each bin of an ESD; null where a bin is empty. @param {Esd} esd */
function histogram(esd) {
  const [low, high] = esd.ends, bins = esd.counts.length;
  const edges = Array.from({ length: bins + 1 }, (_, i) => 10 ** (low + ((high - low) * i) / bins));
  const density = esd.counts.map((count, i) => (count ? count / esd.n / (edges[i + 1] - edges[i]) : null));
  return { edges, density };
}

/** @param {string} label @param {Esd} esd @param {string} color @param {boolean} [fill] @returns {Series} */
function esdSeries(label, esd, color, fill = false) {
  const { edges, density } = histogram(esd);
  return { label, x: edges, y: [...density, density[density.length - 1]], color, kind: "steps", fill, width: fill ? 1 : 1.4 };
}

/** The density of the fitted tail among all values. @param {Law} fit @param {string} [label] @returns {Series} */
function tailSeries(fit, label = "power law", color = "vermilion") {
  const x = [0, 0.25, 0.5, 0.75, 1].map((t) => fit.xmin * (fit.xmax / fit.xmin) ** t);
  const y = x.map((value) => ((fit.share * (fit.alpha - 1)) / fit.xmin) * (value / fit.xmin) ** -fit.alpha);
  return { label, x, y, color, width: 2 };
}

const LAMBDA = "eigenvalue λ of WᵀW";

/** @param {Picture} picture @returns {{figure: HTMLElement, start: () => any}[]} */
function layerFigures(picture) {
  const low = picture.esd ? 0.5 * Math.min(...histogram(picture.esd).density.filter((value) => value !== null).map(Number)) : 0;
  const figures = [];
  if (picture.esd) {
    const series = [esdSeries("spectrum", picture.esd, "sky", true)];
    if (picture.shuffled) series.push(esdSeries("shuffled", picture.shuffled, "purple"));
    if (picture.law)
      series.push({
        label: "noise law", x: picture.law[0], color: "green",
        y: picture.law[1].map((/** @type {number} */ value) => (value > low ? value : null)),
      });
    if (picture.fit) series.push(tailSeries(picture.fit));
    const marks = () => [
      ...(picture.fit ? [{ at: picture.fit.xmin, label: `xmin ${short(picture.fit.xmin)}`, color: "vermilion" }] : []),
      ...(picture.edge ? [{ at: picture.edge, label: `noise edge ${short(picture.edge)}`, color: "quiet" }] : []),
    ];
    figures.push(figure("Spectrum (ESD)", {
      name: `Density of the ${picture.esd.n} eigenvalues from ${short(10 ** picture.esd.ends[0])} to ${short(10 ** picture.esd.ends[1])} on logarithmic axes`,
      x: { label: LAMBDA, log: true, range: [10 ** (picture.esd.ends[0] - 0.05), 10 ** (picture.esd.ends[1] + 0.05)] },
      y: { label: "density", log: true }, series, marks, height: 240,
      hover: (s, i) => `${series[s].label}: λ ${short(series[s].x[i])}, density ${short(series[s].y[i])}`,
    }));
  }
  if (picture.scan) {
    const [xmin, alpha, distance] = picture.scan;
    /** @param {string} label @param {(number|null)[]} values @param {number} chosen */
    const scan = (label, values, chosen) =>
      figure(`Choice of xmin: ${label}`, {
        name: `${label} of each candidate for xmin; ${label} is ${short(chosen)} at the xmin that was chosen, ${short(picture.fit.xmin)}`,
        x: { label: "xmin", log: true, range: [10 ** picture.esd.ends[0], 10 ** picture.esd.ends[1]] }, y: { label }, legend: false, height: 200, marks: () => [{ at: picture.fit.xmin, color: "vermilion" }],
        series: [{ label, x: xmin, y: values, color: "blue" }],
        hover: (s, i) => `xmin ${short(xmin[i])}: ${label} ${short(values[i])}`,
      });
    const at = xmin.reduce((/** @type {number} */ best, /** @type {number} */ value, /** @type {number} */ i) =>
      Math.abs(value - picture.fit.xmin) < Math.abs(xmin[best] - picture.fit.xmin) ? i : best, 0);
    figures.push(scan("D", distance, distance[at]), scan("alpha", alpha, picture.fit.alpha));
  }
  if (picture.qq) {
    const [expected, values, lows, highs] = picture.qq;
    figures.push(figure("Tail against its law (QQ)", {
      name: `The ${picture.fit.tail} values of the tail against the quantiles of the fitted power law, with the band of 95 % of its draws`,
      x: { label: "quantile of the law", log: true }, y: { label: "eigenvalue", log: true }, height: 200,
      series: [
        { label: "tail", x: expected, y: values, color: "blue", kind: "points" },
        { label: "equal", x: expected, y: expected, color: "vermilion" },
        { label: "", x: expected, y: lows, color: "quiet", kind: "ends" },
        { label: "95 % of draws", x: expected, y: highs, color: "quiet", kind: "ends" },
      ],
      bands: [{ of: [3, 2], color: "quiet" }],
      hover: (s, i) => `eigenvalue ${short(values[i])}, expected ${short(expected[i])} (${short(lows[i])} to ${short(highs[i])})`,
    }));
  }
  return figures;
}

/** The spectra of A, of B and of the change in one panel. @param {Picture} picture */
function changeFigures(picture) {
  /** @type {Series[]} */
  const series = [];
  for (const [side, label, color] of [["a", "A, before", "sky"], ["b", "B, after", "vermilion"], ["delta", "the change, B − A", "green"]]) {
    if (!picture[side]) continue;
    series.push(esdSeries(label, picture[side].esd, color, side === "a"));
    if (picture[side].fit) series.push({ ...tailSeries(picture[side].fit, "", color), dash: [5, 3] });
  }
  if (!series.length) return [];
  return [figure("Spectrum before and after", {
    name: "Densities of the eigenvalues of A, of B and of the change on logarithmic axes; dashed lines are the power laws fitted to their tails",
    x: { label: LAMBDA, log: true }, y: { label: "density", log: true }, series, height: 280,
    hover: (s, i) => (series[s].label ? `${series[s].label}: λ ${short(series[s].x[i])}, density ${short(series[s].y[i])}` : null),
  })];
}

/**
 * A spectrum the size of a word: the histogram of its logarithms, the tail in colour.
 * @param {Esd} esd @param {number|null} xmin @param {string} name @returns {SVGElement}
 */
function sparkline(esd, xmin, name) {
  const space = "http://www.w3.org/2000/svg", wide = 200, high = 56;
  const svg = document.createElementNS(space, "svg");
  const attributes = { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": name, preserveAspectRatio: "none", class: "sparkline" };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  fillSparkline(svg, esd, xmin);
  return svg;
}

/** @param {SVGElement} svg @param {Esd} esd @param {number|null} xmin */
function fillSparkline(svg, esd, xmin) {
  const bins = esd.counts.length, top = Math.log1p(Math.max(...esd.counts)), [low, high] = esd.ends;
  const from = xmin ? Math.log10(xmin) : Infinity;
  const paths = ["", ""];
  esd.counts.forEach((count, i) => {
    if (!count) return;
    const tall = (Math.log1p(count) / top) * 54, middle = low + ((high - low) * (i + 0.5)) / bins;
    paths[middle >= from ? 1 : 0] += `M${((i * 200) / bins).toFixed(1)} 56v-${tall.toFixed(1)}h${(190 / bins).toFixed(1)}v${tall.toFixed(1)}z`;
  });
  const nodes = paths.map((d, i) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", d);
    path.setAttribute("class", i ? "tail" : "bulk");
    return path;
  });
  svg.replaceChildren(...nodes);
}
