// Charts: uPlot with axes that may be logarithmic, bands, bars and marks, and values on hover.

/**
 * @typedef {{label: string, x: (number|null)[], y: (number|null)[], color: string, kind?: "line"|"steps"|"points"|"ends",
 *   fill?: boolean, width?: number, dash?: number[]}} Series `ends` are drawn only as an end of a band.
 * @typedef {{at: number, label?: string, color?: string, across?: boolean}} Mark
 * @typedef {{label: string, log?: boolean, ticks?: (value: number) => string, range?: [number, number], size?: number,
 *   every?: number}} Axis
 * @typedef {{name: string, x: Axis, y: Axis, series: Series[], bands?: {of: [number, number], color: string}[],
 *   marks?: () => Mark[], under?: (u: any, draw: CanvasRenderingContext2D, at: (x: number, y: number) => [number, number]) => void,
 *   over?: (u: any, draw: CanvasRenderingContext2D, at: (x: number, y: number) => [number, number]) => void,
 *   hover?: (series: number, point: number) => Node|string|null, click?: (series: number, point: number) => void,
 *   height?: number, legend?: boolean}} Chart
 */

/** Charts that are shown, for a change of theme or width. @type {Map<HTMLElement, {u: any, draw: () => void}>} */
const shownCharts = new Map();

/** Draw all charts anew, and forget those that are gone. */
function redrawCharts() {
  for (const [host, { draw }] of shownCharts) {
    if (host.isConnected) draw();
    else shownCharts.delete(host);
  }
}

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const shown = shownCharts.get(/** @type {HTMLElement} */ (target));
    if (shown && contentRect.width > 0 && Math.abs(shown.u.width - contentRect.width) >= 1)
      shown.u.setSize({ width: contentRect.width, height: shown.u.height });
  }
});

/** @param {number|null|undefined} value @param {boolean|undefined} log */
const scaled = (value, log) =>
  value === null || value === undefined ? value : log ? (value > 0 ? Math.log10(value) : null) : value;

/**
 * Return where a logarithmic axis has ticks: as many of the usual places as there is room for.
 * @param {number} low @param {number} high @param {number} room
 */
function logTicks(low, high, room) {
  const ticks = (/** @type {number[]} */ steps, /** @type {number} */ every) => {
    const found = [];
    for (let decade = Math.floor(low); decade <= high; decade++)
      if (decade % every === 0) found.push(...steps.map((step) => decade + Math.log10(step)));
    return found.filter((tick) => tick >= low && tick <= high);
  };
  const choices = [ticks([1, 1.5, 2, 3, 4, 5, 7], 1), ticks([1, 2, 5], 1), ticks([1, 3], 1), ...[1, 2, 3, 5, 10, 20].map((every) => ticks([1], every))];
  return choices.find((found) => found.length <= room) || choices[choices.length - 1];
}

/** @param {number} tick */
function logLabel(tick) {
  const value = 10 ** tick;
  if (value >= 1e-3 && value < 1e5) return String(Number(value.toPrecision(2)));
  return value.toExponential(0).replace("e+", "e");
}

/** @param {Axis} axis @param {boolean} upright */
function uplotAxis(axis, upright) {
  return {
    label: axis.label, labelSize: axis.label ? 18 : 0, labelFont: css("font-small"), font: css("font-small"), labelGap: 0, gap: 3,
    size: axis.size ?? (upright ? 46 : 26), stroke: () => css("quiet"), space: upright ? 26 : 46,
    grid: { stroke: () => css("line"), width: 1 }, ticks: { stroke: () => css("line"), width: 1, size: 4 },
    ...(axis.every ? { incrs: [1, 2, 5, 10, 20, 50, 100].map((n) => n * (axis.every || 1)) } : {}),
    ...(axis.log
      ? {
          splits: (/** @type {any} */ u, /** @type {number} */ i, /** @type {number} */ low, /** @type {number} */ high) =>
            logTicks(low, high, (upright ? u.height : u.width) / (upright ? 40 : 62)),
          values: (/** @type {any} */ u, /** @type {number[]} */ ticks) => ticks.map(logLabel),
        }
      : axis.ticks ? { values: (/** @type {any} */ u, /** @type {number[]} */ ticks) => ticks.map((tick) => axis.ticks?.(tick)) } : {}),
  };
}

/**
 * Return the range of an axis: what is drawn, with a margin.
 * @param {Axis} axis @returns {(u: any, low: number|null, high: number|null) => [number, number]}
 */
const rangeOf = (axis) => (u, low, high) => {
  if (axis.range) return axis.log ? [Math.log10(axis.range[0]), Math.log10(axis.range[1])] : axis.range;
  if (low === null || high === null) return [0, 1];
  const margin = high > low ? (high - low) * 0.05 : Math.abs(low) * 0.1 || 1;
  return [low - margin, high + margin];
};

/** @param {Series} series */
function uplotSeries(series) {
  const stroke = () => css(series.color);
  const hidden = series.kind === "ends", points = series.kind === "points";
  return {
    label: series.label, stroke: points || hidden ? "transparent" : stroke, width: points || hidden ? 0 : series.width ?? 1.5,
    dash: series.dash, fill: series.fill ? () => `${css(series.color)}44` : undefined,
    fillTo: (/** @type {any} */ u) => u.scales.y.min, // zero lies nowhere on a logarithmic axis
    ...(series.kind === "steps" ? { paths: uPlot.paths.stepped?.({ align: 1 }) } : points ? { paths: () => null } : {}),
    points: points ? { show: true, size: 6, fill: stroke, stroke, width: 0 } : { show: false },
  };
}

