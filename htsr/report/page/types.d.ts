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
/** The power law of a tail of so many values; `line` is its density among all values, at its two ends. */
interface Law { alpha: number; D: number; xmin: number; tail: number; line: [number[], number[]] }
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
  scalars: Record<string, [number[], Numbers]>;
}
interface Page {
  kind: "analysis" | "comparison" | "history" | "runs"; title: string; lead: string; links?: [string, string][]; facts: string[];
  verdict: { text: string; kinds: string[] }[]; metric: string; columns: Column[]; texts: Record<string, string[]>;
  numbers: Record<string, Numbers>; sort?: string; pictures: (Picture | null)[]; places: Places; notes: string[]; tied: boolean[];
  findings: Finding[]; cards: number[]; depth?: Depth | null; explanations: Record<string, string>; skipped: string[][];
  directions: string[];
  foot: string[][]; runs?: Run[]; layers?: string[]; ends?: ([number, number] | null)[];
  metrics?: { name: string; meaning: string }[]; curves?: Curve[]; events?: [number, string][]; meaning?: string;
}
/** What the table shows: order, filter, groups, columns, the open row. */
interface View {
  sort: string; up: boolean; filter: string; kinds: string[]; group: string; columns: string[] | null; open: number | null;
  all: boolean;
}

/** What an element is made with; see `el`. */
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => any)>;
/** A chart: its series, in the units of the data; the script that draws it takes the logarithms. */
interface Series {
  label: string; x: Numbers; y: Numbers; color: string; fill?: boolean; width?: number; dash?: number[];
  /** Lines by default. */
  kind?: "steps" | "points";
  /** Where the band around the line begins and ends. */
  band?: [Numbers, Numbers];
}
interface Mark { at: number; label?: string; color?: string; across?: boolean }
interface Axis { label: string; log?: boolean; ticks?: (value: number) => string; range?: [number, number]; whole?: boolean }
/** What draws on the canvas besides; `at` says where a place of the data lies on it. */
type Brush = (draw: CanvasRenderingContext2D, at: (x: number, y: number) => [number, number]) => void;
interface Chart {
  name: string; x: Axis; y: Axis; series: Series[]; marks?: () => Mark[];
  under?: Brush; over?: Brush; hover?: (series: number, point: number) => Node | string | null;
  click?: (series: number, point: number) => void; height?: number; legend?: boolean;
}
/** A picture that is drawn once it stands in the page; `start` returns what draws other series into a chart. */
interface Figure { figure: HTMLElement; start: () => (series: Series[]) => void }
