// Charts: uPlot with axes that may be logarithmic, bands, bars and marks, and values on hover.

/** The chart in an element, and what draws it anew. @type {WeakMap<Element, {u: any, draw: () => void}>} */
const charts = new WeakMap();

/** Draw all charts anew, in another theme or width. */
const redrawCharts = () => document.querySelectorAll(".chart").forEach((host) => charts.get(host)?.draw());

/** @param {number|null|undefined} value @param {boolean|undefined} log */
const scaled = (value = null, log) => (!log || value === null ? value : value > 0 ? Math.log10(value) : null);

/** Where ticks of a logarithmic axis may stand, between 1 and 10, from many to few; then only powers of ten. */
const TICKS = [100, 10, 5].map((parts) => Array.from({ length: 9 * parts }, (_, i) => 1 + i / parts));
TICKS.push([1, 1.5, 2, 3, 4, 5, 7], [1, 2, 5], [1, 3]);

/** Return where a logarithmic axis has ticks: as many of the usual places as there is room for, and two at least.
 * @param {number} low @param {number} high @param {number} room */
function logTicks(low, high, room) {
  const ticks = (/** @type {number[]} */ steps, /** @type {number} */ every) => {
    const found = [];
    for (let decade = Math.floor(low); decade <= high; decade++)
      if (decade % every === 0) found.push(...steps.map((step) => decade + Math.log10(step)));
    return found.filter((tick) => tick >= low && tick <= high);
  };
  const choices = [...TICKS.map((steps) => ticks(steps, 1)), ...[1, 2, 3, 5, 10, 20].map((every) => ticks([1], every))];
  const fits = (/** @type {number[]} */ found) => found.slice(1).every((tick, i) => (tick - found[i]) * room >= high - low);
  const [first, ...rest] = choices.find((found) => found.length > 1 && found.length < 60) || choices[0];
  return choices.find((found) => found.length > 1 && fits(found)) || [first, ...rest.slice(-1)];
}

/** @param {number} tick */
function logLabel(tick) {
  const value = 10 ** tick;
  return value >= 1e-3 && value < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(0).replace("e+", "e");
}

/** @param {Axis} axis @param {boolean} upright */
function uplotAxis(axis, upright) {
  const line = { stroke: () => css("line"), width: 1, size: 4 };
  /** @type {any} */
  const drawn = {
    label: axis.label, labelSize: axis.label ? 18 : 0, labelFont: css("font-small"), font: css("font-small"), labelGap: 0, gap: 3,
    size: upright ? 46 : 26, stroke: () => css("quiet"), space: upright ? 26 : 46, grid: line, ticks: line,
  };
  if (axis.whole) drawn.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500];
  if (axis.ticks) drawn.values = (/** @type {any} */ u, /** @type {number[]} */ ticks) => ticks.map((tick) => axis.ticks?.(tick));
  if (axis.log) {
    drawn.splits = (/** @type {any} */ u, /** @type {number} */ i, /** @type {number} */ low, /** @type {number} */ high) =>
      logTicks(low, high, upright ? u.height / 26 : u.width / 46);
    drawn.values = (/** @type {any} */ u, /** @type {number[]} */ ticks) => ticks.map(logLabel);
  }
  return drawn;
}

/** @param {any} series */
function uplotSeries({ label, color, kind, fill, width = 1.5, dash }) {
  const stroke = () => css(color), line = kind === undefined || kind === "steps";
  return {
    label, dash, stroke: line ? stroke : "transparent", width: line ? width : 0, fill: fill ? () => `${css(color)}44` : undefined,
    fillTo: (/** @type {any} */ u) => u.scales.y.min, // zero lies nowhere on a logarithmic axis
    paths: kind === "steps" ? uPlot.paths.stepped?.({ align: 1 }) : kind === "points" ? () => null : undefined,
    points: kind === "points" ? { show: true, size: 6, fill: stroke, stroke, width: 0 } : { show: false },
  };
}

/** Draw a chart into an element, and return a function that draws other series into it.
 * @param {HTMLElement} host @param {Chart} chart @returns {(series: Series[]) => void} */
