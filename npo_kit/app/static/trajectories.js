// The chart of model utility against forgetting, each run a trajectory.

const { known, shown } = kit.words;
const { NULL_NAME, RETRAINED, listed } = kit.names;
const { index, runs, state } = kit.state;
const { placeWords, standOf, styleOf } = kit.stands;
const { svgNode, svgText, svgLine, markerPath, polyline } = kit.svg;
const { chartAt, axesIn } = kit.plot;
const { isMeasured, pointOf, seedsOf, drawSeeds, drawPareto, nameFaint } = kit.marks;

const ACROSS = {
  f: {
    metric: "forget_probability",
    name: "probability of the forgotten",
    label: "mean probability of the forgotten answers → more forgotten",
    short: "P(forget) → more forgotten",
  },
  p: {
    metric: "forget_quality",
    name: "forget quality p",
    label: "forget quality p (KS test against the retrained model, log scale) → better",
    short: "forget quality p (log) → better",
    needs: () => runs.retained,
  },
  d: {
    metric: "forget_ks",
    name: "KS distance D",
    label: "KS distance D to the retrained model → better",
    short: "KS distance D → better",
    needs: () => runs.retained,
  },
  percentile: {
    metric: "forget_percentile",
    name: "percentile",
    label: "percentile of D among models that never saw it → better",
    short: "percentile → better",
    needs: () => index.null,
  },
};
// In the index: what models that never saw the forget rows have of a measure, in pairs.
const NULLS = { forget_quality: "p", forget_ks: "d" };
const COLLAPSED = 0.3; // utility below which the axis begins at 0
const DASHED = { stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": "7 5" };

// The horizontal measures that this study has.
const acrossThere = () => Object.entries(ACROSS).filter(([, { needs }]) => !needs || needs());
const acrossName = () => (acrossThere().some(([name]) => name === state.x) ? state.x : "f");

// The runs in the chart: the first of each method that is not switched off, and pinned ones.
function drawnRuns() {
  const off = listed(state.off);
  const isDrawn = ({ kind, steps, main, pinned, live, method }) =>
    kind === "unlearn" && steps.length && (main || pinned || live) && !off.includes(method);
  return Object.values(runs).filter(isDrawn);
}

// `front`: runs drawn bold, with a ring where they stand `at`; `back`: runs drawn faintly. Calls
// `pick(run, step)` for a point that is pressed, `point(run, place)` for one under the pointer.
function drawTrajectories(name, { front, back, height, at }, { pick, point = () => {} }) {
  const chart = chartOf(name, [...front, ...back], height);
  if (chart.metric === "forget_quality") drawSignificance(chart);
  if (NULLS[chart.metric] && index.null) drawNull(chart);
  if (runs.retained) drawRetained(chart);
  const isFront = ({ id }) => front.some((run) => run.id === id);
  const draw = (run, bold) =>
    drawTrajectory(chart, run, bold && { focus: standOf(run, at).place }, { pick, point });
  drawPareto(chart, [...front, ...back]);
  for (const run of back) if (!isFront(run)) draw(run, false);
  for (const run of front) drawSeeds(chart, run);
  if (chart.metric === "forget_quality")
    index.published.forEach((each) => drawPublished(chart, each));
  const rings = front.map((run) => ringOf(chart, run, standOf(run, at))).filter(Boolean);
  drawOriginal(chart, rings);
  for (const run of front) draw(run, true);
  rings.sort((p, q) => p.y - q.y).forEach((ring, number) => drawRing(chart, ring, number === 0));
  nameFaint(
    chart,
    back.filter((run) => !isFront(run)),
    rings,
  );
}

function chartOf(name, drawn, height) {
  const { metric, label, short } = ACROSS[acrossName()];
  const everyone = [...drawn, runs.original, ...(runs.retained ? [runs.retained] : [])];
  const all = (of) => everyone.flatMap((run) => run.metrics[of]).filter(known);
  const values = all(metric);
  const smallest = Math.min(...values.filter((p) => p > 0), 1e-4);
  const floor = Math.floor(Math.log10(Math.max(1e-300, smallest)));
  const x = {
    forget_quality: { low: 10 ** Math.max(-16, Math.min(-4, floor)), high: 1, log: true },
    forget_ks: { low: Math.max(...values, 0.2), high: 0 },
    forget_probability: { low: 1, high: 0 },
    forget_percentile: { low: 1, high: 0 },
  }[metric];
  const utilities = all("model_utility");
  const high = Math.max(0.1, Math.ceil(Math.max(...utilities, 0) * 1.08 * 10) / 10);
  const least = Math.min(...utilities, high);
  const low = least < COLLAPSED ? 0 : Math.floor(least * 10) / 10;
  const container = chartAt(name);
  const chart = axesIn(container, {
    label: "Model utility against forgetting; the table below has the same numbers",
    height,
    right: container.clientWidth < 560 || !runs.retained ? 28 : 172,
    x: { ...x, label, short },
    y: { low, high, label: "model utility → better" },
  });
  return { ...chart, metric, low: x.low };
}

// --- what the runs are measured by ---

// Its name stands above it, or below the names of the rings that are there.
function drawOriginal(chart, rings) {
  const { metrics } = runs.original;
  const cx = chart.x(metrics[chart.metric][0] ?? chart.low);
  const cy = chart.y(metrics.model_utility[0] ?? 0);
  const crowded = rings.some((ring) => Math.hypot(ring.x - cx, ring.y - cy) < 60);
  const [x, y] = crowded ? [cx + 16, cy + 50] : [cx + 2, cy - 14];
  chart.svg.append(
    svgNode("circle", { cx, cy, r: 8, fill: "#7f7f7f" }),
    svgText(x, y, "original", { "font-weight": 600 }),
  );
}

function drawSignificance({ svg, x, size: { top, height, bottom } }) {
  const [at, low] = [x(0.05), height - bottom];
  const box = { x: at, y: top, width: x(1) - at, height: low - top };
  svg.append(
    svgNode("rect", { ...box, fill: "currentColor", opacity: 0.07 }),
    svgLine([at, top], [at, low], { class: "axis", "stroke-dasharray": "3 4" }),
    svgText(at, top - 8, "p = 0.05", { class: "faint", "text-anchor": "middle" }),
  );
}

// The band of 5 to 95 % of the pairs of models that never saw the forget rows, its name upright
// beside it.
function drawNull({ svg, x, metric, size: { top, height, bottom } }) {
  const [low, , high] = index.null[NULLS[metric]];
  const [from, to] = [low, high].map(x).sort((a, b) => a - b);
  const [end, foot] = [Math.max(to, from + 3), height - bottom];
  const box = { x: from, y: top, width: end - from, height: foot - top };
  const turned = { transform: `rotate(-90 ${end + 17} ${foot - 8})`, "data-null": "" };
  svg.append(
    svgNode("rect", { ...box, class: "null" }),
    svgText(end + 17, foot - 8, NULL_NAME, { class: "halo", ...turned }),
  );
}

function drawRetained({ svg, x, y, size, metric }) {
  const { metrics } = runs.retained;
  const kept = y(metrics.model_utility[0] ?? 0);
  const end = size.width - size.right;
  svg.append(svgLine([size.left, kept], [end, kept], DASHED));
  if (metric === "forget_probability") {
    const at = x(metrics[metric][0]);
    const low = size.height - size.bottom;
    const words = `never saw it: ${shown(metrics[metric][0])}`;
    const turned = { transform: `rotate(-90 ${at - 8} ${low - 8})`, class: "halo" };
    svg.append(svgLine([at, size.top], [at, low], DASHED), svgText(at - 8, low - 8, words, turned));
  }
  const name = { "font-weight": 600 };
  if (size.right > 100) {
    svg.append(svgText(end + 6, kept + 5, "retrained without", name));
    svg.append(svgText(end + 6, kept + 24, "the forget rows", name));
  } else {
    const above = { ...name, "font-size": 14, "text-anchor": "end" };
    svg.append(svgText(end, Math.max(size.top + 14, kept - 46), RETRAINED.toLowerCase(), above));
  }
}

function drawPublished(chart, { method, forget_quality: p, model_utility: u, source }) {
  const { label, colour } = index.styles[method];
  const [x, y] = [chart.x(p), chart.y(u)];
  const words = `${label}, published: utility ${shown(u)}, p ${shown(p)} (${source})`;
  const look = { class: "published", fill: "none", stroke: colour, "stroke-width": 2.5 };
  const anchor = x > chart.size.width / 2 ? "end" : "start";
  const name = { class: "faint", "font-size": 13, "text-anchor": anchor };
  chart.svg.append(
    svgNode("path", { ...look, d: markerPath("D", x, y, 6) }, svgNode("title", {}, words)),
    svgText(x, y + 22, `${label}, published`, name),
  );
}

// --- runs ---

// `bold`: {focus}, the place whose point can be focused; false where the run is drawn faintly.
function drawTrajectory(chart, run, bold, on) {
  const look = styleOf(run);
  const places = run.steps.map((_, i) => i).filter((i) => isMeasured(run, i, chart.metric));
  const line = places.map((i) => pointOf(chart, run, i));
  const group = svgNode("g", { opacity: bold ? 1 : 0.3 });
  group.append(polyline(line, look, { "stroke-width": bold ? 3 : 1.5 }));
  places.forEach((i, number) => {
    const dot = dotAt(line[number], run, i, bold);
    const pick = () => on.pick(run, run.steps[i]);
    dot.addEventListener("click", pick);
    dot.addEventListener("keydown", (event) => event.key === "Enter" && pick());
    for (const name of ["mouseenter", "focus"]) {
      dot.addEventListener(name, () => on.point(run, i, dot));
    }
    for (const name of ["mouseleave", "blur"]) dot.addEventListener(name, () => on.point(null));
    group.append(dot);
  });
  chart.svg.append(group);
}

// The checkpoint that the study's rule takes is larger, with a light rim.
function dotAt([x, y], run, i, bold) {
  const { colour: fill, marker } = styleOf(run);
  const isBest = bold && run.best === run.steps[i];
  const [u, p] = [run.metrics.model_utility[i], run.metrics.forget_quality[i]].map((v) => shown(v));
  const rule = isBest ? ", the rule's choice" : "";
  const scores = `utility ${u}, p ${p}${placeWords(run, i)}`;
  const words = `${run.label}, step ${run.steps[i]}: ${scores}${rule}`;
  const tabindex = i === bold.focus ? 0 : -1;
  const pressed = { role: "button", tabindex: bold ? tabindex : -1, "aria-label": words };
  const d = markerPath(marker, x, y, isBest ? 9 : bold ? 5 : 3);
  const look = {
    class: isBest ? "dot best" : "dot",
    d,
    fill,
    stroke: "transparent",
    "stroke-width": 10,
  };
  const data = { "data-run": run.id, "data-point": run.steps[i] };
  return svgNode("path", { ...look, ...pressed, ...data, "aria-describedby": "npo-card" });
}

// {run, x, y}: where a run's ring is; on the line between two checkpoints where a level is passed.
function ringOf(chart, run, { place, between }) {
  const ends = between ? [between.place, between.place + 1] : [place, place];
  if (!run.steps.length || !ends.every((i) => isMeasured(run, i, chart.metric))) return null;
  const [[x0, y0], [x1, y1]] = ends.map((i) => pointOf(chart, run, i));
  const share = between?.share ?? 0;
  return { run, x: x0 + share * (x1 - x0), y: y0 + share * (y1 - y0) };
}

// A ring where a run stands, its name above or below.
function drawRing({ svg, size }, { run, x: cx, y: cy }, above) {
  const stroke = { fill: "none", stroke: styleOf(run).colour, "stroke-width": 3 };
  const left = cx > size.width - size.right - 90;
  const lower = above || cy > size.height - size.bottom - 30 ? -18 : 30;
  const anchor = { "text-anchor": left ? "end" : "start", "data-name": "" };
  const own = { class: "named halo", style: `--hue:${styleOf(run).colour}` };
  const name = { ...anchor, ...own, "font-weight": 700, "font-size": 16 };
  svg.append(
    svgNode("circle", { class: "ring", cx, cy, r: 12, ...stroke, "data-ring": run.id }),
    svgText(cx + (left ? -16 : 16), cy + lower, run.label, name),
  );
}

kit.trajectories = { acrossName, acrossThere, drawnRuns, seedsOf, drawTrajectories };
