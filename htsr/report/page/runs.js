// Runs: a slider over the steps that moves spectra and cards, curves on one time axis, and a heat map of layers and steps.

const runs = page.runs || [], layerNames = page.layers || [];
const allSteps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
/** What the slider and the choices show. */
const moment = { step: allSteps[allSteps.length - 1], layer: 0, run: 0, metric: "alpha" };
/** What to draw anew when the step changes. @type {(() => void)[]} */
let followers = [];
let player = 0;

/** The last capture of a run that is not after the step. @param {Run} run @param {number} [step] */
const captureAt = (run, step = moment.step) => run.steps.reduce((last, at, i) => (at <= step ? i : last), 0);

/** @param {Run} run @param {number} layer @param {number} capture @returns {Esd|null} */
function runEsd(run, layer, capture) {
  const packed = run.esds[capture]?.[layer], ends = page.ends?.[layer];
  return packed && ends ? { n: packed[0], counts: packed.slice(1), ends } : null;
}

/** @param {(number|null)[]} values */
function median(values) {
  const known = values.filter((value) => value !== null).map(Number).sort((a, b) => a - b), half = known.length >> 1;
  return known.length ? (known.length % 2 ? known[half] : (known[half - 1] + known[half]) / 2) : null;
}

/** Show a step everywhere. @param {number} step */
function setStep(step) {
  moment.step = step;
  followers.forEach((follow) => follow());
}

/** The slider, its button and its number. */
function playerOf() {
  const number = el("output", { for: "step" });
  const slider = el("input", { type: "range", id: "step", min: 0, max: allSteps.length - 1, value: allSteps.length - 1, "aria-label": "step",
    input: () => setStep(allSteps[Number(slider.value)]) });
  const stop = () => (clearInterval(player), (player = 0), (button.textContent = "Play"));
  const button = el("button", { type: "button", text: "Play", click: () => {
    if (player) return void stop();
    button.textContent = "Stop";
    if (Number(slider.value) === allSteps.length - 1) slider.value = "0";
    player = window.setInterval(() => {
      setStep(allSteps[Number(slider.value)]);
      if (Number(slider.value) === allSteps.length - 1) stop();
      else slider.value = String(Number(slider.value) + 1);
    }, Math.max(40, 3000 / allSteps.length));
  } });
  followers.push(() => (number.textContent = `step ${moment.step}`));
  return el("div", { class: "player" }, button, slider, number);
}

/** Cards that follow the slider: of the runs, or of the layers that moved most. */
function movingCards() {
  const several = page.kind === "runs";
  const cards = several ? page.cards.map((i) => ({ run: runs[i], title: runs[i].label, layer: () => moment.layer, row: i }))
    : page.cards.map((row) => ({ run: runs[0], title: page.texts.name[row], layer: () => layerNames.indexOf(page.texts.name[row]), row }));
  return el("div", { class: "cards" }, ...cards.map(({ run, title, layer, row }) => {
    const picture = sparkline({ ends: [0, 1], counts: [0], n: 0 }, null, `Spectrum of ${title}`), value = el("span", { class: "value" });
    followers.push(() => {
      const at = captureAt(run), esd = runEsd(run, layer(), at), xmin = run.values.xmin?.[at][layer()] ?? null;
      if (esd) fillSparkline(picture, esd, xmin);
      const alpha = several ? median(run.values.alpha?.[at] || []) : run.values.alpha?.[at][layer()], rank = several ? median(run.values.stable_rank?.[at] || []) : run.values.stable_rank?.[at][layer()];
      const said = [`${several ? "median " : ""}alpha ${short(alpha)}`, `stable rank ${short(rank)}`];
      for (const [name, [steps, values]] of several ? Object.entries(run.scalars).slice(0, 2) : []) {
        const i = steps.findLastIndex((step) => step <= moment.step);
        if (i >= 0) said.push(`${name} ${short(values[i], 4)}`);
      }
      value.textContent = said.join(" · ");
    });
    return el("button", { type: "button", class: `card is-${several ? "" : severityOf(row)}`, click: () => openRow(row, true) }, el("b", { text: title }), picture, value);
  }));
}

