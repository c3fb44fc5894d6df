// Theory: the weight in closed form, Theorem 2 as recorded, the synthetic experiment live.

const { server } = kit.gradio;
const { $, $$, node, action, button, hued, marked } = kit.dom;
const { asked, complain } = kit.words;
const { listed } = kit.names;
const { PROPS, THEORY, index, runs, state } = kit.state;
const { hiddenParts, styleOf } = kit.stands;
const { change } = kit.address;
const { makeLens, drawLens } = kit.lens;
const { knob, seedInput, slider, sliders } = kit.knobs;
const { svgNode, svgLine, markerPath } = kit.svg;
const { chartAt, axesIn, drawLine, drawNamed, emptyChart, roomFor } = kit.plot;

const WEIGHT_BETAS = [0.02, 0.1, 0.5, 2]; // drawn faintly beside the chosen one
const LEAST = 1e-6; // of what is drawn on a log scale
const CHARTS = ["forget", "retain", "both", "drift"];
const theory = { answer: null, settings: "", words: "", waiting: null, busy: false, again: false };
let theoremLines = null; // of Theorem 2, once they have come

function makeTheory() {
  const { seed, ...options } = index.theory.controls;
  $("weight-knob").append(slider("wb", options.beta));
  const changeSeed = (text) => {
    const ts = PROPS.ts.read(text);
    if (ts !== undefined) change({ ts });
  };
  $("theory-knobs").append(
    knob("ts", seed.label, seedInput(), changeSeed, "input"),
    ...Object.entries(options).map(([name, about]) => slider(THEORY[name], about)),
  );
  makeLens();
  $("theory-methods").append(...index.theory.methods.map(methodBox));
  action("theory-reset").addEventListener("click", () => {
    const { ta } = state;
    const chosen = ta === 0 ? { tb: 10, tga: 1e-4, tnpo: 5e-2 } : { tb: 1, tga: 5e-4, tnpo: 5e-3 };
    change({ ...chosen, ta: ta && 1, ts: 1000, tm: PROPS.tm.usual });
  });
}

function methodBox(method) {
  const box = marked(node("input", { type: "checkbox" }), "theoryMethod", method);
  box.addEventListener("change", () => {
    const others = listed(state.tm).filter((m) => m !== method);
    change({ tm: [...others, ...(box.checked ? [method] : [])].join(",") });
  });
  return node("label", {}, box, index.styles[method].label);
}

function drawTheory() {
  for (const id of ["wb", "ta", "tb", "tga", "tnpo"]) sliders[id].set(state[id]);
  if (document.activeElement !== $('knob="ts"')) $('knob="ts"').value = state.ts;
  $("time").value = state.time;
  const chosen = listed(state.tm);
  for (const box of $$("[data-theory-method]")) {
    box.checked = chosen.includes(box.dataset.theoryMethod);
  }
  drawWeight();
  drawTheorem();
  drawLens();
  drawRecordedBetas();
  if (!hiddenParts().includes("experiment")) askExperiment();
}

// --- formulas and records ---

// W = 2 sigmoid(beta u), for u = log pi / pi_ref of a whole answer.
const weightAt = (u, beta) => 2 / (1 + Math.exp(-beta * u));

