// One state, the whole of it in the address; everything is drawn from it.

const VIEWS = { compare: "Compare", tradeoff: "Trade-off", live: "Live lab", theory: "Theory", about: "About this run" };
const SETS = { forget: "forget", retain: "retain", real_authors: "real authors", world_facts: "world facts" };
const RETRAINED = "Retrained without the forget rows";
const LEVELS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01];

const oneOf = (...names) => ({ usual: names[0], read: (text) => (names.includes(text) ? text : undefined) });
const real = (usual, least, most, fits = () => true) => ({
  usual, read: (text) => {
    const value = Number(text);
    return text !== "" && fits(value) && value >= least && value <= most ? value : undefined;
  },
});
const whole = (usual, least, most) => real(usual, least, most, Number.isInteger);
const words = (usual = "") => ({ usual, read: (text) => text.slice(0, 300) });

const PROPS = {
  view: oneOf(...Object.keys(VIEWS)), study: whole(0, 0, 999), lesson: whole(0, 0, 5),
  q: whole(0, 0, 1e5), step: whole(0, 0, 1e6), a: words(), b: words(), match: oneOf("step", "level"),
  level: whole(6, 0, LEVELS.length - 1), set: oneOf("forget", "all", ...Object.keys(SETS).slice(1)),
  sort: oneOf("order", "differ"), find: words(), mark: oneOf("leak", "change"), x: oneOf("p", "d", "f"),
  off: words(), hide: words(), theme: oneOf("", "light", "dark"),
  // live lab, of side a and b; null: as the recorded runs have it
  la: words(), lb: words(), lra: real(null, 1e-6, 1e-2), lrb: real(null, 1e-6, 1e-2),
  lba: real(null, 1e-3, 10), lbb: real(null, 1e-3, 10), lwa: real(null, 0, 100), lwb: real(null, 0, 100),
  lea: whole(null, 1, 20), leb: whole(null, 1, 20), lpart: whole(null, 1, 99), lseed: whole(0, 0, 1e6),
  // of both sides, in older links: where a side has none of its own
  lbeta: real(null, 1e-3, 10), lret: real(null, 0, 100), lep: whole(null, 1, 20),
  // theory
  wb: real(0.1, 0.01, 10), time: oneOf("linear", "log"), ta: real(1, 0, 2), ts: whole(1000, 0, 1e6), tb: real(1, 0.01, 20),
  tga: real(5e-4, 1e-5, 1), tnpo: real(5e-3, 1e-5, 1), tm: words("ga,ga_rt,npo,npo_rt"),
};
const ALWAYS = ["q", "step", "a", "b"]; // in the address whatever their value

const USUAL = Object.fromEntries(Object.entries(PROPS).map(([name, { usual }]) => [name, usual]));
const state = { ...USUAL };
const runs = Object.create(null); // id -> recorded, live or pinned run
let index = null; // what the server says of the study

const rowsOf = (set) => index.rows[set] ?? 0;
const listed = (text) => text.split(",").filter(Boolean);

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, { usual, read }] of Object.entries(PROPS)) {
    const value = given.has(name) ? read(given.get(name)) : undefined;
    state[name] = value === undefined ? usual : value;
  }
}

// What the address may not say: runs and questions that this study does not have.
function settleState() {
  const unlearned = Object.values(runs).filter((run) => run.kind === "unlearn" && !run.foreign);
  const first = (id) => (runs[id]?.kind === "unlearn" ? id : null);
  if (!first(state.a) || runs[state.a].foreign) state.a = first("ga") ?? unlearned[0].id;
  if (!first(state.b) || runs[state.b].foreign) state.b = first("npo_rt") ?? unlearned.at(-1).id;
  if (state.q >= index.questions.length) state.q = 0;
  for (const name of ["la", "lb"]) if (!index.live.methods.includes(state[name])) state[name] = "";
}

function addressOf(more = {}) {
  const all = { ...state, ...more };
  const kept = Object.entries(all).filter(([name, value]) =>
    (ALWAYS.includes(name) || value !== PROPS[name].usual) && !String(value).match(/^(live|pin)-/));
  return `#${new URLSearchParams(kept)}`;
}

// Another view or question is a new place to come back from; every other change is the same place.
function change(more) {
  const { view, q } = state;
  Object.assign(state, more);
  settleState();
  const moved = state.view !== view || state.q !== q;
  history[moved ? "pushState" : "replaceState"](null, "", addressOf());
  draw();
}

// The method of a live run: as chosen in the lab, else as in Compare.
function labMethod(side) {
  const shown = runs[state[side]].method;
  return state[`l${side}`] || (index.live.methods.includes(shown) ? shown : { a: "ga", b: "npo_rt" }[side]);
}

// --- where a run stands ---

// Where a run is shown: {place, reached, between}. By step it is the last that was evaluated by then.
// By level it is the checkpoint nearest to where its curve first passes the level; `between` says
// where that is, {place, share} of the way to the next checkpoint, or null where it never passes.
function standOf(run) {
  if (run.kind !== "unlearn") return { place: 0, reached: true, between: null };
  if (state.match === "step") {
    return { place: Math.max(0, run.steps.findLastIndex((s) => s <= state.step)), reached: true, between: null };
  }
  const ps = run.metrics.forget_probability, level = LEVELS[state.level];
  const place = ps.findIndex((p, i) => known(p) && known(ps[i + 1]) && p >= level && level >= ps[i + 1]);
  if (place >= 0) {
    const share = ps[place] === ps[place + 1] ? 0 : (ps[place] - level) / (ps[place] - ps[place + 1]);
    return { place: place + Math.round(share), reached: true, between: { place, share } };
  }
  const gaps = ps.map((p) => (known(p) ? Math.abs(p - level) : Infinity));
  return { place: Math.max(0, gaps.indexOf(Math.min(...gaps))), reached: false, between: null };
}

const known = (value) => value !== null && value !== undefined;

// The levels, by their number, that both runs pass.
function levelsReached() {
  const passes = (id, level) => {
    const ps = runs[id].metrics.forget_probability;
    return ps.some((p, i) => known(p) && known(ps[i + 1]) && p >= level && level >= ps[i + 1]);
  };
  return [...LEVELS.keys()].filter((number) => passes(state.a, LEVELS[number]) && passes(state.b, LEVELS[number]));
}

const lastStep = () => Math.max(...[state.a, state.b].flatMap((id) => runs[id].steps), 1);

function stride() {
  const steps = [...new Set([...runs[state.a].steps, ...runs[state.b].steps])].sort((x, y) => x - y);
  const gaps = steps.slice(1).map((s, i) => s - steps[i]);
  return gaps.length && gaps.every((gap) => gap === gaps[0]) ? gaps[0] : 1;
}

// The runs that are compared, each once.
const compared = () => [...new Set([state.a, state.b])].map((id) => runs[id]);

const styleOf = (run) => run.look ?? index.styles[run.method];
