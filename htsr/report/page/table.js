// The table of layers: sorted, filtered, grouped, with the columns that the reader chooses and that fit.

/** How many rows are drawn at once; a button draws the rest. */
const ROWS_AT_ONCE = 300;

/** What the table shows. @type {{sort: string, up: boolean, filter: string, kinds: string[], group: string, columns: string[]|null,
 *   open: number|null, all: boolean}} */
const view = { sort: page.sort || "", up: !page.sort, filter: "", kinds: [], group: "", columns: null, open: null, all: false };

const tableHost = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of layers" });
const tableNote = el("p", { class: "quiet", role: "status" });
const chosenKinds = el("span");
const choosable = page.columns.filter((column) => column.name !== "name" && !column.long);

/** The rows that the filter keeps, in the order that was chosen. @returns {number[]} */
function shownRows() {
  let rows = [...page.places.order];
  if (view.kinds.length) rows = rows.filter((row) => findingsOf[row].some((finding) => view.kinds.includes(finding.kind)));
  try {
    rows = rows.filter(parseFilter(view.filter));
    tableNote.classList.remove("error");
    tableNote.textContent = rows.length === rowCount ? "" : `${rows.length} of ${counted(rowCount, "row")}`;
  } catch (error) {
    tableNote.classList.add("error");
    tableNote.textContent = `Filter: ${/** @type {Error} */ (error).message}. All rows are shown.`;
  }
  if (view.sort === "findings") {
    const rank = new Map();
    page.findings.forEach((finding, i) => rank.has(finding.row) || rank.set(finding.row, i));
    rows.sort((a, b) => (rank.get(a) ?? 1e9) - (rank.get(b) ?? 1e9));
  } else if (view.sort) {
    const values = page.numbers[view.sort] || page.texts[view.sort], sign = view.up ? 1 : -1;
    const missing = (/** @type {any} */ value) => value === null || value === "";
    rows.sort((a, b) => {
      const [one, other] = [values[a], values[b]];
      if (missing(one) || missing(other)) return Number(missing(one)) - Number(missing(other));
      return sign * (typeof one === "number" ? one - Number(other) : String(one).localeCompare(String(other), "en", { numeric: true }));
    });
  }
  return rows;
}

/** The columns that are shown: the reader's, or those at first as far as they fit. @returns {Column[]} */
function shownColumns() {
  if (view.columns) return choosable.filter((column) => view.columns?.includes(column.name));
  const wide = tableHost.clientWidth || innerWidth, names = page.texts.name.reduce((most, text) => Math.max(most, text.length), 10);
  const forName = Math.round(Math.max(Math.min(7.6 * names + 20, wide * 0.4), Math.min(210, wide * 0.5)));
  tableHost.style.setProperty("--name-width", `${forName}px`);
  let room = wide - forName;
  return choosable.filter((column) => {
    if (!column.shown) return false;
    const longest = page.texts[column.name].reduce((most, text) => Math.max(most, text.length), 0);
    room -= 7.6 * Math.max(longest, column.name.length, 3) + 18;
    return room > 0;
  });
}

/** The text of a group that a row belongs to. @param {number} row */
const groupOf = (row) =>
  view.group === "block" ? page.places.label[row] || "outside the blocks" : view.group === "role" ? page.places.role[row] : page.texts[view.group]?.[row] || "–";

/** Draw the table. */
function drawTable() {
  const rows = shownRows(), columns = shownColumns();
  /** @param {Column} column */
  const header = (column) => {
    const sorted = view.sort === column.name, arrow = sorted ? (view.up ? " ▲" : " ▼") : "";
    const sort = () => {
      view.up = sorted ? !view.up : !column.numeric || column.name !== page.metric;
      view.sort = column.name;
      drawTable();
      /** @type {HTMLElement|null} */ (tableHost.querySelector(`th[data-column="${CSS.escape(column.name)}"] button`))?.focus();
    };
    return el("th", { scope: "col", "data-column": column.name, class: column.numeric ? "number" : null, "aria-sort": sorted ? (view.up ? "ascending" : "descending") : null },
      term(column.name + arrow, meaningOf(column), { click: sort }));
  };
  const nameColumn = page.columns.find((column) => column.name === "name") || page.columns[0];
  const head = el("tr", {}, header(nameColumn), ...columns.map(header));
  const body = el("tbody");
  const groups = new Map();
  for (const row of rows) {
    const key = view.group ? groupOf(row) : "";
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  let left = view.all ? Infinity : ROWS_AT_ONCE;
  for (const [key, members] of groups) {
    if (left <= 0) break;
    if (view.group) body.append(el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: columns.length + 1, text: `${key} (${members.length})` })));
    for (const row of members.slice(0, left)) body.append(tableRow(row, columns), ...(view.open === row ? [panelRow(row, columns.length + 1)] : []));
    left -= members.length;
  }
  tableHost.replaceChildren(el("table", {}, el("caption", { text: tableCaption() }), el("thead", {}, head), body));
  if (left < 0) tableHost.append(el("button", { type: "button", text: `Show all ${counted(rows.length, "row")}`, click: () => ((view.all = true), drawTable()) }));
  chosenKinds.replaceChildren(...(view.kinds.length
    ? [el("button", { type: "button", class: "chip", text: `only ${view.kinds.join(", ")} ×`, click: () => ((view.kinds = []), drawTable()) })] : []));
  if (view.open !== null) startPanel();
}

