// Trade-off: the chart of trajectories with its caption, and its numbers as tables.

const { $, node, option, button, hued, marked, tableOf } = kit.dom;
const { known, percent, shown } = kit.words;
const { KEPT, SETS, RETRAINED, LEVELS, listed } = kit.names;
const { index, runs, state } = kit.state;
const { compared, rowsOf, standOf } = kit.stands;
const { change } = kit.address;
const { acrossName, acrossThere, drawnRuns, drawTrajectories, seedsOf } = kit.trajectories;
const { drawCdf } = kit.quality;
const { showCard, hideCard } = kit.card;

let pointed = null; // [run, place] under the pointer or in focus

function pick({ id, foreign }, step) {
  const there = id === state.a || id === state.b || foreign;
  change({ step, match: "step", ...(!there && { b: id }) });
}

function point(run, place, dot) {
  pointed = run && [run, place];
  if (run) showCard(dot, ...cardOf(run, place));
  else hideCard();
  drawNine();
}

// What a point is, in a card beside it.
function cardOf(run, place) {
  const source = run.pinned || run.live ? "live" : "recorded";
  const rule = run.best === run.steps[place] ? ", the rule's choice" : "";
  const measured = [["model_utility", "utility"], ...Object.entries(CURVE).slice(1, 5)];
  const rows = measured
    .filter(([metric]) => isTold(metric))
    .map(([metric, name]) => [name, scoreAt(run, place, metric)]);
  const head = node("b", { textContent: `${run.label} · step ${run.steps[place]}` });
  return [node("p", {}, head, ` · ${source}${rule}`), tableOf(["", ""], rows)];
}

function makeTradeoff() {
  $("x").replaceChildren(...acrossThere().map(([name, { name: words }]) => option(name, words)));
}

function drawTradeoff() {
  $("x").value = acrossName();
  $("x").disabled = $("x").options.length < 2;
  const drawn = { front: compared(), back: drawnRuns(), height: 460 };
  drawTrajectories("tradeoff", drawn, { pick, point });
  drawCaption();
  drawShown();
  drawCdf();
  drawNine();
  $("table").replaceChildren(metricsTable(compared()));
}

const BEYOND =
  " Right of the upright dashed line the answers are less likely than to a model that never saw "
  + "them: further than it needs to go.";

function drawCaption() {
  const beside = Object.values(runs).some((run) => run.live || run.pinned);
  const source = beside ? "Recorded, and live runs by their name. " : "Recorded. ";
  const sets = Object.entries(SETS).filter(([set]) => rowsOf(set));
  const rows = sets.map(([set, name]) => `${rowsOf(set)} ${name}`).join(", ");
  const banded = compared().some((run) => seedsOf(run).length > 1);
  const band = banded ? ", the pale band is the range over seeds, the thin line their mean" : "";
  $("caption").textContent =
    `${source}n = ${rows} rows; one seed a line${band}. ${ringWords()} `
    + `${retainedWords()} Large: the checkpoint that the study's rule takes. Broad grey line: the `
    + "checkpoints that no other in the chart beats in both directions."
    + `${acrossName() === "f" && runs.retained ? BEYOND : ""} Click a point to go there.`;
}

function retainedWords() {
  if (!runs.retained) {
    return (
      "No model retrained without the forget rows in this folder, so there is no forget "
      + "quality."
    );
  }
  const rows = rowsOf("forget");
  return acrossName() === "p"
    ? "Shaded: the test does not tell the model from the one retrained without the forget rows. "
        + `The least p that ${rows} rows can give is ${shown(leastP(rows))}.${nullWords("p")}`
    : nullWords("d");
}

// The band of models that never saw the forget rows, where it is drawn.
function nullWords(measure) {
  const band = acrossName() === measure && index.null?.[measure];
  if (!band) return "";
  const [low, , high] = [...band].sort((a, b) => a - b).map((value) => shown(value, 3));
  const name = { p: "p", d: "D" }[measure];
  return (
    ` Grey band: in pairs of models that never saw them, ${name} is ${low} to ${high} (5 to 95 %). `
    + "A model left of it differs more than such models do, whatever the test says."
  );
}