/**
 * Draw a chart into an element, and return a function that draws other series into it.
 * @param {HTMLElement} host @param {Chart} chart @returns {(series: Series[]) => void}
 */
function drawChart(host, chart) {
  /** @param {Series[]} series */
  const data = (series) =>
    uPlot.join(
      series.map(({ x, y }) => {
        const pairs = /** @type {[number, number|null][]} */ (
          x.map((value, i) => [scaled(value, chart.x.log), scaled(y[i], chart.y.log)]).filter(([at]) => Number.isFinite(at))
        ).sort((one, other) => one[0] - other[0]);
        return [pairs.map(([at]) => at), pairs.map(([, value]) => value)];
      }),
    );
  /** @param {any} u @returns {(x: number, y: number) => [number, number]} */
  const place = (u) => (x, y) => [
    u.valToPos(/** @type {number} */ (scaled(x, chart.x.log)), "x", true), u.valToPos(/** @type {number} */ (scaled(y, chart.y.log)), "y", true),
  ];
  /** @param {"under"|"over"} when */
  const extra = (when) => (/** @type {any} */ u) => {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const draw = chart[when];
    if (draw) draw(u, ctx, place(u));
    if (when === "over") (chart.marks?.() || []).forEach((mark, i) => drawMark(u, ctx, place(u), mark, i));
    ctx.restore();
  };
  const draw = () => {
    shownCharts.get(host)?.u.destroy();
    host.replaceChildren();
    const u = new uPlot(
      {
        width: Math.max(120, host.clientWidth || 320), height: chart.height ?? 200, padding: [8, 8, 0, 0],
        scales: { x: { time: false, range: rangeOf(chart.x) }, y: { range: rangeOf(chart.y) } },
        axes: [uplotAxis(chart.x, false), uplotAxis(chart.y, true)],
        series: [{ label: chart.x.label }, ...chart.series.map(uplotSeries)],
        bands: (chart.bands || []).map(({ of, color }) => ({ series: [of[0] + 1, of[1] + 1], fill: () => `${css(color)}33` })),
        legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: !!chart.hover, size: 8 }, y: false },
        hooks: { drawAxes: [extra("under")], draw: [extra("over")] },
      },
      data(chart.series),
      host,
    );
    if (chart.hover) listen(u, chart);
    shownCharts.set(host, { u, draw });
  };
  host.classList.add("chart");
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", chart.name);
  draw();
  sizes.observe(host);
  return (series) => {
    chart.series = series;
    shownCharts.get(host)?.u.setData(data(series));
  };
}

/**
 * @param {any} u @param {CanvasRenderingContext2D} ctx @param {(x: number, y: number) => [number, number]} at
 * @param {Mark} mark @param {number} i
 */
function drawMark(u, ctx, at, mark, i) {
  const { bbox } = u, [x, y] = at(mark.at, mark.at);
  ctx.strokeStyle = ctx.fillStyle = css(mark.color || "quiet");
  ctx.setLineDash([4, 3]);
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  if (mark.across) ctx.moveTo(bbox.left, y), ctx.lineTo(bbox.left + bbox.width, y);
  else ctx.moveTo(x, bbox.top), ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  if (!mark.label) return;
  ctx.font = css("font-canvas").replace(/(\d+)px/, (_, size) => `${size * devicePixelRatio}px`);
  const right = x > bbox.left + bbox.width * 0.7;
  ctx.textAlign = right ? "right" : "left";
  ctx.fillText(mark.label, x + (right ? -4 : 4), bbox.top + (11 + 13 * i) * devicePixelRatio);
}

/**
 * Show values where the mouse is, and hand on clicks: the nearest point of any series.
 * @param {any} u @param {Chart} chart
 */
function listen(u, chart) {
  /** @param {MouseEvent} event @returns {[number, number]|null} */
  const nearest = (event) => {
    const box = u.over.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    /** @type {[number, number]|null} */
    let found = null;
    let best = Infinity;
    chart.series.forEach((series, s) => {
      if (series.kind === "ends") return;
      series.x.forEach((value, i) => {
        const at = scaled(value, chart.x.log), up = scaled(series.y[i], chart.y.log);
        if (at === null || at === undefined || up === null || up === undefined) return;
        const away = Math.hypot(u.valToPos(at, "x") - x, (u.valToPos(up, "y") - y) * (series.kind === "points" ? 1 : 0.3));
        if (away < best) (best = away), (found = [s, i]);
      });
    });
    return best < 60 ? found : null;
  };
  u.over.addEventListener("mousemove", (/** @type {MouseEvent} */ event) => {
    const found = nearest(event);
    const content = found && chart.hover?.(...found);
    if (content) showTip(content, event.clientX, event.clientY);
    else hideTip();
    u.over.style.cursor = found && chart.click ? "pointer" : "default";
  });
  u.over.addEventListener("mouseleave", hideTip);
  u.over.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const found = nearest(event);
    if (found) chart.click?.(...found);
  });
}

/**
 * Return a chart with its title and key.
 * @param {string} title @param {Chart} chart @returns {{figure: HTMLElement, start: () => (series: Series[]) => void}}
 */
function figure(title, chart) {
  const host = el("div");
  const key = chart.legend === false ? [] : chart.series.filter((series) => series.kind !== "ends" && series.label);
  const caption = el("figcaption", {}, el("span", { class: "caption", text: title }));
  for (const series of key) caption.append(el("span", { class: `key ${series.color}`, text: series.label }));
  return { figure: el("figure", {}, caption, host), start: () => drawChart(host, chart) };
}
