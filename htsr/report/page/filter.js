// The filter of the table: globs of names, then a condition as in `htsr audit --fail-on`.

/** The value of an expression in a row: null is unknown, as a missing value makes it. @typedef {(row: number) => any} Value */

const TOKENS = /\s*(?:('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?![\w.])|([A-Za-z_]\w*)|(<=|>=|==|!=|[<>()[\],-]))/iy;

/** @type {Object<string, (a: any, b: any) => boolean>} */
const COMPARE = {
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "==": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};

/** @param {string} text @returns {string[]} */
function tokens(text) {
  const found = [];
  TOKENS.lastIndex = 0;
  while (TOKENS.lastIndex < text.trimEnd().length) {
    const at = TOKENS.lastIndex, match = TOKENS.exec(text);
    if (!match) throw new Error(`the condition cannot be read from “${text.slice(at).trim()}” on`);
    found.push(match[0].trim());
  }
  return found;
}

/**
 * Return which rows a filter keeps.
 * @param {string} text @returns {(row: number) => boolean}
 */
function parseFilter(text) {
  const columns = new Map(page.columns.map((column) => [column.name, column]));
  const words = text.trim().split(/\s+/).filter(Boolean), names = [];
  const starts = (/** @type {string} */ word) => /^[('"\d-]/.test(word) || columns.has(word.split(/[<>=!]/)[0]) || word === "not";
  while (words.length && !starts(words[0])) names.push(words[0]), words.shift();
  const condition = words.length ? parseCondition(tokens(words.join(" ")), columns) : () => true;
  const patterns = names.map((name) => {
    const escaped = name.replace(/[.+^${}()|\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".");
    return new RegExp(/[*?[]/.test(name) ? `^${escaped}$` : escaped, "i");
  });
  return (row) => (!patterns.length || patterns.some((pattern) => pattern.test(page.texts.name[row]))) && condition(row) === true;
}

/** @param {string[]} rest @param {Map<string, Column>} columns @returns {Value} */
function parseCondition(rest, columns) {
  const take = (/** @type {string} */ token) => rest[0] === token && (rest.shift(), true);
  /** @param {string} token */
  const need = (token) => {
    if (!take(token)) throw new Error(rest.length ? `expected “${token}”, got “${rest[0]}”` : `expected “${token}” at the end`);
  };
  /** Join by and/or with unknown values, as SQL does. @param {string} word @param {() => Value} next @param {boolean} decides */
  const joined = (word, next, decides) => {
    const parts = [next()];
    while (take(word)) parts.push(next());
    return parts.length === 1 ? parts[0] : (/** @type {number} */ row) => {
      const values = parts.map((part) => part(row));
      return values.includes(decides) ? decides : values.includes(null) ? null : !decides;
    };
  };
  /** @returns {Value} */
  const value = () => {
    const token = rest.shift();
    if (token === undefined) throw new Error("the condition is not complete");
    if (token === "-") {
      const of = value();
      return (row) => -of(row);
    }
    if (/^[\d.]/.test(token)) return () => Number(token);
    if (/^['"]/.test(token)) return () => token.slice(1, -1);
    const column = columns.get(token);
    if (!column) throw new Error(`there is no column “${token}” here: ${[...columns.keys()].slice(0, 6).join(", ")}, …`);
    return (row) => {
      if (column.numeric) return page.numbers[token][row];
      const found = page.texts[token][row];
      return found === "" && !column.values.includes("") ? null : found;
    };
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
    const values = [value()], signs = /** @type {string[]} */ ([]);
    const negated = rest[0] === "not" && rest[1] === "in" && !!rest.shift();
    if (take("in")) {
      const close = take("(") ? ")" : (need("["), "]"), list = [value()];
      while (take(",")) list.push(value());
      need(close);
      return (row) => (values[0](row) === null ? null : list.some((one) => one(row) === values[0](row)) !== negated);
    }
    while (rest[0] in COMPARE) signs.push(/** @type {string} */ (rest.shift())), values.push(value());
    if (!signs.length) throw new Error(`expected a comparison such as alpha > 6${rest.length ? ` before “${rest[0]}”` : ""}`);
    return (row) => {
      const found = values.map((one) => one(row));
      return found.includes(null) ? null : signs.every((sign, i) => COMPARE[sign](found[i], found[i + 1]));
    };
  };
  const all = () => joined("and", comparison, false);
  const any = () => joined("or", all, true);
  const condition = any();
  if (rest.length) throw new Error(`expected and, or, or the end, got “${rest[0]}”`);
  return condition;
}