function drawWeight() {
  const [low, high] = [-40, 10];
  const label = "log-ratio log π_θ/π_ref of an answer, nats (← forgotten)";
  const chart = axesIn(chartAt("weight"), {
    label: `Weight W against the log-ratio at beta ${state.wb}`,
    height: 340,
    right: roomFor([`β = ${state.wb}`, "GA: 1"]),
    x: { low, high, label, short: "log-ratio, nats (← forgotten)" },
    y: { low: 0, high: 2, label: "weight W" },
  });
  const us = Array.from({ length: 101 }, (_, i) => low + ((high - low) * i) / 100);
  const curve = (beta) => us.map((u) => [u, weightAt(u, beta)]);
  const [bottom, top] = [0, 2].map((w) => [chart.x(0), chart.y(w)]);
  chart.svg.append(svgLine(bottom, top, { class: "axis", "stroke-dasharray": "3 4" }));
  const { ga, npo } = index.styles;
  const own = { name: `β = ${state.wb}`, width: 3.5, attributes: { "data-weight": state.wb } };
  const faint = { look: npo, width: 1.2, opacity: 0.35 };
  const flat = [low, high].map((u) => [u, 1]);
  drawNamed(chart, [
    { points: flat, look: ga, name: "GA: 1" },
    ...WEIGHT_BETAS.map((beta) => ({ points: curve(beta), ...faint })),
    { points: curve(state.wb), look: npo, ...own },
  ]);
}

async function fetchTheorem() {
  emptyChart("theorem", "Loading …");
  theoremLines = [];
  const found = await asked(server.theorem({}));
  if (!found) return;
  theoremLines = found.lines;
  if (state.view === "theory") drawTheorem();
}

function drawTheorem() {
  if (!theoremLines) fetchTheorem();
  if (!theoremLines.length) return;
  const log = state.time === "log";
  const drawn = theoremLines.filter(({ method }) => !log || method !== "ga");
  const most = (place) => Math.max(...drawn.flatMap(({ points }) => points.map((p) => p[place])));
  const label = log ? "step, log scale (NPO alone: straight lines)" : "step";
  const chart = axesIn(chartAt("theorem"), {
    label: "Distance from the start by step: GA linear, NPO logarithmic",
    height: 340,
    right: roomFor(["NPO β = 0.5"]),
    x: { low: log ? 1 : 0, high: most(0), log, label, short: "step" },
    y: { low: 0, high: most(1), label: "distance from the start" },
  });
  const betas = drawn.map(({ beta }) => beta).filter(Boolean);
  const lines = drawn.map(({ method, beta, points }) => ({
    points: points.filter(([s]) => !log || s >= 1),
    look: index.styles[method],
    name: beta ? `NPO β = ${beta}` : "GA",
    opacity: beta ? 0.35 + (0.65 * (betas.indexOf(beta) + 1)) / betas.length : 1,
  }));
  drawNamed(chart, lines);
}

// Runs of NPO that were recorded with several values of beta: a way into Compare.
function drawRecordedBetas() {
  const isOne = (run) => run.seed === 0 && !run.live && !run.pinned;
  const recorded = Object.values(runs)
    .filter(isOne)
    .sort((p, q) => p.beta - q.beta);
  const of = (name) => recorded.filter(({ method }) => method === name);
  const chip = (run) => {
    const look = { className: "chip", textContent: `${run.methodLabel} ${run.beta}` };
    return hued(
      button(look, () => change({ view: "compare", b: run.id })),
      styleOf(run).colour,
    );
  };
  $("recorded-betas").replaceChildren(...[...of("npo"), ...of("npo_rt")].map(chip));
}

// --- the experiment ---

// Asks for the experiment once the settings have been still for a moment; one question at a time.
function askExperiment() {
  const methods = listed(state.tm).filter((m) => index.theory.methods.includes(m));
  const { ta: alpha, ts: seed, tb: beta, tga: lr_ga, tnpo: lr_npo } = state;
  const settings = { alpha, seed, beta, lr_ga, lr_npo, methods };
  const key = JSON.stringify(settings);
  clearTimeout(theory.waiting);
  if (theory.answer && theory.settings === key) {
    drawExperiment();
    return;
  }
  if (!methods.length) {
    tellExperiment("Choose a method.", true);
    return;
  }
  if (theory.answer) tellExperiment("Running …", true);
  else {
    const text = "Running the experiment; the first time takes some seconds …";
    for (const name of CHARTS) emptyChart(`theory-${name}`, text);
  }
  theory.waiting = setTimeout(() => runExperiment(settings, key), 60);
}

