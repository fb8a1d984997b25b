// Runs: a slider over the steps that moves spectra and cards, curves on one time axis, and a heat map of layers and steps.

const runs = page.runs || [], layerNames = page.layers || [], several = page.kind === "runs";
const allSteps = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
/** What the slider and the choices show. */
const moment = { step: allSteps[allSteps.length - 1], layer: 0, run: 0, metric: page.metrics?.[0]?.name || "" };
/** What follows the step, and how. @type {Map<Element, () => void>} */
const followers = new Map();

/** The last capture of a run that is not after the step. @param {Run} run */
const captureAt = (run) => Math.max(0, run.steps.findLastIndex((step) => step <= moment.step));

/** @param {Run} run @param {number} layer @param {number} capture @returns {Esd|null} */
function runEsd(run, layer, capture) {
  const packed = run.esds[capture]?.[layer], ends = page.ends?.[layer];
  return packed && ends ? { n: packed[0], counts: packed.slice(1), ends } : null;
}

/** Show a step everywhere. @param {number} step */
function setStep(step) {
  moment.step = step;
  for (const [node, follow] of followers) if (node.isConnected) follow();
}

/** The slider, its button and its number. */
function playerOf() {
  const last = allSteps.length - 1, number = el("output", { for: "step" });
  const slider = el("input", { type: "range", id: "step", min: 0, max: last, value: last, "aria-label": "step",
    input: () => setStep(allSteps[slider.value]) });
  let timer = 0;
  const play = button("Play", () => {
    clearInterval(timer);
    if (play.textContent === "Stop") return void (play.textContent = "Play");
    play.textContent = "Stop";
    let at = Number(slider.value) % last || 0;
    timer = window.setInterval(() => {
      slider.value = at;
      setStep(allSteps[at]);
      if (at++ >= last) play.click();
    }, Math.max(40, 3000 / allSteps.length));
  });
  followers.set(number, () => {
    number.textContent = `step ${moment.step}`;
    slider.setAttribute("aria-valuetext", number.textContent);
  });
  return el("div", { class: "player" }, play, slider, number);
}

/** Cards that follow the slider: of the runs, or of the layers that moved most. */
function movingCards() {
  return el("div", { class: "cards" }, ...page.cards.map((row) => {
    const run = several ? runs[row] : runs[0], title = several ? run.label : page.texts.name[row];
    const own = several ? -1 : layerNames.indexOf(title), picture = sparkline(`Spectrum of ${title}`);
    const value = el("span", { class: "value" });
    followers.set(value, () => {
      const at = captureAt(run), layer = several ? moment.layer : own, esd = runEsd(run, layer, at);
      if (esd) fillSparkline(picture, esd, run.values.xmin?.[at][layer]);
      const said = ["alpha", "stable_rank"].filter((name) => run.values[name]).map((name) => several
        ? `median ${name} ${short(median(run.values[name][at]))}` : `${name} ${short(run.values[name][at][layer])}`);
      for (const [name, [steps, values]] of several ? Object.entries(run.scalars).slice(0, 2) : []) {
        const i = steps.findLastIndex((step) => step <= moment.step);
        if (i >= 0) said.push(`${name} ${short(values[i], 4)}`);
      }
      value.textContent = said.join(" · ");
    });
    return cardOf(page.texts.name.indexOf(title), title, picture, value);
  }));
}

/** The spectra of a layer at the step: of runs with a card, or of one run with first and last. @param {number} layer */
function stepSpectrum(layer) {
  /** @param {Run} run @param {number} at @param {Partial<Series>} style @returns {Series} */
  const one = (run, at, style) => {
    const esd = runEsd(run, layer, at);
    return { label: run.label, color: "sky", ...style, ...(esd ? steps(esd) : { x: [1], y: [null] }) };
  };
  const [first] = runs, last = first.steps.length - 1, shown = several ? page.cards.map((row) => runs[row]) : runs;
  const series = () => several ? shown.map((run, i) => one(run, captureAt(run), look(i))) : [
    one(first, captureAt(first), { label: "at the slider", fill: true }), one(first, 0, { label: "first step", color: "quiet" }),
    one(first, last, { label: "last step", color: "vermilion" }),
  ];
  const every = shown.flatMap((run) => run.steps.flatMap((_, at) => one(run, at, {}).y)).flatMap((value) => value ?? []);
  const least = every.reduce((a, b) => Math.min(a, b), 1), most = every.reduce((a, b) => Math.max(a, b), least);
  const [low, high] = (page.ends?.[layer] || [0, 1]).map((end) => 10 ** end);
  const name = `Density of the eigenvalues of ${layerNames[layer]} at the step of the slider`;
  const chart = densities(`Spectrum of ${layerNames[layer]}`, name, series(), [low, high], {
    y: { label: "density", log: true, range: [least / 1.3, most * 1.3] }, hover: undefined,
  });
  return { figure: chart.figure, start: () => {
    const update = chart.start();
    followers.set(chart.figure, () => update(series()));
    return update;
  } };
}

