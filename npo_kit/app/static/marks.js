// What is drawn beside the trajectories: the range over seeds, the Pareto line, faint names.

const { runs } = kit.state;
const { styleOf } = kit.stands;
const { svgNode, svgText, pathOf, polyline } = kit.svg;
const { nameIn } = kit.plot;

const isMeasured = ({ metrics }, i, metric) =>
  metrics[metric][i] !== null && metrics.model_utility[i] !== null;

const NARROW = 560; // pixels of a chart that has no room for faint names

// Where a run is at an evaluation, in pixels; only where it is measured.
const pointOf = (chart, { metrics }, i) => [
  chart.x(metrics[chart.metric][i]),
  chart.y(metrics.model_utility[i]),
];

// The recorded runs that differ from this one by the seed alone, one for each seed.
function seedsOf(run) {
  const alike = Object.values(runs).filter((other) => other.group === run.group && !other.live);
  return [...new Map(alike.map((other) => [other.seed, other])).values()];
}

// The range over seeds at each step, joined to the next step's, and their mean.
function drawSeeds(chart, run) {
  const seeds = seedsOf(run);
  if (seeds.length < 2) return;
  const pointsAt = (step, i) => {
    const there = seeds.filter((one) => one.steps[i] === step && isMeasured(one, i, chart.metric));
    return there.map((one) => pointOf(chart, one, i));
  };
  const all = run.steps.map(pointsAt).filter((points) => points.length);
  const { colour, dash } = styleOf(run);
  const ends = (values) => [Math.min(...values), Math.max(...values)];
  const boxes = all.map((points) => {
    const ys = ends(points.map(([, y]) => y));
    return ends(points.map(([x]) => x)).flatMap((x) => ys.map((y) => [x, y]));
  });
  boxes.slice(1).forEach((box, i) => {
    const points = pathOf(hullOf([...boxes[i], ...box]));
    chart.svg.append(svgNode("polygon", { class: "band", points, fill: colour, opacity: 0.1 }));
  });
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const means = all.map((points) => [0, 1].map((axis) => mean(points.map((at) => at[axis]))));
  const look = { class: "mean", "stroke-width": 1.5, opacity: 0.8 };
  chart.svg.append(polyline(means, { colour, dash }, look));
}

// The checkpoints that no other beats in both directions, of the runs that are drawn.
function drawPareto(chart, drawn) {
  const points = drawn.flatMap((run) => {
    const there = [...run.steps.keys()].filter((i) => isMeasured(run, i, chart.metric));
    return there.map((i) => pointOf(chart, run, i));
  });
  points.sort(([x, y], [u, v]) => u - x || y - v); // from the right; up is a smaller y
  const line = [];
  for (const [x, y] of points) if (y < (line.at(-1)?.[1] ?? Infinity)) line.push([x, y]);
  const look = { class: "pareto", "stroke-width": 9, opacity: 0.13, "stroke-linejoin": "round" };
  chart.svg.append(polyline(line, { colour: "currentColor" }, look));
}

// The convex hull of some points (Andrew's monotone chain).
function hullOf(points) {
  const sorted = [...points].sort((p, q) => p[0] - q[0] || p[1] - q[1]);
  const turns = (o, p, q) => (p[0] - o[0]) * (q[1] - o[1]) - (p[1] - o[1]) * (q[0] - o[0]);
  const half = (list) => {
    const chain = [];
    for (const point of list) {
      while (chain.length > 1 && turns(chain.at(-2), chain.at(-1), point) <= 0) chain.pop();
      chain.push(point);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

// Names of the runs that are drawn faintly, at their last points, where there is room.
function nameFaint(chart, faint, rings) {
  if (chart.size.width < NARROW) return;
  const beside = [-60, 0, 60].flatMap((dx) => [-24, -10, 6, 20, 36].map((dy) => [dx, dy]));
  const taken = rings.flatMap(({ x, y }) => beside.map(([dx, dy]) => [x + dx, y + dy]));
  const isFree = ([x, y]) => taken.every(([u, v]) => Math.abs(x - u) > 70 || Math.abs(y - v) > 17);
  for (const run of faint) {
    const place = run.steps.findLastIndex((_, i) => isMeasured(run, i, chart.metric));
    if (place < 0) continue;
    const [x, y] = pointOf(chart, run, place);
    const left = x > chart.size.width - chart.size.right - 90;
    const spots = [0, -18, 18].map((by) => [x + (left ? -40 : 40), y + by]);
    const inside = ([, v]) =>
      v > chart.size.top + 8 && v < chart.size.height - chart.size.bottom - 4;
    const spot = spots.find((each) => isFree(each) && inside(each));
    if (!spot) continue;
    taken.push(spot);
    const name = nameIn(styleOf(run).colour);
    const look = { ...name, class: "named halo", "text-anchor": left ? "end" : "start" };
    const at = [x + (left ? -10 : 10), spot[1] + 5];
    chart.svg.append(svgText(...at, run.label, { ...look, "font-size": 13 }));
  }
}

kit.marks = { isMeasured, pointOf, seedsOf, drawSeeds, drawPareto, nameFaint };
