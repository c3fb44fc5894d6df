// Trade-off: model utility against forgetting as trajectories, and the test behind forget quality.

let pointed = null; // [run, place] under the pointer or in focus

const ACROSS = {
  p: { metric: "forget_quality", label: "forget quality p (KS test against the retrained model, log scale) → better", short: "forget quality p (log) → better" },
  d: { metric: "forget_ks", label: "KS distance D to the retrained model → better", short: "KS distance D → better" },
  f: { metric: "forget_probability", label: "mean probability of the forgotten answers → more forgotten", short: "P(forget) → more forgotten" },
};

// The horizontal measure; without the retrained model there is no p and no D.
const acrossName = () => (runs.retained ? state.x : "f");

const isMeasured = (run, i, metric) =>
  run.metrics[metric][i] !== null && run.metrics.model_utility[i] !== null;

// chosen: run ids drawn bold; behind: those drawn faintly. onPick(run id, step).
function drawTradeoffIn(container, { chosen, behind, height }, onPick) {
  const name = acrossName(), { metric, ...words } = ACROSS[name];
  const front = chosen.map((id) => runs[id]).filter(Boolean);
  const back = behind.map((id) => runs[id]).filter((run) => run && !chosen.includes(run.id));
  const everyone = [...front, ...back, runs.original, ...(runs.retained ? [runs.retained] : [])];
  const tops = everyone.flatMap((run) => run.metrics.model_utility).filter((u) => u !== null);
  const ps = everyone.flatMap((run) => run.metrics[metric]).filter((p) => p !== null);
  const floor = Math.max(-16, Math.min(-4, Math.floor(Math.log10(Math.max(1e-300, Math.min(...ps.filter((p) => p > 0), 1e-4))))));
  const x = { p: { low: 10 ** floor, high: 1, log: true }, d: { low: Math.max(...ps, 0.2), high: 0 }, f: { low: 1, high: 0 } }[name];
  const top = Math.max(0.1, Math.ceil(Math.max(...tops, 0) * 1.08 * 10) / 10);
  const chart = axesIn(container, {
    label: "Model utility against forgetting; the table below has the same numbers", height,
    x: { ...x, ...words }, y: { low: 0, high: top, label: "model utility → better" }, right: container.clientWidth < 560 || !runs.retained ? 18 : 146,
  });
  if (name === "p") drawSignificance(chart);
  drawRetained(chart, metric, name);
  for (const run of back) drawTrajectory(chart, run, metric, false, onPick);
  for (const run of front) drawSeeds(chart, run, metric);
  for (const point of name === "p" ? index.published : []) drawPublished(chart, point);
  const [x0, y0] = [chart.x(runs.original.metrics[metric][0] ?? x.low), chart.y(runs.original.metrics.model_utility[0] ?? 0)];
  chart.svg.append(svgNode("circle", { cx: x0, cy: y0, r: 8, fill: "#7f7f7f" }),
    svgText(x0 + 2, y0 - 14, "original", { "font-weight": 600 }));
  for (const run of front) drawTrajectory(chart, run, metric, true, onPick);
  const ringed = front.map((run) => ringOf(chart, run, metric)).filter(Boolean);
  ringed.sort((p, q) => p.y - q.y).forEach((ring, number) => drawRing(chart, ring, number === 0));
}

// {run, x, y}: where a run's ring is; on the line between two checkpoints where a level is passed.
function ringOf(chart, run, metric) {
  const { place, between } = standOf(run);
  const at = (i) => [chart.x(run.metrics[metric][i]), chart.y(run.metrics.model_utility[i])];
  const ends = between ? [between.place, between.place + 1] : [place, place];
  if (!run.steps.length || !ends.every((i) => isMeasured(run, i, metric))) return null;
  const [[x0, y0], [x1, y1]] = ends.map(at), share = between?.share ?? 0;
  return { run, x: x0 + share * (x1 - x0), y: y0 + share * (y1 - y0) };
}

