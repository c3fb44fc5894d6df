// The study of several splits: fetched once, and read where the controls say.

const { server } = kit.gradio;
const { known, percent, shown } = kit.words;
const { index, state } = kit.state;
const { fetchOnce } = kit.answers;

const KEY = "splits";
const fetched = new Map();

const fetchSplits = () => fetchOnce(fetched, KEY, () => server.splits({}));

// What the server said, {} where it has no such study; null while it is not there.
const splitsThere = () => fetched.get(KEY)?.ready ?? null;

// What can be read of a run: `read` where it is read, `write` in words.
const MEASURES = {
  kept: { read: (run, cut) => run.kept[cut], write: percent },
  p: { read: (run, cut) => run.p[cut], write: (p) => shown(p) },
  percentile: { read: (run, cut) => run.percentile[cut], write: percent },
  d: { read: (run, cut) => run.d[cut], write: (d) => shown(d, 3) },
  step: { read: (run, cut) => run.step[cut], write: String },
  forget: { read: (run, cut) => run.forget[cut], write: (p) => shown(p) },
};

// A run's value where it is read; null where it has none there.
const valueOf = (run, measure, cut = state.cut) => MEASURES[measure].read(run, cut) ?? null;

const written = (value, measure) => (known(value) ? MEASURES[measure].write(value) : "–");

// {low, middle, high} of a cell's runs that have a value there, or null.
function spreadOf({ runs }, measure, cut) {
  const values = runs.map((run) => valueOf(run, measure, cut)).filter(known);
  if (!values.length) return null;
  values.sort((a, b) => a - b);
  const half = (values.length - 1) / 2;
  const middle = (values[Math.floor(half)] + values[Math.ceil(half)]) / 2;
  return { low: values[0], middle, high: values.at(-1) };
}

const percentsOf = ({ nulls }) => Object.keys(nulls).map(Number);

// The methods of a reading, as a rule the one that is chosen: {method, look, cells}, a cell
// {method, percent, runs} for each percentage.
function methodsOf(splits, reading = state.reading) {
  const read = splits.runs.filter(({ variant }) => variant === reading);
  const cellAt = (method, each) => ({
    method,
    percent: each,
    runs: read.filter((run) => run.method === method && run.percent === each),
  });
  return [...new Set(read.map((run) => run.method))].map((method) => ({
    method,
    look: index.styles[method],
    cells: percentsOf(splits).map((each) => cellAt(method, each)),
  }));
}

// The least and the greatest in words, "98 to 101 %", or "" where there is none.
function rangeWords(cell, measure, cut) {
  const spread = spreadOf(cell, measure, cut);
  if (!spread) return "";
  const [low, high] = [spread.low, spread.high].map((value) => written(value, measure));
  return low === high ? low : `${low.replace(/\s%/, "")} to ${high}`;
}

kit.splits = {
  fetchSplits,
  splitsThere,
  valueOf,
  written,
  spreadOf,
  percentsOf,
  methodsOf,
  rangeWords,
};
