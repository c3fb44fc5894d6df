// Where a run stands at the step or level that is chosen, and how it is drawn.

const { known, percent } = kit.words;
const { COLUMNS, LEVELS, listed } = kit.names;
const { index, runs, state } = kit.state;

// Runs that may stand at side A or B: those of this study's task whose texts are kept.
const eligible = () =>
  Object.values(runs).filter((run) => run.kind === "unlearn" && !run.foreign && !run.scores_only);

// The place after which a run's P(forget) passes a level on its way down; -1 where it never does.
function passing(run, level) {
  const ps = run.metrics.forget_probability;
  const pairs = ps.map((p, i) => [p, ps[i + 1]]);
  return pairs.findIndex(([p, next]) => known(p) && known(next) && p >= level && level >= next);
}

// Where a run is shown: {place, reached, between}. By step it is the last that was evaluated by
// then. By level it is the checkpoint nearest to where its curve first passes the level; `between`
// says where that is, {place, share} of the way to the next, or null where it never passes.
function standOf(run, { match, step, level: number } = state) {
  if (run.kind !== "unlearn") return { place: 0, reached: true, between: null };
  if (match === "step") {
    const last = run.steps.findLastIndex((each) => each <= step);
    return { place: Math.max(0, last), reached: true, between: null };
  }
  const ps = run.metrics.forget_probability;
  const level = LEVELS[number];
  const place = passing(run, level);
  if (place >= 0) {
    const [p, next] = ps.slice(place);
    const share = p === next ? 0 : (p - level) / (p - next);
    return { place: place + Math.round(share), reached: true, between: { place, share } };
  }
  const gaps = ps.map((p) => (known(p) ? Math.abs(p - level) : Infinity));
  return { place: Math.max(0, gaps.indexOf(Math.min(...gaps))), reached: false, between: null };
}

// The runs that are compared, each once.
const compared = () =>
  [...new Set(COLUMNS.map((side) => state[side]))].map((id) => runs[id]).filter(Boolean);

// The levels, by their number, that both runs pass.
const levelsReached = () =>
  [...LEVELS.keys()].filter((n) => compared().every((run) => passing(run, LEVELS[n]) >= 0));

// The parts that are not shown: hidden by the address, or not in a page that has no server.
const hiddenParts = () => [...listed(state.hide), ...(index.absent ?? [])];

const rowsOf = (set) => index.rows[set] ?? 0;

// How many of the models that never saw the forget rows lie nearer to the retrained model, where
// that is known: what belongs beside a p.
function placeWords({ metrics }, place) {
  const share = metrics.forget_percentile[place];
  return known(share) ? `, percentile ${percent(share)}` : "";
}

const styleOf = (run) => run.look ?? index.styles[run.method];

kit.stands = {
  eligible,
  standOf,
  compared,
  levelsReached,
  hiddenParts,
  rowsOf,
  placeWords,
  styleOf,
};