function drawSignificance(chart) {
  const { svg, x, y, size } = chart, bottom = size.height - size.bottom;
  svg.append(svgNode("rect", { x: x(0.05), y: size.top, width: x(1) - x(0.05), height: bottom - size.top, fill: "currentColor", opacity: 0.07 }),
    svgNode("line", { class: "axis", x1: x(0.05), x2: x(0.05), y1: size.top, y2: bottom, "stroke-dasharray": "3 4" }),
    svgText(x(0.05), size.top - 8, "p = 0.05", { class: "faint", "text-anchor": "middle" }));
}

function drawRetained(chart, metric, name) {
  if (!runs.retained) return;
  const { svg, x, y, size } = chart, kept = y(runs.retained.metrics.model_utility[0] ?? 0);
  const line = { stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": "7 5" };
  svg.append(svgNode("line", { x1: size.left, x2: size.width - size.right, y1: kept, y2: kept, ...line }));
  if (name === "f") {
    const at = x(runs.retained.metrics[metric][0]);
    svg.append(svgNode("line", { x1: at, x2: at, y1: size.top, y2: size.height - size.bottom, ...line }));
  }
  const beside = size.right > 100;
  const lines = beside ? ["retrained without", "the forget rows"] : [RETRAINED.toLowerCase()];
  lines.forEach((line, number) => svg.append(svgText(size.width - (beside ? size.right - 6 : size.right),
    beside ? kept + 5 + 17 * number : kept - 30, line, { "font-weight": 600, "font-size": 14, "text-anchor": beside ? "start" : "end" })));
}

// The recorded runs that differ from this one by the seed alone, one for each seed.
function seedsOf(run) {
  const alike = Object.values(runs).filter((other) => other.group === run.group && !other.live);
  return [...new Map(alike.map((other) => [other.seed, other])).values()];
}

// The range over seeds at each step, joined to the next step's.
function drawSeeds(chart, run, metric) {
  const seeds = seedsOf(run);
  if (seeds.length < 2) return;
  const boxes = run.steps.map((step, i) => {
    const of = seeds.filter((seed) => seed.steps[i] === step && isMeasured(seed, i, metric));
    const xs = of.map((seed) => chart.x(seed.metrics[metric][i])), ys = of.map((seed) => chart.y(seed.metrics.model_utility[i]));
    return of.length ? [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)] : null;
  }).filter(Boolean);
  for (let i = 1; i < boxes.length; i++) {
    const corners = [boxes[i - 1], boxes[i]].flatMap(([l, r, t, b]) => [[l, t], [l, b], [r, t], [r, b]]);
    chart.svg.append(svgNode("polygon", { class: "band", points: pathOf(hullOf(corners)), fill: styleOf(run).colour, opacity: 0.1 }));
  }
}

// The convex hull of some points (Andrew's monotone chain).
function hullOf(points) {
  const sorted = [...points].sort((p, q) => p[0] - q[0] || p[1] - q[1]);
  const turns = (o, p, q) => (p[0] - o[0]) * (q[1] - o[1]) - (p[1] - o[1]) * (q[0] - o[0]);
  const half = (list) => list.reduce((chain, point) => {
    while (chain.length > 1 && turns(chain.at(-2), chain.at(-1), point) <= 0) chain.pop();
    return [...chain, point];
  }, []);
  return [...half(sorted).slice(0, -1), ...half(sorted.reverse()).slice(0, -1)];
}

