// The weight lens: how hard each method pushes on an answer as its probability falls.

const { $, $$, keepFocus, marked, node, option } = kit.dom;
const { known, shown } = kit.words;
const { SIDES } = kit.names;
const { LENS, index, lensName, runs, state } = kit.state;
const { standOf, styleOf } = kit.stands;
const { change } = kit.address;
const { knob, slider, sliders } = kit.knobs;
const { svgNode, svgText, markerPath } = kit.svg;
const { chartAt, axesIn, drawNamed, roomFor } = kit.plot;
const { fetchScores, scoresOf } = kit.answers;

const [LEAST, MOST] = [1e-6, 2]; // the lowest probability and the highest weight that are drawn
const DECADES = 6;
const EACH = 100; // points of a curve in a decade

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

// NPO's weight where `n` tokens have become less likely, by p/p° each.
const faded = (p, { beta, reference }, n) => 2 * sigmoid(beta * n * Math.log(p / reference));

// By forget term: the derivative of the loss of one answer by its mean log-probability, GA's 1.
// NPO's, which sums over the answer, is divided by the number of its tokens.
const WEIGHTS = {
  ga: () => 1,
  npo: (p, given) => faded(p, given, given.tokens),
  simnpo: (p, { beta, gamma }) => 2 * sigmoid(beta * (Math.log(p) + gamma)),
  tnpo: (p, given) => faded(p, given, 1),
  wtnpo: (p, given) => faded(p, given, 1) * p ** given.alpha,
  wga: (p, { alpha }) => p ** alpha,
  satimp: (p, { beta1, beta2 }) => p ** beta1 * (1 - p) ** beta2,
  unlikelihood: (p) => p / (1 - p),
  ceu: (p) => p / (1 - p),
  flat: (p) => p / (2 * Math.cosh(p) ** 2),
};

const FORMULAS = {
  ga: "GA: 1.",
  npo: "NPO: 2σ(β n log(p/p°)), n times as steep in training.",
  simnpo: "SimNPO: 2σ(β (log p + γ)).",
  tnpo: "TNPO: 2σ(β log(p/p°)).",
  wtnpo: "WTNPO: 2σ(β log(p/p°)) p^α.",
  wga: "WGA: p^α.",
  satimp: "SatImp: p^β₁ (1 − p)^β₂.",
  unlikelihood: "UL: p/(1 − p).",
  ceu: "CE-U: p/(1 − p), as UL.",
  flat: "FLAT: p sech²(p)/2.",
};

const focus = () => (WEIGHTS[state.lens] ? state.lens : "npo");
const isHigh = (weight) => weight > MOST;

// The weight of a term at a probability, by the settings in the address.
function weightAt(term, p) {
  const set = (pairs) => pairs.map(([name, id]) => [name, state[id]]);
  const own = Object.keys(index.lens.settings[term]).map((name) => [name, lensName(term, name)]);
  return WEIGHTS[term](p, Object.fromEntries(set([...Object.entries(LENS), ...own])));
}

function makeLens() {
  const { controls, settings } = index.lens;
  const terms = Object.keys(settings);
  const select = node("select", {}, ...terms.map((term) => option(term, nameOf(term))));
  $("lens-focus").append(knob("lens", "Method", select, (lens) => change({ lens })));
  for (const [term, options] of Object.entries(settings)) {
    const own = Object.entries(options).map(([name, about]) => slider(lensName(term, name), about));
    $("lens-focus").append(marked(node("div", {}, ...own), "lensOf", term));
  }
  const common = Object.entries(controls).map(([name, about]) => slider(LENS[name], about));
  $("lens-knobs").append(...common);
}

const nameOf = (term) => index.styles[term].label;

function drawLens() {
  $('knob="lens"').value = focus();
  for (const box of $$("[data-lens-of]")) box.hidden = box.dataset.lensOf !== focus();
  for (const [term, options] of Object.entries(index.lens.settings)) {
    for (const name of Object.keys(options)) {
      const id = lensName(term, name);
      sliders[id].set(state[id]);
    }
  }
  for (const id of Object.values(LENS)) sliders[id].set(state[id]);
  $("lens-says").textContent = FORMULAS[focus()];
  const chart = lensAxes();
  drawWeights(chart);
  drawRows(chart);
}