/** The spectra of a layer at the step: of every run, or of one run between its first and its last. @param {() => number} layer */
function stepSpectrum(layer) {
  const series = () => runs.length > 1
    ? runs.map((run, i) => one(run, captureAt(run), run.label, CATEGORIES[i % CATEGORIES.length], false))
    : [one(runs[0], captureAt(runs[0]), "at the step", "sky", true), one(runs[0], 0, "first", "quiet", false), one(runs[0], runs[0].steps.length - 1, "last", "vermilion", false)];
  /** @param {Run} run @param {number} at @param {string} label @param {string} color @param {boolean} fill @returns {Series} */
  const one = (run, at, label, color, fill) => {
    const esd = runEsd(run, layer(), at);
    return esd ? esdSeries(label, esd, color, fill) : { label, x: [1], y: [null], color };
  };
  const densities = runs.flatMap((run) => run.steps.map((_, at) => runEsd(run, layer(), at))).flatMap((esd) => (esd ? histogram(esd).density : [])).filter((value) => value !== null).map(Number);
  const ends = page.ends?.[layer()] || [0, 1];
  const chart = figure(`Spectrum of ${layerNames[layer()]}`, {
    name: `Density of the eigenvalues of ${layerNames[layer()]} at the step of the slider`, series: series(), height: 260,
    x: { label: LAMBDA, log: true, range: [10 ** ends[0], 10 ** ends[1]] },
    y: { label: "density", log: true, range: [densities.reduce((a, b) => Math.min(a, b), 1) / 1.3, densities.reduce((a, b) => Math.max(a, b), 1e-9) * 1.3] },
  });
  return { figure: chart.figure, start: () => {
    const update = chart.start();
    followers.push(() => chart.figure.isConnected && update(series()));
  } };
}

/** @param {{name: string, note: string, lines: Line[]}} curve */
function curveFigure({ name, note, lines }) {
  const series = lines.flatMap((line, i) => /** @type {Series[]} */ ([
    { label: lines.length > 1 ? line.label : "", x: line.x, y: line.middle, color: CATEGORIES[i % CATEGORIES.length] },
    ...(line.low.some((value) => value !== null) ? [{ label: "", x: line.x, y: line.low, color: "quiet", kind: "ends" }, { label: "", x: line.x, y: line.high, color: "quiet", kind: "ends" }] : []),
  ]));
  const bands = series.flatMap((one, i) => (one.kind === "ends" && series[i + 1]?.kind === "ends" && series[i - 1]?.kind !== "ends" ? [{ of: /** @type {[number, number]} */ ([i + 1, i]), color: series[i - 1].color }] : []));
  const chart = figure(note ? `${name} (${note})` : name, {
    name: `${name} over steps: ${lines.map((line) => `${line.label} ends at ${short(line.middle[line.middle.length - 1])}`).join("; ")}`,
    x: { label: "optimizer step", range: [allSteps[0], Math.max(allSteps[allSteps.length - 1], allSteps[0] + 1)] }, y: { label: "" }, series, bands, height: 180,
    marks: () => [{ at: moment.step }, ...runs.flatMap((run) => run.events.filter(([at]) => at >= 0)).slice(0, 30).map(([at]) => ({ at, color: "caution" }))],
    hover: (s, i) => `${series[s].label || name}, step ${series[s].x[i]}: ${short(series[s].y[i], 4)}`,
  });
  return { figure: chart.figure, start: () => {
    chart.start();
    const host = /** @type {HTMLElement} */ (chart.figure.querySelector(".chart"));
    followers.push(() => shownCharts.get(host)?.u.redraw(false));
  } };
}

/** A colour from dark violet to light yellow, equally far apart for every eye. @param {number} t from 0 to 1 */
function heat(t) {
  const i = Math.min(3, Math.floor(t * 4)), part = t * 4 - i;
  return `rgb(${HEAT[i].map((low, c) => Math.round(low + part * (HEAT[i + 1][c] - low))).join(" ")})`;
}
const HEAT = [[43, 20, 90], [126, 33, 131], [201, 68, 105], [243, 142, 76], [250, 225, 130]];

