// The table of layers: sorted, filtered, grouped, with the columns that the reader chooses and that fit.

/** How many rows are drawn at once; a button draws the rest. */
const ROWS_AT_ONCE = 300;

/** What the table shows. @type {View} */
const view = { sort: page.sort || "", up: !page.sort, filter: "", kinds: [], group: "", columns: null, open: null, all: false };

const rowWord = page.kind === "runs" ? "Runs" : "Layers";
const tableHost = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table of ${rowWord}` });
const tableNote = el("p", { class: "quiet", role: "status" });
const chosenKinds = el("span");
const choosable = page.columns.filter((column) => column.name !== "name" && !column.long);

/** The rows that the filter keeps, in the order that was chosen. @returns {number[]} */
function shownRows() {
  const chosen = (/** @type {Finding} */ { kind }) => view.kinds.includes(kind);
  let rows = page.places.order.filter((row) => !view.kinds.length || findingsOf[row].some(chosen));
  tableNote.classList.remove("error");
  try {
    rows = rows.filter(parseFilter(view.filter));
    tableNote.textContent = rows.length === findingsOf.length ? "" : `${rows.length} of ${counted(findingsOf.length, "row")}`;
  } catch (error) {
    tableNote.classList.add("error");
    tableNote.textContent = `Filter: ${/** @type {Error} */ (error).message}. All rows are shown.`;
  }
  if (!view.sort) return rows;
  const rank = new Map([...page.findings.entries()].reverse().map(([i, { row }]) => [row, i]));
  const order = new Intl.Collator("en", { numeric: true }).compare, sign = view.up ? 1 : -1;
  /** @type {any} */
  const values = view.sort === "findings" ? findingsOf.map((_, row) => rank.get(row) ?? "") : valuesOf(view.sort);
  return rows.sort((a, b) => {
    const one = values[a] ?? "", other = values[b] ?? "";
    if (one === "" || other === "") return Number(one === "") - Number(other === "");
    return sign * (typeof one === "number" ? one - other : order(one, other));
  });
}

/** @param {string} name */
const valuesOf = (name) => page.numbers[name] || page.texts[name];

/** The columns that are shown: the reader's, or those at first as far as they fit. @returns {Column[]} */
function shownColumns() {
  if (view.columns) return choosable.filter((column) => view.columns?.includes(column.name));
  const wide = tableHost.clientWidth || innerWidth;
  const widest = (/** @type {string} */ name) => page.texts[name].reduce((most, text) => Math.max(most, text.length), 3);
  const forName = Math.round(Math.max(Math.min(8 * widest("name") + 20, wide * 0.4), Math.min(210, wide * 0.5)));
  tableHost.style.setProperty("--name-width", `${forName}px`);
  let room = wide - forName;
  return choosable.filter(({ name, shown }) => shown && (room -= Math.max(7.6 * widest(name), 8.4 * name.length) + 16) > 0);
}

/** The texts by which rows can be grouped. @type {Record<string, string[]>} */
const groupTexts = { block: page.places.label, role: page.places.role, ...page.texts };

/** Draw the table. */
function drawTable() {
  const rows = shownRows(), columns = shownColumns(), body = el("tbody");
  const nameColumn = page.columns.find((column) => column.name === "name") || page.columns[0];
  const groups = view.group ? grouped(rows, (row) => groupTexts[view.group][row] || `no ${view.group}`) : new Map([["", rows]]);
  let left = view.all ? Infinity : ROWS_AT_ONCE;
  for (const [key, members] of groups) {
    const text = `${key} (${members.length})`;
    if (view.group && left > 0)
      body.append(el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: columns.length + 1, text })));
    body.append(...members.slice(0, Math.max(0, left)).map((row) => tableRow(row, columns)));
    left -= members.length;
  }
  const head = el("thead", {}, el("tr", {}, ...[nameColumn, ...columns].map(headerCell)));
  tableHost.replaceChildren(el("table", {}, el("caption", { text: tableCaption() }), head, body));
  if (left < 0) tableHost.append(button(`Show all ${counted(rows.length, "row")}`, () => change({ all: true })));
  const only = view.kinds.join(", ");
  chosenKinds.replaceChildren(...(only ? [button(`only ${only} ×`, () => change({ kinds: [] }), "chip")] : []));
  showPanel();
}

/** Show the panel of the open row below it, and no other. */
function showPanel() {
  tableHost.querySelector("tr.panel")?.remove();
  tableHost.querySelector("[aria-expanded=true]")?.setAttribute("aria-expanded", "false");
  const row = tableHost.querySelector(`tr[data-row="${view.open}"]`);
  if (view.open === null || !row) return;
  row.querySelector("button").setAttribute("aria-expanded", "true");
  const panel = panelOf(view.open, row.cells.length);
  row.after(panel.node);
  panel.start();
}

/** Show something else in the table. @param {Partial<View>} to */
function change(to) {
  Object.assign(view, to);
  drawTable();
}

/** @param {string} text @param {() => void} click @param {string} [name] of its class */
const button = (text, click, name) => el("button", { type: "button", text, click, class: name });

const tableCaption = () => `${rowWord}${view.sort ? `, sorted by ${view.sort}` : ""}. A click opens a row.`;

/** @param {Column} column */
function headerCell(column) {
  const { name, numeric } = column, sorted = view.sort === name, order = view.up ? "ascending" : "descending";
  const click = () => {
    change({ up: sorted ? !view.up : !numeric || name !== page.metric, sort: name });
    tableHost.querySelector(`th[data-column="${CSS.escape(name)}"] button`)?.focus();
  };
  return el("th", { scope: "col", "data-column": name, class: numeric ? "number" : null, "aria-sort": sorted ? order : null },
    term(name + (sorted ? (view.up ? " ▲" : " ▼") : ""), meaningOf(column), { click }));
}

/** @param {number} row @param {Column[]} columns */
function tableRow(row, columns) {
  const note = page.notes[row], severity = severityOf(row), click = () => openRow(view.open === row ? null : row);
  return el("tr", { class: severity && `is-${severity}`, "data-row": row, click },
    el("th", { scope: "row" },
      el("button", { type: "button", class: "name", "aria-expanded": "false", text: page.texts.name[row] }),
      note ? el("span", { class: "note", text: note }) : null),
    ...columns.map(({ name, numeric }) => el("td", { class: numeric ? "number" : null, text: page.texts[name][row] })));
}

/** Open a row, or close the one that is open. @param {number|null} row @param {boolean} [scroll] */
function openRow(row, scroll = false) {
  const place = `tr[data-row="${row ?? view.open}"] button.name`;
  view.open = row;
  if (!framed) history.replaceState(null, "", addressOf(row));
  if (tableHost.querySelector(place)) showPanel();
  else change({ filter: (filterBox.value = ""), kinds: [], all: true });
  const shown = tableHost.querySelector(place);
  shown?.focus({ preventScroll: true });
  if (!scroll) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  shown?.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

const filterBox = el("input", {
  type: "search", id: "filter", placeholder: "*.q_proj alpha > 6", autocomplete: "off", spellcheck: "false",
  input: () => change({ filter: filterBox.value }),
});

/** A choice among texts, hidden without one. @param {string} label @param {string[]} texts @param {(i: number) => void} to */
const choice = (label, texts, to) => el("label", { hidden: texts.length < 2 }, `${label} `,
  el("select", { change: (event) => to(event.target.selectedIndex) }, ...texts.map((text) => el("option", { text }))));

/** The controls above the table. */
function tableTools() {
  const few = choosable.filter(({ numeric, values }) => (page.kind === "runs" ? !numeric : values.length));
  const groupings = [...(page.kind === "runs" ? [] : ["block", "role"]), ...few.map(({ name }) => name)];
  const list = el("div", { class: "columns" });
  const choose = () => change({ columns: [...list.querySelectorAll("input:checked")].map((box) => box.value) });
  const offer = () => list.replaceChildren(...choosable.map(({ name, meaning }) => el("label", {},
    el("input", { type: "checkbox", value: name, checked: shownNames().includes(name), change: choose }),
    el("span", { text: name }), el("small", { text: meaning }))));
  const file = page.title.replace(/[^\w.-]+/g, "-");
  return el("div", { class: "tools" },
    el("label", { for: "filter", text: "filter" }), filterBox, chosenKinds,
    page.findings.length ? button("worst first", () => change({ sort: "findings", up: true })) : null,
    choice("group by", ["nothing", ...groupings], (i) => change({ group: groupings[i - 1] || "" })),
    el("details", { toggle: offer }, el("summary", { text: "columns" }), list),
    button("CSV", () => download(`${file}.csv`, "text/csv", asCsv())),
    button("JSON", () => download(`${file}.json`, "application/json", JSON.stringify(records(), null, 1))));
}

const shownNames = () => ["name", ...shownColumns().map((column) => column.name)];

/** What is shown, in full precision: a record for each row. */
const records = () => shownRows().map((row) => Object.fromEntries(shownNames().map((name) => [name, valuesOf(name)[row]])));

/** What is shown, in full precision, as CSV; no text can be taken for a formula. */
function asCsv() {
  const cell = (/** @type {string|number|null} */ value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [shownNames(), ...records().map(Object.values)].map((row) => `${row.map(cell).join(",")}\n`).join("");
}
