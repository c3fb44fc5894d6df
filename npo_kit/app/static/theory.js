// Theory: the weight in closed form, Theorem 2 as recorded, the synthetic experiment live.

const WEIGHT_BETAS = [0.02, 0.1, 0.5, 2]; // drawn faintly beside the chosen one
const NPO_LOOK = { colour: "#0072B2", dash: "" };
const GA_LOOK = { colour: "#D55E00", dash: "6 2" };
const theory = { answer: null, settings: "", waiting: null, lines: null };

function makeTheory() {
  $("weight-knob").append(slider("wb", "β", -2, 1, { log: true }));
  const changeSeed = (text) => {
    const ts = PROPS.ts.read(text);
    if (ts !== undefined) change({ ts });
  };
  $("theory-knobs").append(
    slider("ta", "α, centres at ±α", 0, 2, { step: 0.25 }),
    knob("ts", "Seed", seedInput(), changeSeed, "input"),
    slider("tb", "β", -2, 1.3, { log: true }),
    slider("tga", "Rate GA, IDK", -5, 0, { log: true }),
    slider("tnpo", "Rate NPO, DPO, KTO", -5, 0, { log: true }),
  );
  $("theory-methods").append(...index.theory.methods.map((method) => {
    const box = node("input", { type: "checkbox" });
    box.dataset.theoryMethod = method;
    box.addEventListener("change", () => {
      const chosen = listed(state.tm).filter((m) => m !== method);
      change({ tm: [...chosen, ...(box.checked ? [method] : [])].join(",") });
    });
    return node("label", {}, box, index.styles[method].label);
  }));
  action("theory-reset").addEventListener("click", () => {
    const chosen = state.ta === 0 ? { tb: 10, tga: 1e-4, tnpo: 5e-2 } : { tb: 1, tga: 5e-4, tnpo: 5e-3, ta: 1 };
    change({ ...chosen, ts: 1000, tm: PROPS.tm.usual });
  });
}

function drawTheory() {
  for (const id of ["wb", "ta", "tb", "tga", "tnpo"]) sliders[id].set(state[id]);
  if (document.activeElement !== $("knob=\"ts\"")) $("knob=\"ts\"").value = state.ts;
  $("time").value = state.time;
  const chosen = listed(state.tm);
  for (const box of element.querySelectorAll("[data-theory-method]")) box.checked = chosen.includes(box.dataset.theoryMethod);
  drawWeight();
  drawTheorem();
  drawRecordedBetas();
  askExperiment();
}

// W = 2 sigmoid(beta u), for u = log pi / pi_ref of a whole answer.
const weightAt = (u, beta) => 2 / (1 + Math.exp(-beta * u));

function drawWeight() {
  const [low, high] = [-40, 10];
  const chart = axesIn(chartAt("weight"), {
    label: `Weight W against the log-ratio at beta ${state.wb}`, height: 340, right: 84,
    x: { low, high, label: "log-ratio log π_θ/π_ref of an answer, nats (← forgotten)", short: "log-ratio, nats (← forgotten)" }, y: { low: 0, high: 2, label: "weight W" },
  });
  const curve = (beta) => Array.from({ length: 101 }, (_, i) => low + (high - low) * i / 100).map((u) => [u, weightAt(u, beta)]);
  const zero = { x1: chart.x(0), x2: chart.x(0), y1: chart.y(0), y2: chart.y(2) };
  chart.svg.append(svgNode("line", { class: "axis", ...zero, "stroke-dasharray": "3 4" }));
  const own = { name: `β = ${state.wb}`, width: 3.5, attributes: { "data-weight": state.wb } };
  const faint = { look: NPO_LOOK, width: 1.2, opacity: 0.35 };
  drawNamed(chart, [
    { points: [[low, 1], [high, 1]], look: GA_LOOK, name: "GA: 1" },
    ...WEIGHT_BETAS.map((beta) => ({ points: curve(beta), ...faint })),
    { points: curve(state.wb), look: NPO_LOOK, ...own },
  ]);
}

function drawTheorem() {
  if (!theory.lines) {
    emptyChart(chartAt("theorem"), "Loading …");
    theory.lines = [];
    asked(server.theorem({})).then((found) => { if (found) { theory.lines = found.lines; if (state.view === "theory") drawTheorem(); } });
    return;
  }
  if (!theory.lines.length) return;
  const log = state.time === "log";
  const drawn = theory.lines.filter(({ method }) => !log || method !== "ga");
  const steps = Math.max(...drawn.flatMap(({ points }) => points.map(([s]) => s)));
  const top = Math.max(...drawn.flatMap(({ points }) => points.map(([, d]) => d)));
  const chart = axesIn(chartAt("theorem"), {
    label: "Distance from the start by step: GA linear, NPO logarithmic", height: 340, right: 110,
    x: { low: log ? 1 : 0, high: steps, log, label: log ? "step, log scale (NPO alone: straight lines)" : "step", short: "step" },
    y: { low: 0, high: top, label: "distance from the start" },
  });
  const betas = drawn.map(({ beta }) => beta).filter(Boolean);
  drawNamed(chart, drawn.map(({ method, beta, points }) => ({
    points: points.filter(([s]) => !log || s >= 1),
    ...(beta ? { look: NPO_LOOK, name: `NPO β = ${beta}` } : { look: GA_LOOK, name: "GA" }),
    opacity: beta ? 0.35 + 0.65 * (betas.indexOf(beta) + 1) / betas.length : 1,
  })));
  $("theorem-caption").textContent = "The weight is a formula, drawn in the browser; pale lines are β = 0.02, 0.1, 0.5 and 2. Drift: recorded, a logistic model with 16 orthonormal rows in 256 dimensions, one draw; "
    + "Theorem 2 says that GA moves away linearly in the step, NPO only in its logarithm, with slope √n/β. To move NPO's β there would need a new run; the lines shown are β = 0.1, 0.5, 1 and 2.";
}