const tableCaption = () =>
  `${page.kind === "runs" ? "Runs" : "Layers"}${view.sort ? `, sorted by ${view.sort === "findings" ? "findings, the worst first" : view.sort}` : page.kind === "runs" ? "" : ", in the order of the model"}. A click opens a row.`;

/** @param {number} row @param {Column[]} columns */
function tableRow(row, columns) {
  const note = page.notes[row];
  return el("tr", { class: severityOf(row) ? `is-${severityOf(row)}` : null, "data-row": row, click: (/** @type {Event} */ event) => (event.target instanceof HTMLAnchorElement ? null : openRow(view.open === row ? null : row)) },
    el("th", { scope: "row" },
      el("button", { type: "button", class: "name", "aria-expanded": String(view.open === row), text: page.texts.name[row] }),
      note ? el("span", { class: "note", text: note }) : null),
    ...columns.map((column) => el("td", { class: column.numeric ? "number" : null, text: page.texts[column.name][row] })));
}

/** Open a row, or close the one that is open. @param {number|null} row @param {boolean} [scroll] */
function openRow(row, scroll = false) {
  view.open = row;
  if (row !== null && !shownRows().includes(row)) (view.filter = ""), (view.kinds = []), (filterBox.value = "");
  if (row !== null && shownRows().indexOf(row) >= ROWS_AT_ONCE) view.all = true;
  history.replaceState(null, "", row === null ? location.href.replace(/#.*/, "#") : `#layer=${encodeURIComponent(page.texts.name[row])}`);
  drawTable();
  const shown = /** @type {HTMLElement|null} */ (tableHost.querySelector(`tr[data-row="${row}"] button.name`));
  shown?.focus({ preventScroll: true });
  if (scroll) shown?.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

const filterBox = el("input", {
  type: "search", id: "filter", placeholder: "*.q_proj alpha > 6", autocomplete: "off", spellcheck: "false",
  input: () => ((view.filter = filterBox.value), drawTable()),
});

/** The controls above the table. */
function tableTools() {
  const option = (/** @type {string} */ value, /** @type {string} */ text) => el("option", { value, text });
  const groupings = page.kind === "runs" ? choosable.filter((column) => column.shown && !column.numeric).map((column) => column.name) : ["block", "role", ...choosable.filter((column) => column.values.length && column.name !== "warning").map((column) => column.name)];
  const group = el("select", { id: "group", change: () => ((view.group = group.value), drawTable()) }, option("", "nothing"), ...groupings.map((name) => option(name, name)));
  const boxes = choosable.map((column) => el("label", {},
    el("input", { type: "checkbox", value: column.name, change: () => {
      view.columns = [...columnList.querySelectorAll("input:checked")].map((box) => /** @type {HTMLInputElement} */ (box).value);
      drawTable();
    } }), el("span", { text: column.name }), el("small", { text: column.meaning })));
  const columnList = el("div", { class: "columns" }, ...boxes);
  const columns = el("details", { toggle: () => {
    const shown = new Set(shownColumns().map((column) => column.name));
    if (!view.columns) columnList.querySelectorAll("input").forEach((/** @type {HTMLInputElement} */ box) => (box.checked = shown.has(box.value)));
  } }, el("summary", { text: "columns" }), columnList);
  const name = page.title.replace(/[^\w.-]+/g, "-");
  return el("div", { class: "tools" },
    el("label", { for: "filter", text: "filter" }), filterBox, chosenKinds,
    page.findings.length ? el("button", { type: "button", text: "worst first", click: () => ((view.sort = "findings"), drawTable()) }) : null,
    el("label", { for: "group", text: "group by" }), group, columns,
    el("button", { type: "button", text: "CSV", click: () => download(`${name}.csv`, "text/csv", asCsv()) }),
    el("button", { type: "button", text: "JSON", click: () => download(`${name}.json`, "application/json", asJson()) }));
}

/** What is shown, as CSV in full precision; no text can be taken for a formula. */
function asCsv() {
  const columns = ["name", ...shownColumns().map((column) => column.name)];
  const cell = (/** @type {string} */ name, /** @type {number} */ row) => {
    const value = page.numbers[name] ? page.numbers[name][row] ?? "" : page.texts[name][row];
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [columns.join(","), ...shownRows().map((row) => columns.map((name) => cell(name, row)).join(","))].join("\n") + "\n";
}

/** What is shown, as JSON in full precision. */
function asJson() {
  const columns = ["name", ...shownColumns().map((column) => column.name)];
  return JSON.stringify(shownRows().map((row) => Object.fromEntries(columns.map((name) => [name, (page.numbers[name] || page.texts[name])[row]]))), null, 1);
}