/** A curve for each line over the steps, with bands, and marks at the step of the slider and at events. @param {Curve} curve */
function curveFigure({ name, note, lines }) {
  const series = lines.map(({ label, x, middle, low, high }, i) => /** @type {Series} */ (
    { label: lines.length > 1 ? label : "", x, y: middle, band: [low, high], ...look(i) }));
  const said = lines.map(({ label, middle }) => `${label} ends at ${short(middle[middle.length - 1])}`).join("; ");
  const events = (page.events || []).filter(([at]) => at >= 0).slice(0, 40).map(([at]) => ({ at, color: "caution" }));
  const chart = figure(note ? `${name} (${note})` : name, {
    name: `${name} over steps: ${said}`, y: { label: "" }, series, height: 180,
    x: { label: "optimizer step", range: [allSteps[0], Math.max(allSteps[allSteps.length - 1], allSteps[0] + 1)] },
    marks: () => [{ at: moment.step }, ...events],
    hover: (s, i) => `${series[s].label || name}, step ${series[s].x[i]}: ${short(series[s].y[i], 4)}`,
  });
  return { figure: chart.figure, start: () => {
    const update = chart.start(), host = /** @type {Element} */ (chart.figure.lastElementChild);
    followers.set(chart.figure, () => charts.get(host)?.u.redraw(false));
    return update;
  } };
}

/** A colour from dark violet over red to light yellow. @param {number} t from 0 to 1 */
const heat = (t) => `hsl(${280 + 130 * t} ${55 + 25 * t}% ${20 + 55 * t}%)`;

/** The heat map of a metric: a row a layer, a column a capture. */
function heatMap() {
  const canvas = el("canvas", { role: "img" }), scale = el("p", { class: "quiet" }), count = layerNames.length;
  const grid = () => runs[moment.run].values[moment.metric] || [];
  const draw = () => {
    const known = grid().flat().filter((value) => value !== null).map(Number).sort((a, b) => a - b);
    const low = known[Math.floor(known.length * 0.02)], high = known[Math.ceil(known.length * 0.98) - 1];
    const tall = Math.max(3, Math.min(16, Math.round(480 / count))), down = tall * devicePixelRatio;
    canvas.width = (canvas.parentElement?.clientWidth || 600) * devicePixelRatio;
    canvas.height = down * count;
    canvas.style.height = `${tall * count}px`;
    const ctx = canvas.getContext("2d"), across = canvas.width / grid().length;
    grid().forEach((values, at) => values.forEach((value, layer) => {
      if (value === null) return;
      ctx.fillStyle = heat(Math.max(0, Math.min(1, (value - low) / (high - low || 1))));
      ctx.fillRect(Math.floor(at * across), layer * down, Math.ceil(across), down - (tall > 6 ? 1 : 0));
    }));
    const { steps } = runs[moment.run];
    scale.textContent = `Dark is ${short(low)}, light is ${short(high)}. Down: ${layerNames[0]} to ${layerNames[count - 1]}. ` +
      `Across: captures from step ${steps[0]} to step ${steps[steps.length - 1]}. A click chooses a layer.`;
    canvas.setAttribute("aria-label", `${moment.metric} of ${counted(count, "layer")}. ${scale.textContent}`);
  };
  /** @param {MouseEvent} event */
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [Math.floor(((clientX - left) / width) * grid().length), Math.floor(((clientY - top) / height) * count)];
  };
  canvas.addEventListener("mousemove", (/** @type {MouseEvent} */ event) => {
    const [capture, layer] = at(event), step = runs[moment.run].steps[capture];
    const said = `${layerNames[layer]}, step ${step}: ${moment.metric} ${short(grid()[capture]?.[layer])}`;
    showTip(said, event.clientX, event.clientY);
  });
  canvas.addEventListener("mouseleave", hideTip);
  const caption = el("figcaption", {}, el("span", { class: "caption", text: "Layers over steps" }));
  return { canvas, at, figure: el("figure", {}, caption, el("div", {}, canvas), scale), start: draw };
}

/** What stands above the table of a page of runs. */
function runsOverview() {
  const map = heatMap(), place = el("div"), metrics = (page.metrics || []).map(({ name }) => name);
  const curves = (page.curves || []).map(curveFigure);
  const chooseLayer = (/** @type {number} */ layer) => {
    moment.layer = layers.querySelector("select").selectedIndex = layer;
    const shown = stepSpectrum(layer);
    place.replaceChildren(shown.figure);
    shown.start();
    setStep(moment.step);
  };
  const layers = choice("layer", layerNames, chooseLayer);
  map.canvas.addEventListener("click", (/** @type {MouseEvent} */ event) => chooseLayer(map.at(event)[1]));
  const events = (page.events || []).map(([step, text]) => el("li", { text: step >= 0 ? `step ${step}: ${text}` : text }));
  const redraw = (/** @type {Partial<typeof moment>} */ to) => (Object.assign(moment, to), map.start());
  const tools = el("div", { class: "tools" }, layers, choice("heat map of", metrics, (i) => redraw({ metric: metrics[i] })),
    choice("run", runs.map((run) => run.label), (run) => redraw({ run })));
  const node = el("section", {}, playerOf(), movingCards(), tools,
    el("div", { class: "figures" }, place, map.figure), el("h2", { text: "Over steps" }),
    el("div", { class: "figures" }, ...curves.map((one) => one.figure)),
    events.length ? el("details", { open: events.length < 6 }, el("summary", { text: counted(events.length, "event") }),
      el("ul", {}, ...events)) : null);
  return { node, resize: map.start, start: () => {
    map.start();
    curves.forEach((one) => one.start());
    chooseLayer(0);
  } };
}

/** The figures of an opened layer of one run: spectrum at the step, and metrics. @param {number} row @returns {Figure[]} */
function runFigures(row) {
  const layer = layerNames.indexOf(page.texts.name[row]), [{ steps: x, values }] = runs;
  if (several || layer < 0) return [];
  const metrics = (page.metrics || []).filter(({ name }) => values[name]?.some((of) => of[layer] !== null)).slice(0, 3);
  return [stepSpectrum(layer), ...metrics.map(({ name }) => {
    const line = { label: name, x, middle: values[name].map((of) => of[layer]), low: [], high: [] };
    return curveFigure({ name, note: "", lines: [line] });
  })];
}
