// Theory: the weight in closed form, Theorem 2 as recorded, the synthetic experiment live.

const WEIGHT_BETAS = [0.02, 0.1, 0.5, 2]; // drawn faintly beside the chosen one
const NPO_LOOK = { colour: "#0072B2", dash: "" };
const GA_LOOK = { colour: "#D55E00", dash: "6 2" };
const theory = { knobs: {}, answer: null, settings: "", waiting: null, lines: null };

function makeTheory() {
  const changed = (name) => (value) => change({ [name]: value });
  const make = (id, options) => { theory.knobs[id] = slider({ id, ...options }, changed(id)); return theory.knobs[id].label; };
  $("weight-knob").append(make("wb", { label: "β", low: -2, high: 1, step: 0.001, log: true }));
  const seed = node("input", { type: "number", min: 0, max: 1e6, step: 1 });
  seed.dataset.knob = "ts";
  seed.addEventListener("input", () => { const value = PROPS.ts.read(seed.value); if (value !== undefined) change({ ts: value }); });
  $("theory-knobs").append(
    make("ta", { label: "α, centres at ±α", low: 0, high: 2, step: 0.25 }),
    node("label", {}, node("span", { textContent: "Seed" }), seed),
    make("tb", { label: "β", low: -2, high: 1.3, step: 0.001, log: true }),
    make("tga", { label: "Rate GA, IDK", low: -5, high: 0, step: 0.001, log: true }),
    make("tnpo", { label: "Rate NPO, DPO, KTO", low: -5, high: 0, step: 0.001, log: true }),
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
  $("time").addEventListener("change", () => change({ time: $("time").value }));
  action("theory-reset").addEventListener("click", () => {
    const chosen = state.ta === 0 ? { tb: 10, tga: 1e-4, tnpo: 5e-2 } : { tb: 1, tga: 5e-4, tnpo: 5e-3, ta: 1 };
    change({ ...chosen, ts: 1000, tm: PROPS.tm.usual });
  });
}

function drawTheory() {
  for (const id of ["wb", "ta", "tb", "tga", "tnpo"]) theory.knobs[id].set(state[id]);
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
  const ga = drawLine(chart, [[low, 1], [high, 1]], GA_LOOK);
  for (const beta of WEIGHT_BETAS) drawLine(chart, curve(beta), NPO_LOOK, { width: 1.2, opacity: 0.35 });
  const own = drawLine(chart, curve(state.wb), NPO_LOOK, { width: 3.5, attributes: { "data-weight": state.wb } });
  chart.svg.append(svgNode("line", { class: "axis", x1: chart.x(0), x2: chart.x(0), y1: chart.y(0), y2: chart.y(2), "stroke-dasharray": "3 4" }));
  nameEnds(chart, [[ga[1], "GA: 1", GA_LOOK.colour], [own[1], `β = ${state.wb}`, NPO_LOOK.colour]]);
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
  nameEnds(chart, drawn.map(({ method, beta, points }) => {
    const look = method === "ga" ? GA_LOOK : NPO_LOOK;
    const of = points.filter(([s]) => !log || s >= 1);
    const end = drawLine(chart, of, look, { opacity: beta ? 0.35 + 0.65 * (betas.indexOf(beta) + 1) / betas.length : 1 });
    return [end[1], method === "ga" ? "GA" : `NPO β = ${beta}`, look.colour];
  }));
  $("theorem-caption").textContent = "The weight is a formula, drawn in the browser; pale lines are β = 0.02, 0.1, 0.5 and 2. Drift: recorded, a logistic model with 16 orthonormal rows in 256 dimensions, one draw; "
    + "Theorem 2 says that GA moves away linearly in the step, NPO only in its logarithm, with slope √n/β. To move NPO's β there would need a new run; the lines shown are β = 0.1, 0.5, 1 and 2.";
}

// Runs of NPO that were recorded with several values of beta: a way into Compare.
function drawRecordedBetas() {
  const of = ["npo", "npo_rt"].flatMap((method) => Object.values(runs).filter((run) => run.method === method && run.seed === 0 && !run.live && !run.pinned)
    .sort((p, q) => p.beta - q.beta));
  $("recorded-betas").replaceChildren(...of.map((run) => {
    const button = node("button", { type: "button", className: "chip", textContent: `${run.methodLabel} ${run.beta}` });
    button.style.setProperty("--hue", styleOf(run).colour);
    button.addEventListener("click", () => change({ view: "compare", b: run.id }));
    return button;
  }));
}

// Asks for the experiment once the settings have been still for a moment; one question at a time.
function askExperiment() {
  const methods = listed(state.tm).filter((m) => index.theory.methods.includes(m));
  const settings = { alpha: state.ta, seed: state.ts, beta: state.tb, lr_ga: state.tga, lr_npo: state.tnpo, methods };
  const key = JSON.stringify(settings);
  if (!methods.length) { $("theory-say").textContent = "Choose a method."; return; }
  if (theory.answer && theory.settings === key) { drawExperiment(); return; }
  if (!theory.answer) for (const name of ["forget", "retain", "both", "drift"]) emptyChart(chartAt(`theory-${name}`), "Running the experiment; the first time takes some seconds …");
  clearTimeout(theory.waiting);
  theory.waiting = setTimeout(async () => {
    if (theory.busy) { theory.again = true; return; }
    theory.busy = true;
    $("theory-say").textContent = "Running …";
    const started = performance.now();
    const answer = await asked(server.theory(settings));
    theory.busy = false;
    if (answer) {
      Object.assign(theory, { answer, settings: key });
      $("theory-say").textContent = `Live: 2000 steps of ${methods.length} methods in ${((performance.now() - started) / 1000).toFixed(2)} s.`;
      complain("");
    } else $("theory-say").textContent = "";
    if (state.view === "theory" && answer) drawExperiment();
    if (theory.again) { theory.again = false; askExperiment(); }
  }, 60);
}

// How far each model has moved on the forget points: GA without end, NPO ever slower.
function drawDrift(steps, made) {
  const drift = Object.values(made).flatMap((run) => run.forget_drift);
  const chart = axesIn(chartAt("theory-drift"), {
    label: "Drift on the forget points by step", height: 330, right: 74,
    x: { low: 0, high: steps.at(-1), label: "step" }, y: { low: 0, high: Math.max(...drift, 0.01), label: "KL(start ‖ current), nats" },
  });
  nameEnds(chart, Object.entries(made).map(([method, run]) => {
    const look = index.styles[method], end = drawLine(chart, steps.map((step, i) => [step, run.forget_drift[i]]), look);
    return [end[1], look.label, look.colour];
  }));
}

function drawExperiment() {
  const { steps, runs: made } = theory.answer, least = 1e-6;
  const axis = (values) => {
    const found = values.map((v) => Math.max(v, least));
    return { low: 10 ** Math.floor(Math.log10(Math.min(...found))), high: 10 ** Math.ceil(Math.log10(Math.max(...found, 1e-3))), log: true };
  };
  const all = (column) => Object.values(made).flatMap((run) => run[column]);
  const x = { low: 0, high: steps.at(-1), label: "step" };
  for (const [name, column, label] of [["forget", "forget_distance", "forget distance, nats ↓ better"], ["retain", "retain_distance", "retain distance, nats ↓ better"]]) {
    const chart = axesIn(chartAt(`theory-${name}`), { label: `${label} by step`, height: 330, right: 74, x, y: { ...axis(all(column)), label } });
    nameEnds(chart, Object.entries(made).map(([method, run]) => {
      const look = index.styles[method], end = drawLine(chart, steps.map((step, i) => [step, Math.max(run[column][i], least)]), look);
      return [end[1], look.label, look.colour];
    }));
  }
  const chart = axesIn(chartAt("theory-both"), {
    label: "Retain distance against forget distance", height: 330, right: 18,
    x: { ...axis(all("forget_distance")), label: "forget distance, nats ← better" }, y: { ...axis(all("retain_distance")), label: "retain distance, nats ↓ better" },
  });
  for (const [method, run] of Object.entries(made)) {
    const look = index.styles[method];
    const end = drawLine(chart, steps.map((_, i) => [Math.max(run.forget_distance[i], least), Math.max(run.retain_distance[i], least)]), look);
    chart.svg.append(svgNode("path", { d: markerPath(look.marker, ...end, 6), fill: look.colour }, svgNode("title", {}, `${look.label} after ${steps.at(-1)} steps`)));
  }
  drawDrift(steps, made);
  const first = Object.values(made)[0];
  chart.svg.append(svgNode("circle", { cx: chart.x(first.forget_distance[0]), cy: chart.y(Math.max(first.retain_distance[0], least)), r: 8, fill: "#7f7f7f" }));
}
