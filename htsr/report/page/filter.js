// The filter of the table: globs of names, then a condition as in `htsr audit --fail-on`.

/** What a part of a condition is in a row; null is unknown, as a missing value makes it. @typedef {(row: number) => any} Value */

const TOKENS =
  /\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?(?![\w.])|[A-Za-z_]\w*|[<>=!]=|[<>()[\],])/iy;

/** @type {Object<string, (a: any, b: any) => boolean>} */
const COMPARE = {
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "==": (a, b) => a === b,
  "!=": (a, b) => a !== b, in: (a, b) => b.includes(a), "not in": (a, b) => !b.includes(a),
};

/** Return the middle of numbers, null without any. @param {Numbers} values */
function median(values) {
  const known = values.filter((value) => value !== null).map(Number).sort((a, b) => a - b), half = known.length >> 1;
  return known.length ? (known[half] + known[known.length - 1 - half]) / 2 : null;
}

/** Numbers of the whole model. @type {Object<string, (values: number[]) => number|null>} */
const AGGREGATES = {
  min: (values) => values.reduce((a, b) => Math.min(a, b)), max: (values) => values.reduce((a, b) => Math.max(a, b)),
  mean: (values) => values.reduce((a, b) => a + b) / values.length, median,
};

/** @param {string} text @returns {string[]} */
function tokens(text) {
  const found = [];
  TOKENS.lastIndex = 0;
  while (TOKENS.lastIndex < text.trimEnd().length) {
    const at = TOKENS.lastIndex, match = TOKENS.exec(text);
    if (!match) throw new Error(`the condition cannot be read from “${text.slice(at).trim()}” on`);
    found.push(match[1]);
  }
  return found;
}

/** Return which rows a filter keeps. @param {string} text @returns {(row: number) => boolean} */
function parseFilter(text) {
  const columns = new Map(page.columns.map((column) => [column.name, column]));
  const known = [...columns.keys(), ...Object.keys(AGGREGATES)].filter((name) => /^\w+$/.test(name)).join("|");
  const start = new RegExp(`(?<!\\S)(not |[('"]|-?[\\d.]+ *[<>=!]|(${known})\\b)`).exec(text);
  const names = text.slice(0, start ? start.index : undefined), at = /[<>=]/.test(names) ? 0 : names.length;
  const condition = at < text.length ? parseCondition(tokens(text.slice(at)), columns) : () => true;
  const patterns = (text.slice(0, at).match(/\S+/g) || []).map((name) => {
    const escaped = name.replace(/[.+^${}()|\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".").replace(/\[!/g, "[^");
    return new RegExp(/[*?[]/.test(name) ? `^${escaped}$` : escaped, "i");
  });
  return (row) => (!patterns.length || patterns.some((pattern) => pattern.test(page.texts.name[row]))) && condition(row) === true;
}

/** @param {string[]} rest @param {Map<string, Column>} columns @returns {Value} */
function parseCondition(rest, columns) {
  const take = (/** @type {string} */ token) => rest[0] === token && (rest.shift(), true);
  const need = (/** @type {string} */ token) => {
    if (!take(token)) throw new Error(`expected “${token}”${rest.length ? `, got “${rest[0]}”` : " at the end"}`);
  };
  /** Join truths: the one that decides, else unknown if one is. @param {any[]} truths @param {boolean} decides */
  const joined = (truths, decides) => (truths.includes(decides) ? decides : truths.includes(null) ? null : !decides);
  /** @param {string} word @param {() => Value} next @param {boolean} decides @returns {Value} */
  const chain = (word, next, decides) => {
    const parts = [next()];
    while (take(word)) parts.push(next());
    return (row) => joined(parts.map((part) => part(row)), decides);
  };
  /** @returns {{get: Value, text: boolean}} */
  const value = () => {
    const token = rest.shift();
    if (token === undefined) throw new Error("the condition is not complete");
    if (/^[-\d.]/.test(token)) return { get: () => Number(token), text: false };
    if (/^['"]/.test(token)) return { get: () => token.slice(1, -1).replace(/\\(.)/g, "$1"), text: true };
    const of = token in AGGREGATES && take("(") ? rest.shift() || "" : token, column = columns.get(of);
    if (!column) throw new Error(`there is no column “${of}” here: ${[...columns.keys()].slice(0, 6).join(", ")}, …`);
    if (of !== token) {
      need(")");
      const known = page.numbers[of].filter((one, row) => one !== null && !page.tied[row]).map(Number);
      const whole = known.length ? AGGREGATES[token](known) : null;
      return { get: () => whole, text: false };
    }
    if (column.numeric) return { get: (row) => page.numbers[of][row], text: false };
    const empty = !column.values.length || column.values.includes("");
    return { get: (row) => page.texts[of][row] || (empty ? "" : null), text: true };
  };
  /** @param {boolean} text @returns {Value} */
  const list = (text) => {
    const close = take("(") ? ")" : (need("["), "]"), members = [value()];
    while (take(",") && rest[0] !== close) members.push(value());
    need(close);
    if (members.some((member) => member.text !== text)) throw new Error("a number cannot be compared with a text");
    return (row) => members.map(({ get }) => get(row));
  };
  /** @returns {Value} */
  const comparison = () => {
    if (take("not")) {
      const of = comparison();
      return (row) => (of(row) === null ? null : !of(row));
    }
    if (take("(")) {
      const of = any();
      need(")");
      return of;
    }
    let left = value();
    const links = /** @type {Value[]} */ ([]);
    while (rest[0] in COMPARE || (rest[0] === "not" && rest[1] === "in")) {
      const word = rest.shift(), sign = word === "not" ? `not ${rest.shift()}` : String(word), { get: one, text } = left;
      const right = sign.endsWith("in") ? { get: list(text), text } : value();
      if (right.text !== text) throw new Error("a number cannot be compared with a text");
      links.push((row) => (one(row) === null || right.get(row) === null ? null : COMPARE[sign](one(row), right.get(row))));
      left = right;
    }
    if (!links.length) throw new Error(`expected a comparison such as alpha > 6${rest.length ? ` before “${rest[0]}”` : ""}`);
    return (row) => joined(links.map((link) => link(row)), false);
  };
  const any = () => chain("or", () => chain("and", comparison, false), true);
  const condition = any();
  if (rest.length) throw new Error(`expected and, or, or the end, got “${rest[0]}”`);
  return condition;
}