function lensAxes() {
  const container = chartAt("lens");
  const terms = Object.keys(index.lens.settings);
  const every = container.clientWidth < 560 ? 2 : 1; // decades between two ticks
  const powers = [...Array(DECADES + 1).keys()].filter((power) => power % every === 0);
  const ticks = powers.map((power) => [10 ** -power, -power]);
  const label = "probability per token of an answer, p (→ forgotten)";
  return axesIn(container, {
    label: `Weight of each method by probability, ${nameOf(focus())} in focus`,
    height: 420,
    right: roomFor(terms.map(nameOf)),
    x: { low: 1, high: LEAST, log: true, ticks, label, short: "p per token (→ forgotten)" },
    y: { low: 0, high: MOST, label: "weight, GA = 1" },
  });
}

// A term's curve from p = 1 on; where it is too high only its way in at the upper edge is left.
function curveOf(term) {
  const ps = Array.from({ length: DECADES * EACH + 1 }, (_, i) => 10 ** (-i / EACH));
  const points = ps.map((p) => [p, weightAt(term, p)]);
  const from = points.findLastIndex(([, weight]) => isHigh(weight));
  return points.slice(Math.max(0, from));
}

function drawWeights(chart) {
  const others = Object.keys(index.lens.settings).filter((term) => term !== focus());
  const lines = [...others, focus()].map((term) => {
    const bold = term === focus();
    const drawn = bold ? { width: 4 } : { width: 1.6, opacity: 0.55 };
    const look = index.styles[term];
    const attributes = { "data-lens": term };
    return { points: curveOf(term), look, name: look.label, ...drawn, attributes };
  });
  drawNamed(chart, lines);
  const high = lines.filter(({ points }) => isHigh(points[0][1]));
  if (!high.length) return;
  const x = Math.max(...high.map(({ points }) => chart.x(points[0][0]))) + 8;
  const names = high.map(({ name }) => name).sort();
  chart.svg.append(svgText(x, chart.y(MOST) + 14, `↑ ${names.join(", ")}`, { class: "faint" }));
}

// --- the rows of runs ---

const pair = () => [...new Set(SIDES.map((side) => runs[state[side]]))].filter(Boolean);
const hasCurve = (run) => index.lens.terms[run.method] in WEIGHTS;

// The rows of A and B where they stand, as dots; they come a moment after the curves.
function drawRows(chart) {
  const there = pair().filter((run) => hasCurve(run) && run.steps.length);
  const missing = there.filter((run) => !scoresOf(run, "probability"));
  $("lens-dots").textContent = missing.length ? "Loading the dots …" : pair().map(told).join(" ");
  if (missing.length) {
    Promise.all(missing.map(fetchScores)).then((came) => {
      if (came.every(Boolean) && state.view === "theory") keepFocus(drawLens);
    });
    return;
  }
  for (const run of there) drawDots(chart, run);
}

// The probabilities of the answers to forget where a run stands.
function probabilitiesOf(run) {
  const isForget = (p, number) => known(p) && index.questions[number].set === "forget";
  return scoresOf(run, "probability").filter(isForget);
}

// Where a run's rows are, in words: what its dots show.
function told(run) {
  if (!hasCurve(run)) return `${run.label} has no curve here, and so no dots.`;
  const ps = run.steps.length ? probabilitiesOf(run).sort((p, q) => p - q) : [];
  if (!ps.length) return `${run.label} has no rows here.`;
  const step = run.steps[standOf(run).place];
  const beyond = ps.filter((p) => p < LEAST).length;
  const edge = beyond ? `, ${beyond} of them below 10⁻⁶, at the edge` : "";
  const middle = shown(ps[Math.floor(ps.length / 2)]);
  const kind = run.live || run.pinned ? "live" : "recorded";
  const rows = `${ps.length} answers, median p ${middle}${edge}`;
  return `${run.label} at step ${step}, ${kind}: ${rows}.`;
}

function drawDots(chart, run) {
  const term = index.lens.terms[run.method];
  const { colour: fill, marker } = styleOf(run);
  const dots = probabilitiesOf(run).map((p) => {
    const d = markerPath(marker, chart.x(p), chart.y(weightAt(term, Math.max(p, LEAST))), 5);
    return svgNode("path", { d, fill, "data-p": p });
  });
  const look = { role: "img", "aria-label": told(run), opacity: 0.6, "data-rows": run.id };
  chart.svg.append(svgNode("g", look, svgNode("title", {}, told(run)), ...dots));
}

kit.lens = { makeLens, drawLens };