function drawChart(host, chart) {
  const rangeOf = (/** @type {Axis} */ { range, log }) => /** @type {any} */ (range?.map((end) => scaled(end, log)));
  const banded = chart.series.filter(({ band }) => band), n = chart.series.length;
  const all = () => [...chart.series, ...chart.series.flatMap(({ x, band = [] }) => band.map((y) => ({ x, y, kind: "end" })))];
  const data = () => uPlot.join(all().map(({ x, y }) => {
    const pairs = x.map((value, i) => [scaled(value, chart.x.log), scaled(y[i], chart.y.log)]).filter(([at]) => at !== null);
    pairs.sort(([one], [other]) => Number(one) - Number(other));
    return /** @type {any} */ ([pairs.map(([at]) => at), pairs.map(([, value]) => value)]);
  }));
  /** @param {(Brush|undefined)[]} brushes */
  const hook = (...brushes) => [(/** @type {any} */ u) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const brush of brushes)
      brush?.(ctx, (x, y) => [u.valToPos(scaled(x, chart.x.log), "x", true), u.valToPos(scaled(y, chart.y.log), "y", true)]);
    ctx.restore();
  }];
  const draw = () => {
    charts.get(host)?.u.destroy();
    const u = new uPlot({
      width: Math.max(120, host.clientWidth || 320), height: chart.height ?? 200, padding: [8, 16, 0, 0],
      scales: { x: { time: false, range: rangeOf(chart.x) }, y: { range: rangeOf(chart.y) } }, // by default what is drawn
      axes: [uplotAxis(chart.x, false), uplotAxis(chart.y, true)],
      series: [{}, ...all().map(uplotSeries)],
      bands: banded.map(({ color }, i) => ({ series: [n + 2 * i + 2, n + 2 * i + 1], fill: () => `${css(color)}33` })),
      legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: !!chart.hover, size: 8 }, y: false },
      hooks: { drawAxes: hook(chart.under), draw: hook(chart.over, (ctx, at) => drawMarks(ctx, at, chart.marks?.() || [])) },
    }, data(), host);
    if (chart.hover) listen(u, chart);
    charts.set(host, { u, draw });
  };
  host.classList.add("chart");
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", chart.name);
  draw();
  return (series) => {
    chart.series = series;
    charts.get(host)?.u.setData(data());
  };
}

/** @param {CanvasRenderingContext2D} ctx @param {Parameters<Brush>[1]} at @param {Mark[]} marks */
function drawMarks(ctx, at, marks) {
  const { width, height } = ctx.canvas;
  ctx.font = css("font-small").replace(/\d+/, (size) => String(Number(size) * devicePixelRatio));
  ctx.setLineDash([4, 3]);
  ctx.lineWidth = devicePixelRatio;
  marks.forEach((mark, i) => {
    const [x, y] = at(mark.at, mark.at);
    ctx.strokeStyle = ctx.fillStyle = css(mark.color || "quiet");
    ctx.beginPath();
    ctx.moveTo(mark.across ? 0 : x, mark.across ? y : 0);
    ctx.lineTo(mark.across ? width : x, mark.across ? y : height);
    ctx.stroke();
    ctx.textAlign = x > width * 0.7 ? "right" : "left";
    ctx.fillText(mark.label || "", x + (x > width * 0.7 ? -4 : 4), (19 + 13 * i) * devicePixelRatio);
  });
}

/** Show values where the mouse is, and hand on clicks: the nearest point of any series. @param {any} u @param {Chart} chart */
function listen(u, chart) {
  /** @param {MouseEvent} event @returns {[number, number]|null} */
  const nearest = (event) => {
    const box = u.over.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    /** @type {[number, number]|null} */
    let found = null, best = 60; // pixels
    chart.series.forEach((series, s) => series.x.forEach((value, i) => {
      const right = scaled(value, chart.x.log), up = scaled(series.y[i], chart.y.log);
      if (right === null || up === null) return;
      const away = Math.hypot(u.valToPos(right, "x") - x, (u.valToPos(up, "y") - y) * (series.kind === "points" ? 1 : 0.3));
      if (away < best) (best = away), (found = [s, i]);
    }));
    return found;
  };
  u.over.addEventListener("mousemove", (/** @type {MouseEvent} */ event) => {
    const found = nearest(event), content = found && chart.hover?.(...found);
    if (content) showTip(content, event.clientX, event.clientY);
    else hideTip();
  });
  u.over.addEventListener("mouseleave", hideTip);
  u.over.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const found = nearest(event);
    if (found) chart.click?.(...found);
  });
}

/** Return a chart with its title and key. @param {string} title @param {Chart} chart @returns {Figure} */
function figure(title, chart) {
  const host = el("div"), key = chart.series.filter(({ label }) => chart.legend !== false && label);
  const caption = el("figcaption", {}, el("span", { class: "caption", text: title }),
    ...key.map(({ label, color, dash }) => el("span", { class: `key ${color}${dash ? " dashed" : ""}`, text: label })));
  return { figure: el("figure", {}, caption, host), start: () => drawChart(host, chart) };
}