function ringWords() {
  if (state.match === "step") return "Ringed: the current step.";
  const told = compared().map((run) => {
    const { place, between } = standOf(run);
    const at = (i) => `step ${run.steps[i]} (P ${shown(run.metrics.forget_probability[i])})`;
    return between
      ? `${run.label} between ${at(between.place)} and ${at(between.place + 1)}`
      : `${run.label} does not pass it, its nearest is ${at(place)}`;
  });
  return (
    `Ringed: where P(forget) is ${LEVELS[state.level]}, on the line between two evaluations: `
    + `${told.join("; ")}. Texts, curves and the tables below are of the nearest evaluation.`
  );
}

// The least p-value of a two-sided KS test between two samples of n: 2 / C(2n, n).
function leastP(n) {
  let log = Math.log10(2);
  for (let k = 1; k <= n; k++) log -= Math.log10((n + k) / k);
  return 10 ** log;
}

// The methods that can be switched off.
function drawShown() {
  const main = Object.values(runs).filter((run) => run.main && run.kind === "unlearn");
  const off = listed(state.off);
  const chip = (method) => {
    const { label, colour } = index.styles[method];
    const on = !off.includes(method);
    const others = off.filter((m) => m !== method);
    const press = () => change({ off: [...others, ...(on ? [method] : [])].join(",") });
    const look = { className: "chip", ariaPressed: String(on) };
    const made = button(look, press, node("b", { className: "swatch" }), label);
    return marked(hued(made, colour), "method", method);
  };
  $("shown").replaceChildren(...[...new Set(main.map((run) => run.method))].map(chip));
}

// --- tables ---

const PARTS = {
  probability: "probability",
  rouge_l: "ROUGE-L recall",
  truth_ratio: "truth ratio, max(0, 1 − R)",
};
const NINE = Object.entries(KEPT).flatMap(([set, of]) =>
  Object.entries(PARTS).map(([score, name]) => [`${set}_${score}`, `${of}: ${name}`]),
);
const PERCENTILE = "forget_percentile";
const SUMMARY = [
  ["model_utility", "model utility, their harmonic mean"],
  ["forget_quality", "forget quality p"],
  ["forget_ks", "KS distance D"],
  [PERCENTILE, "percentile of D among models that never saw it"],
  ["forget_probability", "P(forget)"],
];
const CURVE = {
  model_utility: "utility",
  forget_quality: "forget p",
  forget_ks: "D",
  [PERCENTILE]: "percentile",
  forget_probability: "P forget",
  retain_probability: "P retain",
  forget_fluency: "fluency",
};

// A percentile is told only where models that never saw the forget rows are recorded.
const isTold = (metric) => metric !== PERCENTILE || index.null;

const scoreAt = ({ metrics }, place, metric) => {
  const value = metrics[metric][place];
  return metric === PERCENTILE && known(value) ? percent(value) : shown(value);
};

function drawNine() {
  const at = (run, place) => `${run.label}, step ${run.steps[place] ?? "–"}`;
  const stands = compared().map((run) => [run, standOf(run).place]);
  const columns = [
    ["Original", runs.original, 0],
    ...stands.map(([run, place]) => [at(run, place), run, place]),
    ...(runs.retained ? [[RETRAINED, runs.retained, 0]] : []),
    ...(pointed ? [[`→ ${at(...pointed)}`, ...pointed]] : []),
  ];
  const rows = [...NINE, ...SUMMARY.filter(([metric]) => isTold(metric))].map(([metric, name]) => [
    name,
    ...columns.map(([, run, place]) => scoreAt(run, place, metric)),
  ]);
  $("nine").replaceChildren(tableOf(["", ...columns.map(([name]) => name)], rows));
}

function metricsTable(columns) {
  const told = Object.keys(CURVE).filter(isTold);
  const scores = (run, i) => told.map((name) => scoreAt(run, i, name));
  const rows = columns.flatMap((run) =>
    run.steps.map((step, i) => [run.label, step, ...scores(run, i)]),
  );
  return tableOf(["method", "step", ...told.map((name) => CURVE[name])], rows);
}

kit.tradeoff = { makeTradeoff, drawTradeoff };