function drawTrajectory(chart, run, metric, bold, onPick) {
  const look = styleOf(run), { place } = standOf(run);
  const points = run.steps.map((step, i) => ({ step, i })).filter(({ i }) => isMeasured(run, i, metric))
    .map(({ step, i }) => ({ step, i, x: chart.x(run.metrics[metric][i]), y: chart.y(run.metrics.model_utility[i]) }));
  const group = svgNode("g", { opacity: bold ? 1 : 0.3 }, svgNode("polyline", {
    points: pathOf(points.map(({ x, y }) => [x, y])), fill: "none", stroke: look.colour,
    "stroke-width": bold ? 3 : 1.5, "stroke-dasharray": look.dash || "none",
  }));
  for (const { step, i, x, y } of points) {
    const words = `${run.label}, step ${step}: utility ${shown(run.metrics.model_utility[i])}, p ${shown(run.metrics.forget_quality[i])}`;
    const dot = svgNode("path", {
      class: "dot", d: markerPath(look.marker, x, y, bold ? 5 : 3), fill: look.colour, "data-run": run.id, "data-point": step,
      stroke: "transparent", "stroke-width": 10, ...(bold && { role: "button", tabindex: i === place ? 0 : -1, "aria-label": words }),
    }, svgNode("title", {}, words));
    dot.addEventListener("click", () => onPick(run.id, step));
    dot.addEventListener("keydown", (event) => { if (event.key === "Enter") onPick(run.id, step); });
    for (const event of ["mouseenter", "focus"]) dot.addEventListener(event, () => { pointed = [run, i]; drawNine(); });
    dot.addEventListener("mouseleave", () => { pointed = null; drawNine(); });
    group.append(dot);
  }
  chart.svg.append(group);
}

function drawPublished(chart, { method, forget_quality: p, model_utility: u, source }) {
  const look = index.styles[method], [x, y] = [chart.x(p), chart.y(u)];
  chart.svg.append(svgNode("path", { class: "published", d: markerPath("D", x, y, 6), fill: "none", stroke: look.colour, "stroke-width": 2.5 },
    svgNode("title", {}, `${look.label}, published: utility ${shown(u)}, p ${shown(p)} (${source})`)),
  svgText(x, y + 22, `${look.label}, published`, { class: "faint", "font-size": 13, "text-anchor": x > chart.size.width / 2 ? "end" : "start" }));
}

// A ring where a run stands, its name above or below.
function drawRing(chart, { run, x, y }, above) {
  const { colour } = styleOf(run);
  chart.svg.append(svgNode("circle", { class: "ring", cx: x, cy: y, r: 12, fill: "none", stroke: colour, "stroke-width": 3, "data-ring": run.id }));
  const left = x > chart.size.width - chart.size.right - 90;
  const lower = above || y > chart.size.height - chart.size.bottom - 30 ? -18 : 30;
  chart.svg.append(svgText(x + (left ? -16 : 16), y + lower, run.label, {
    "font-weight": 700, "font-size": 16, "text-anchor": left ? "end" : "start", "data-name": "",
  }));
}

// --- the view ---

// The runs in the chart: the first of each method that is not switched off, and pinned ones.
function drawnRuns() {
  const off = listed(state.off);
  return Object.values(runs).filter((run) => run.kind === "unlearn" && run.steps.length
    && (run.main || run.pinned || run.live) && !off.includes(run.method)).map((run) => run.id);
}

function pickPoint(id, step) {
  const side = id === state.a || id === state.b || runs[id].foreign ? {} : { b: id };
  change({ step, match: "step", ...side });
}

function drawTradeoff() {
  $("x").value = acrossName();
  $("x").disabled = !runs.retained;
  drawTradeoffIn(chartAt("tradeoff"), { chosen: compared().map(({ id }) => id), behind: drawnRuns(), height: 460 }, pickPoint);
  const pinned = Object.values(runs).some((run) => run.live || run.pinned);
  const banded = compared().some((run) => seedsOf(run).length > 1);
  const least = runs.retained ? ` The least p that ${rowsOf("forget")} rows can give is ${shown(leastP(rowsOf("forget")))}.` : "";
  $("caption").textContent = `${pinned ? "Recorded, and live runs by their name. " : "Recorded. "}n = ${Object.entries(SETS).filter(([set]) => rowsOf(set)).map(([set, name]) =>
    `${rowsOf(set)} ${name}`).join(", ")} rows; one seed a line${banded ? ", the pale band is the range over seeds" : ""}. ${ringWords()} `
    + (runs.retained ? (acrossName() === "p" ? `Shaded: the test cannot tell the model from the one retrained without the forget rows.${least}` : "") : "No model retrained without the forget rows in this folder, so there is no forget quality.")
    + " Click a point to go there.";
  drawShown();
  drawCdf();
  drawNine();
  $("table").replaceChildren(metricsTable(compared()));
}

