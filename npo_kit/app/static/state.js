// One state, the whole of it in the address, and the runs; everything is drawn from them.

const { VIEWS, KEPT, LEVELS, SIDES } = kit.names;

const oneOf = (...names) => ({ usual: names[0], read: (t) => (names.includes(t) ? t : undefined) });
const real = (usual, least, most, fits = () => true) => ({
  usual,
  read(text) {
    const value = Number(text);
    return text !== "" && fits(value) && value >= least && value <= most ? value : undefined;
  },
});
const whole = (usual, least, most) => real(usual, least, most, Number.isInteger);
const words = (usual = "") => ({ usual, read: (text) => text.slice(0, 300) });

const PROPS = {
  view: oneOf(...Object.keys(VIEWS)),
  study: whole(0, 0, 999),
  lesson: whole(0, 0, 5),
  q: whole(0, 0, 1e5),
  step: whole(0, 0, 1e6),
  a: words(),
  b: words(),
  match: oneOf("step", "level"),
  level: whole(6, 0, LEVELS.length - 1),
  set: oneOf("forget", "all", ...Object.keys(KEPT)),
  sort: oneOf("order", "differ"),
  find: words(),
  mark: oneOf("leak", "change"),
  x: oneOf("p", "d", "f"),
  off: words(),
  // how much
  reading: oneOf("", "steps", "alike"),
  cut: oneOf("best", "equal", "last"),
  quality: oneOf("p", "percentile", "d"),
  hide: words(),
  theme: oneOf("", "light", "dark"),
  // live lab and theory, beside the options that the server tells of
  la: words(),
  lb: words(),
  lpart: whole(null, 1, 99),
  wb: real(0.1, 0.01, 10),
  time: oneOf("linear", "log"),
  tm: words("ga,ga_rt,npo,npo_rt"),
};
const USUAL = Object.fromEntries(Object.entries(PROPS).map(([name, { usual }]) => [name, usual]));
const state = { ...USUAL };
const runs = Object.create(null); // id -> recorded, live or pinned run
const index = {}; // what the server says of the study

// --- options that the server tells of: their names in the address ---

const LIVE = { lr: "lr", beta: "lb", retain_weight: "lw", epochs: "le", seed: "lseed" };
const BOTH = { beta: "lbeta", retain_weight: "lret", epochs: "lep" }; // in older links
const THEORY = { alpha: "ta", seed: "ts", beta: "tb", lr_ga: "tga", lr_npo: "tnpo" };
const liveName = (option, side) => `${LIVE[option] ?? `l_${option}_`}${side}`;

function declare(name, usual, { low, high, whole: integer }) {
  PROPS[name] = integer ? whole(usual, low, high) : real(usual, low, high);
  USUAL[name] = usual;
}

// Makes room in the state for what `index` tells of.
function declareOptions() {
  for (const control of Object.values(index.live.controls)) {
    for (const [option, about] of Object.entries(control)) {
      if (option === "seed") declare(LIVE.seed, about.usual, about);
      else for (const side of SIDES) declare(liveName(option, side), null, about);
      if (BOTH[option]) declare(BOTH[option], null, about);
    }
  }
  for (const [option, about] of Object.entries(index.theory.controls)) {
    declare(THEORY[option], about.usual, about);
  }
}

kit.state = { PROPS, USUAL, BOTH, THEORY, state, runs, index, liveName, declareOptions };
