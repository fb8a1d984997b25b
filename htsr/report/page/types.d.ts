// What the data of a page hold: the contract between htsr/report/page/*.py, which write them, and the scripts, which read them.

/** What a person knows of a column. `values` lists the texts of a column that has few. */
interface Column {
  name: string; meaning: string; unit: string; numeric: boolean; long: boolean; shown: boolean; values: string[]; explain: string;
}
interface Finding { row: number; kind: string; severity: string; text: string }
/** Where each row stands in the model; `order` lists the rows along it. */
interface Places { block: number[]; label: string[]; role: string[]; order: number[] }
/** A histogram of `n` positive eigenvalues: its ends in log10, and the counts of bins of one width. */
interface Esd { ends: number[]; counts: number[]; n: number }
/** The power law of a tail that holds a share of all values. */
interface Law { alpha: number; xmin: number; xmax: number; share: number; tail: number }
/** The numbers behind the pictures of a layer: of an analysis, or, by side (a, b, delta), of a comparison. */
type Picture = Record<string, any>;
type Numbers = (number | null)[];
interface Panel { role: string; inside: boolean; rows: number[]; x: number[]; low: Numbers; high: Numbers; noise: Numbers[] }
interface Depth { log: boolean; range: [number, number]; blocks: number; panels: Panel[] }
interface Line { label: string; x: number[]; middle: Numbers; low: Numbers; high: Numbers }
interface Curve { name: string; note: string; lines: Line[] }
/** One run: `values[metric][capture][layer]`; `esds[capture][layer]` is the number of values, then the count in each bin. */
interface Run {
  label: string; steps: number[]; esds: (number[] | null)[][]; values: Record<string, Numbers[]>;
  scalars: Record<string, [number[], Numbers]>; events: [number, string, string][];
}
interface Page {
  kind: "analysis" | "comparison" | "history" | "runs"; title: string; lead: string; facts: string[];
  verdict: { text: string; kinds: string[] }[]; metric: string; columns: Column[]; texts: Record<string, string[]>;
  numbers: Record<string, Numbers>; sort?: string; pictures: (Picture | null)[]; places: Places; notes: string[]; tied: boolean[];
  findings: Finding[]; cards: number[]; depth?: Depth | null; explanations: Record<string, string>; skipped: string[][];
  foot: string[][]; runs?: Run[]; layers?: string[]; ends?: ([number, number] | null)[];
  metrics?: { name: string; meaning: string }[]; curves?: Curve[];
}
