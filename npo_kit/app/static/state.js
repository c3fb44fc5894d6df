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
  lesson: whole(0, 0, 9),
  present: oneOf("", "1"),
  panel: oneOf("", "1"),
  q: whole(null, 0, 1e5), // the question to forget; null: the one that the study opens on
  k: whole(null, 0, 1e5), // the question to keep, likewise
  step: whole(0, 0, 1e6),
  a: words(),
  b: words(),
  c: words(),
  scored: oneOf("", "1"),
  match: oneOf("step", "level"),
  level: whole(6, 0, LEVELS.length - 1),
  set: oneOf("all", "forget", ...Object.keys(KEPT)),
  sort: oneOf("order", "differ"),
  find: words(),
  mark: oneOf("leak", "change"),
  x: oneOf("f", "p", "d", "percentile"),
  off: words(),
  // how much
  reading: oneOf("", "steps", "alike"),
  cut: oneOf("best", "equal", "last"),
  quality: oneOf("p", "percentile", "d"),
  // audit
  checkpoint: oneOf("best", "last"),
  run: words(), // whose card is open
  card: words(),
  form: words("plain"),
  probe: whole(0, 0, 1e4), // the question of its texts
  hide: words(),
  theme: oneOf("", "light", "dark"),
  // live lab and theory, beside the options that the server tells of
  la: words(),
  lb: words(),
  lpart: whole(null, 1, 99),
  lrows: oneOf("", "all"),
  wb: real(0.1, 0.01, 10),
  lens: words("npo"), // the method in focus of the weight lens
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
const SECRET = { steps: "ss", lr: "sl", beta: "sb", retain_weight: "sw" };
const THEORY = { alpha: "ta", seed: "ts", beta: "tb", lr_ga: "tga", lr_npo: "tnpo" };
const LENS = { tokens: "ln", reference: "lref" };
const lensName = (term, option) => `lens_${term}_${option}`; // a setting of one of its methods
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
  for (const [option, about] of Object.entries(index.secret.controls)) {
    declare(SECRET[option], about.usual, about);
  }
  for (const [option, about] of Object.entries(index.theory.controls)) {
    declare(THEORY[option], about.usual, about);
  }
  for (const [option, about] of Object.entries(index.lens.controls)) {
    declare(LENS[option], about.usual, about);
  }
  for (const [term, control] of Object.entries(index.lens.settings)) {
    for (const [option, about] of Object.entries(control)) {
      declare(lensName(term, option), about.usual, about);
    }
  }
}

kit.state = {
  PROPS,
  USUAL,
  BOTH,
  SECRET,
  THEORY,
  LENS,
  state,
  runs,
  index,
  liveName,
  lensName,
  declareOptions,
};