/** The heat map of a metric: a row a layer, a column a capture. */
function heatMap() {
  const canvas = el("canvas", { role: "img" }), scale = el("p", { class: "quiet" }), run = () => runs[moment.run];
  const grid = () => run().values[moment.metric] || [];
  const draw = () => {
    const known = grid().flat().filter((value) => value !== null && Number.isFinite(value)).map(Number).sort((a, b) => a - b);
    const low = known[Math.floor(known.length * 0.02)] ?? 0, high = known[Math.ceil(known.length * 0.98) - 1] ?? 1;
    const tall = Math.max(3, Math.min(16, Math.round(480 / layerNames.length))), wide = canvas.parentElement?.clientWidth || 600;
    Object.assign(canvas, { width: wide * devicePixelRatio, height: tall * layerNames.length * devicePixelRatio });
    canvas.style.height = `${tall * layerNames.length}px`;
    const ctx = canvas.getContext("2d"), across = canvas.width / grid().length, down = tall * devicePixelRatio;
    grid().forEach((values, step) => values.forEach((value, layer) => {
      if (value === null) return;
      const t = Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
      ctx.fillStyle = heat(t);
      ctx.fillRect(Math.floor(step * across), layer * down, Math.ceil(across), down - (tall > 6 ? 1 : 0));
    }));
    scale.textContent = `Dark is ${short(low)}, light is ${short(high)}. A row is a layer in the order of the model, a column a capture.`;
    canvas.setAttribute("aria-label", `${moment.metric} of ${layerNames.length} layers at ${grid().length} captures, from ${short(low)} to ${short(high)}`);
  };
  /** @param {MouseEvent} event @returns {[number, number]} */
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [Math.floor(((event.clientX - box.left) / box.width) * grid().length), Math.floor(((event.clientY - box.top) / box.height) * layerNames.length)];
  };
  canvas.addEventListener("mousemove", (/** @type {MouseEvent} */ event) => {
    const [step, layer] = at(event);
    showTip(`${layerNames[layer]}, step ${run().steps[step]}: ${moment.metric} ${short(grid()[step]?.[layer])}`, event.clientX, event.clientY);
  });
  canvas.addEventListener("mouseleave", hideTip);
  canvas.addEventListener("click", (/** @type {MouseEvent} */ event) => chooseLayer(at(event)[1]));
  return { figure: el("figure", {}, el("figcaption", {}, el("span", { class: "caption", text: "Layers over steps" })), el("div", {}, canvas), scale), start: draw };
}

let chooseLayer = (/** @type {number} */ layer) => void (moment.layer = layer);

/** What stands above the table of a page of runs. */
function runsOverview() {
  /** @param {string} label @param {string[]} texts @param {number} chosen @param {(i: number) => void} change */
  const choice = (label, texts, chosen, change) => {
    const select = el("select", { change: () => change(select.selectedIndex) }, ...texts.map((text, i) => el("option", { text, selected: i === chosen })));
    return el("label", {}, `${label} `, select);
  };
  const map = heatMap(), spectrum = el("div", { class: "figures" }), metrics = (page.metrics || []).filter(({ name }) => runs.some((run) => run.values[name]));
  const drawSpectrum = () => {
    const shown = stepSpectrum(() => moment.layer);
    spectrum.replaceChildren(shown.figure);
    shown.start();
    setStep(moment.step);
  };
  chooseLayer = (layer) => {
    moment.layer = layer;
    /** @type {HTMLSelectElement} */ (layers.querySelector("select")).selectedIndex = layer;
    drawSpectrum();
  };
  const layers = choice("layer", layerNames, 0, (i) => chooseLayer(i));
  const curves = (page.curves || []).map(curveFigure);
  const events = runs.flatMap((run) => run.events.map(([step, kind, text]) => el("li", { text: `${runs.length > 1 ? `${run.label}, ` : ""}${step >= 0 ? `step ${step}, ` : ""}${kind}: ${text}` })));
  const node = el("section", {}, playerOf(), movingCards(),
    el("div", { class: "tools" }, layers, metrics.length > 1 ? choice("heat map of", metrics.map(({ name }) => name), 0, (i) => ((moment.metric = metrics[i].name), map.start())) : null,
      runs.length > 1 ? choice("run", runs.map((run) => run.label), 0, (i) => ((moment.run = i), map.start())) : null),
    el("div", { class: "figures" }, spectrum, map.figure), el("h2", { text: "Over steps" }), el("div", { class: "figures" }, ...curves.map((one) => one.figure)),
    events.length ? el("details", { open: events.length < 6 }, el("summary", { text: counted(events.length, "event") }), el("ul", {}, ...events)) : null);
  return { node, start: () => (map.start(), curves.forEach((one) => one.start()), drawSpectrum(), addEventListener("resize", map.start)) };
}

/** The figures of an opened row: of a layer of one run, or of one of several runs. @param {number} row */
function runFigures(row) {
  if (page.kind === "runs") return [];
  const layer = layerNames.indexOf(page.texts.name[row]);
  const curves = (page.metrics || []).filter(({ name }) => runs[0].values[name]?.some((values) => values[layer] !== null)).slice(0, 3).map(({ name }) =>
    curveFigure({ name, note: "", lines: [{ label: name, x: runs[0].steps, middle: runs[0].values[name].map((values) => values[layer]), low: [], high: [] }] }));
  return [stepSpectrum(() => layer), ...curves];
}