function ringWords() {
  if (state.match === "step") return "Ringed: the current step.";
  const told = compared().map((run) => {
    const { place, between } = standOf(run), p = (i) => shown(run.metrics.forget_probability[i]);
    return between ? `${run.label} between step ${run.steps[between.place]} (P ${p(between.place)}) and step ${run.steps[between.place + 1]} (P ${p(between.place + 1)})`
      : `${run.label} does not pass it, its nearest is step ${run.steps[place]} (P ${p(place)})`;
  });
  return `Ringed: where P(forget) is ${LEVELS[state.level]}, on the line between two evaluations: ${told.join("; ")}. `
    + "Texts, curves and the tables below are of the nearest evaluation.";
}

// The least p-value of a two-sided KS test between two samples of n: 2 / C(2n, n).
function leastP(n) {
  let log = Math.log10(2);
  for (let k = 1; k <= n; k++) log -= Math.log10((n + k) / k);
  return 10 ** log;
}

function drawShown() {
  const methods = [...new Set(Object.values(runs).filter((run) => run.main && run.kind === "unlearn").map((run) => run.method))];
  const off = listed(state.off);
  $("shown").replaceChildren(...methods.map((method) => {
    const look = index.styles[method], on = !off.includes(method);
    const others = off.filter((m) => m !== method);
    const made = button({ className: "chip", ariaPressed: String(on) },
      () => change({ off: [...others, ...(on ? [method] : [])].join(",") }),
      node("b", { className: "swatch" }), look.label);
    made.style.setProperty("--hue", look.colour);
    made.dataset.method = method;
    return made;
  }));
}

// --- forget quality: two distributions and the largest gap between them ---

function cumulative(values) {
  const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
  return { sorted, at: (v) => sorted.filter((s) => s <= v).length / sorted.length };
}

// The KS distance of two samples and where it is: {D, at, ours, theirs}.
function ksGap(ours, theirs) {
  let best = { D: 0, at: theirs.sorted[0], ours: 0, theirs: 0 };
  for (const at of [...ours.sorted, ...theirs.sorted]) {
    const [p, q] = [ours.at(at), theirs.at(at)];
    if (Math.abs(p - q) > best.D) best = { D: Math.abs(p - q), at, ours: p, theirs: q };
  }
  return best;
}