async function runExperiment(settings, key) {
  if (theory.busy) {
    theory.again = true;
    return;
  }
  theory.busy = true;
  tellExperiment("Running …", Boolean(theory.answer));
  const started = performance.now();
  const answer = await asked(server.theory({ settings }));
  theory.busy = false;
  if (answer) {
    const took = ((performance.now() - started) / 1000).toFixed(2);
    const words = `Live: 2000 steps of ${settings.methods.length} methods in ${took} s.`;
    Object.assign(theory, { answer, settings: key, words });
    complain("");
    if (state.view === "theory") drawExperiment();
  } else tellExperiment("There is no answer.", Boolean(theory.answer));
  if (theory.again) {
    theory.again = false;
    askExperiment();
  }
}

// Says how it goes; curves of other settings than the knobs' are grey.
function tellExperiment(words, older) {
  const grey = older ? " Grey: the curves of the settings before." : "";
  $("theory-say").textContent = words + grey;
  chartAt("theory-forget").closest(".grid").classList.toggle("stale", older);
}

const above = (value) => Math.max(value, LEAST);

// All that the experiment's runs have in a column.
const columnOf = (column) => Object.values(theory.answer.runs).flatMap((run) => run[column]);

function logAxis(column, label) {
  const decade = (value, round) => 10 ** round(Math.log10(value));
  const found = columnOf(column).map(above);
  const low = decade(Math.min(...found), Math.floor);
  return { low, high: decade(Math.max(...found, 1e-3), Math.ceil), log: true, label };
}

function drawExperiment() {
  tellExperiment(theory.words, false);
  for (const name of ["forget", "retain"]) {
    const label = `${name} distance, nats ↓ better`;
    const column = `${name}_distance`;
    drawBySteps(name, `${label} by step`, logAxis(column, label), column, above);
  }
  drawBoth();
  // How far each model has moved on the forget points: GA without end, NPO ever slower.
  const high = Math.max(...columnOf("forget_drift"), 0.01);
  const y = { low: 0, high, label: "KL(start ‖ current), nats" };
  drawBySteps("drift", "Drift on the forget points by step", y, "forget_drift", (value) => value);
}

function drawBySteps(name, label, y, column, shownAs) {
  const { steps, runs: made } = theory.answer;
  const x = { low: 0, high: steps.at(-1), label: "step" };
  const lines = Object.entries(made).map(([method, run]) => {
    const look = index.styles[method];
    const points = steps.map((step, i) => [step, shownAs(run[column][i])]);
    return { points, look, name: look.label };
  });
  const right = roomFor(lines.map((line) => line.name));
  const chart = axesIn(chartAt(`theory-${name}`), { label, height: 330, right, x, y });
  drawNamed(chart, lines);
}

function drawBoth() {
  const { steps, runs: made } = theory.answer;
  const chart = axesIn(chartAt("theory-both"), {
    label: "Retain distance against forget distance",
    height: 330,
    right: 18,
    x: logAxis("forget_distance", "forget distance, nats ← better"),
    y: logAxis("retain_distance", "retain distance, nats ↓ better"),
  });
  const at = (run, i) => [above(run.forget_distance[i]), above(run.retain_distance[i])];
  for (const [method, run] of Object.entries(made)) {
    const look = index.styles[method];
    const end = drawLine(
      chart,
      steps.map((_, i) => at(run, i)),
      look,
    );
    const title = svgNode("title", {}, `${look.label} after ${steps.at(-1)} steps`);
    const shape = { d: markerPath(look.marker, ...end, 6), fill: look.colour };
    chart.svg.append(svgNode("path", shape, title));
  }
  const [x, y] = at(Object.values(made)[0], 0);
  const start = { cx: chart.x(x), cy: chart.y(y), r: 8, fill: "#7f7f7f" };
  chart.svg.append(svgNode("circle", start));
}

kit.theory = { makeTheory, drawTheory };