// Runs of NPO that were recorded with several values of beta: a way into Compare.
function drawRecordedBetas() {
  const of = ["npo", "npo_rt"].flatMap((method) => Object.values(runs).filter((run) => run.method === method && run.seed === 0 && !run.live && !run.pinned)
    .sort((p, q) => p.beta - q.beta));
  $("recorded-betas").replaceChildren(...of.map((run) => {
    const made = button({ className: "chip", textContent: `${run.methodLabel} ${run.beta}` },
      () => change({ view: "compare", b: run.id }));
    made.style.setProperty("--hue", styleOf(run).colour);
    return made;
  }));
}

// Asks for the experiment once the settings have been still for a moment; one question at a time.
function askExperiment() {
  const methods = listed(state.tm).filter((m) => index.theory.methods.includes(m));
  const settings = { alpha: state.ta, seed: state.ts, beta: state.tb, lr_ga: state.tga, lr_npo: state.tnpo, methods };
  const key = JSON.stringify(settings);
  clearTimeout(theory.waiting);
  if (theory.answer && theory.settings === key) { drawExperiment(); return; }
  if (!methods.length) { tellExperiment("Choose a method.", true); return; }
  if (theory.answer) tellExperiment("Running …", true);
  else for (const name of ["forget", "retain", "both", "drift"]) emptyChart(chartAt(`theory-${name}`), "Running the experiment; the first time takes some seconds …");
  theory.waiting = setTimeout(async () => {
    if (theory.busy) { theory.again = true; return; }
    theory.busy = true;
    tellExperiment("Running …", Boolean(theory.answer));
    const started = performance.now();
    const answer = await asked(server.theory({ settings }));
    theory.busy = false;
    const took = ((performance.now() - started) / 1000).toFixed(2);
    if (!answer) tellExperiment("There is no answer.", Boolean(theory.answer));
    else {
      const words = `Live: 2000 steps of ${methods.length} methods in ${took} s.`;
      Object.assign(theory, { answer, settings: key, words });
      complain("");
      if (state.view === "theory") drawExperiment();
    }
    if (theory.again) { theory.again = false; askExperiment(); }
  }, 60);
}

// Says how it goes; curves of other settings than the knobs' are grey.
function tellExperiment(words, older) {
  $("theory-say").textContent = older ? `${words} Grey: the curves of the settings before.` : words;
  chartAt("theory-forget").closest(".grid").classList.toggle("stale", older);
}

function drawExperiment() {
  tellExperiment(theory.words, false);
  const { steps, runs: made } = theory.answer, least = 1e-6;
  const x = { low: 0, high: steps.at(-1), label: "step" };
  const all = (column) => Object.values(made).flatMap((run) => run[column]);
  const above = (value) => Math.max(value, least); // on a log scale
  const axis = (column, label) => {
    const decade = (value, round) => 10 ** round(Math.log10(value));
    const found = all(column).map(above);
    const [low, high] = [Math.min(...found), Math.max(...found, 1e-3)];
    return { low: decade(low, Math.floor), high: decade(high, Math.ceil), log: true, label };
  };
  const drawBySteps = (name, label, y, column, shownAs = (value) => value) => {
    const chart = axesIn(chartAt(`theory-${name}`), { label, height: 330, right: 74, x, y });
    drawNamed(chart, Object.entries(made).map(([method, run]) => ({
      points: steps.map((step, i) => [step, shownAs(run[column][i])]),
      look: index.styles[method], name: index.styles[method].label,
    })));
  };
  for (const name of ["forget", "retain"]) {
    const label = `${name} distance, nats ↓ better`, column = `${name}_distance`;
    drawBySteps(name, `${label} by step`, axis(column, label), column, above);
  }
  const chart = axesIn(chartAt("theory-both"), {
    label: "Retain distance against forget distance", height: 330, right: 18,
    x: axis("forget_distance", "forget distance, nats ← better"),
    y: axis("retain_distance", "retain distance, nats ↓ better"),
  });
  const at = (run, i) => [above(run.forget_distance[i]), above(run.retain_distance[i])];
  for (const [method, run] of Object.entries(made)) {
    const look = index.styles[method], end = drawLine(chart, steps.map((_, i) => at(run, i)), look);
    const title = svgNode("title", {}, `${look.label} after ${steps.at(-1)} steps`);
    const shape = { d: markerPath(look.marker, ...end, 6), fill: look.colour };
    chart.svg.append(svgNode("path", shape, title));
  }
  const [cx, cy] = at(Object.values(made)[0], 0);
  chart.svg.append(svgNode("circle", { cx: chart.x(cx), cy: chart.y(cy), r: 8, fill: "#7f7f7f" }));
  // How far each model has moved on the forget points: GA without end, NPO ever slower.
  const high = Math.max(...all("forget_drift"), 0.01);
  const y = { low: 0, high, label: "KL(start ‖ current), nats" };
  drawBySteps("drift", "Drift on the forget points by step", y, "forget_drift");
}