function drawCdf() {
  const wanted = [runs.retained, ...compared(), runs.original].filter((run) => run && run.steps.length);
  const missing = wanted.filter((run) => !scoresOf(run, "truth_ratio"));
  if (missing.length) {
    Promise.all(missing.map(fetchScores)).then((there) => { if (there.every(Boolean) && state.view === "tradeoff") keepFocus(drawCdf); });
    return;
  }
  const isForget = (_, number) => index.questions[number].set === "forget";
  const ratios = (run) => cumulative(scoresOf(run, "truth_ratio").filter(isForget));
  const pairs = wanted.map((run) => [run.id, ratios(run)]);
  const of = new Map(pairs.filter(([, { sorted }]) => sorted.length));
  if (!of.size) { emptyChart(chartAt("cdf"), "No truth ratios in this study."); return; }
  const all = [...of.values()].flatMap(({ sorted }) => sorted).filter((v) => v > 0).sort((a, b) => a - b);
  const decade = (share, round) => 10 ** Math.max(-4, Math.min(4, round(Math.log10(all[Math.floor(share * (all.length - 1))] ?? 1))));
  const [low, high] = [Math.min(0.1, decade(0.005, Math.floor)), Math.max(10, decade(0.995, Math.ceil))];
  const chart = axesIn(chartAt("cdf"), {
    label: "Cumulative distribution of the truth ratio over the forget rows", height: 460, right: 18,
    x: { low, high, log: true, label: "truth ratio R = P(wrong) / P(right), log scale", short: "truth ratio R (log scale)" },
    y: { low: 0, high: 1, label: "share of forget rows with R or less" },
  });
  const curve = (id, look, more) => {
    const { sorted } = of.get(id);
    const points = [[low, 0], ...sorted.flatMap((v, i) => [[v, i / sorted.length], [v, (i + 1) / sorted.length]]), [high, 1]];
    drawLine(chart, points, look, more);
  };
  if (of.has("original")) curve("original", { colour: "#7f7f7f" }, { width: 1.5 });
  const said = [];
  for (const run of compared()) {
    const side = run.id === state.a ? "a" : "b";
    if (!of.has(run.id)) continue;
    curve(run.id, styleOf(run));
    if (!of.has("retained")) continue;
    const gap = ksGap(of.get(run.id), of.get("retained")), look = styleOf(run), { place } = standOf(run);
    const x = chart.x(gap.at) + (side === "a" ? -2 : 2);
    chart.svg.append(svgNode("line", { class: "gap", "data-gap": run.id, x1: x, x2: x, y1: chart.y(gap.ours), y2: chart.y(gap.theirs), stroke: look.colour, "stroke-width": 5 }),
      svgText(x + 8, (chart.y(gap.ours) + chart.y(gap.theirs)) / 2 + (side === "a" ? -2 : 16), `D = ${gap.D.toFixed(2)}`, { "font-weight": 700, class: "named", style: `--hue:${look.colour}` }));
    said.push(`${run.label}: D = ${gap.D.toFixed(3)}, p = ${shown(run.metrics.forget_quality[place])}`);
  }
  if (of.has("retained")) curve("retained", { colour: "currentColor", dash: "7 5" });
  $("cdf-caption").textContent = `Each curve sorts the ${index.rows.forget} forget rows by their truth ratio${state.match === "step" ? " at the current step" : ", at the evaluation nearest to the level"}: grey the original${of.has("retained")
    ? `, dashed the model retrained without them. The bar is the largest gap D to the dashed curve; forget quality is the p-value of that gap. ${said.join("; ")}` : ""}.`;
}

// --- tables ---

const NINE = Object.keys(SETS).slice(1).flatMap((set) => [["probability", "probability"], ["rouge_l", "ROUGE-L recall"], ["truth_ratio", "truth ratio, max(0, 1 − R)"]]
  .map(([score, name]) => [`${set}_${score}`, `${SETS[set]}: ${name}`]));

function drawNine() {
  const columns = [["Original", runs.original, 0], ...compared().map((run) => [run.label, run, standOf(run).place])];
  if (runs.retained) columns.push([RETRAINED, runs.retained, 0]);
  if (pointed) columns.push([`→ ${pointed[0].label}, step ${pointed[0].steps[pointed[1]]}`, ...pointed]);
  const rows = [...NINE, ["model_utility", "model utility, their harmonic mean"], ["forget_quality", "forget quality p"], ["forget_ks", "KS distance D"], ["forget_probability", "P(forget)"]];
  $("nine").replaceChildren(tableOf(["", ...columns.map(([name, run, place]) => (run.kind === "unlearn" && !name.startsWith("→") ? `${name}, step ${run.steps[place] ?? "–"}` : name))],
    rows.map(([metric, name]) => [name, ...columns.map(([, run, place]) => shown(run.metrics[metric][place]))])));
}

function metricsTable(columns) {
  const names = [["model_utility", "utility"], ["forget_quality", "forget p"], ["forget_ks", "D"], ["forget_probability", "P forget"], ["retain_probability", "P retain"], ["forget_fluency", "fluency"]];
  return tableOf(["method", "step", ...names.map(([, name]) => name)], columns.flatMap((run) => run.steps.map((step, i) =>
    [run.label, step, ...names.map(([key]) => shown(run.metrics[key][i]))])));
}

function tableOf(head, rows) {
  const line = (cells, kind) => node("tr", {}, ...cells.map((cell) => node(kind, { textContent: cell })));
  return node("table", {}, node("thead", {}, line(head, "th")), node("tbody", {}, ...rows.map((row) => line(row, "td"))));
}
