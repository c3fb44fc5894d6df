// One state, the whole of it in the address, and the runs; everything is drawn from them.

const { VIEWS, KEPT, LEVELS } = kit.names;

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
  hide: words(),
  theme: oneOf("", "light", "dark"),
  // live lab, of side a and b; null: as the recorded runs have it
  la: words(),
  lb: words(),
  lra: real(null, 1e-6, 1e-2),
  lrb: real(null, 1e-6, 1e-2),
  lba: real(null, 1e-3, 10),
  lbb: real(null, 1e-3, 10),
  lwa: real(null, 0, 100),
  lwb: real(null, 0, 100),
  lea: whole(null, 1, 20),
  leb: whole(null, 1, 20),
  lpart: whole(null, 1, 99),
  lseed: whole(0, 0, 1e6),
  // of both sides, in older links: where a side has none of its own
  lbeta: real(null, 1e-3, 10),
  lret: real(null, 0, 100),
  lep: whole(null, 1, 20),
  // theory
  wb: real(0.1, 0.01, 10),
  time: oneOf("linear", "log"),
  ta: real(1, 0, 2),
  ts: whole(1000, 0, 1e6),
  tb: real(1, 0.01, 20),
  tga: real(5e-4, 1e-5, 1),
  tnpo: real(5e-3, 1e-5, 1),
  tm: words("ga,ga_rt,npo,npo_rt"),
};
const USUAL = Object.fromEntries(Object.entries(PROPS).map(([name, { usual }]) => [name, usual]));
const state = { ...USUAL };
const runs = Object.create(null); // id -> recorded, live or pinned run
const index = {}; // what the server says of the study

kit.state = { PROPS, USUAL, state, runs, index };
