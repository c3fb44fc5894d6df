// The charts of the live lab.

const { $ } = kit.dom;
const { say } = kit.words;
const { index, runs } = kit.state;
const { svgNode, svgText, pathOf } = kit.svg;
const { chartAt, axesIn, drawNamed, roomFor, emptyChart, nameIn } = kit.plot;
const { drawnRuns, drawTrajectories } = kit.trajectories;
const { live } = kit.live;

const LATEST = { match: "step", step: Infinity }; // the lab shows where the runs are
const BINS = 20;

function drawLiveCharts() {
  const jobs = live.jobs.filter((job) => job.way.steps.length).map(onTheWay);
  $("live-charts").hidden = !live.jobs.length;
  if (!jobs.length) {
    const text = live.going ? "Loading the model …" : "No evaluation was made.";
    for (const name of ["tradeoff", "probability", "weights", "histogram"]) {
      emptyChart(`live-${name}`, text);
    }
    $("live-caption").textContent = "";
    return;
  }
  const pinned = Object.values(runs).filter((run) => run.pinned);
  const back = [...new Set([...drawnRuns(), ...pinned])];
  const pick = (run) => run.pinned && say(run.label);
  drawTrajectories("live-tradeoff", { front: jobs, back, height: 340, at: LATEST }, { pick });
  drawProbabilities(jobs);
  drawWeights(jobs);
  drawHistogram(jobs);
  $("live-caption").textContent =
    `Live, seed ${jobs[0].seed}; faint lines in the first chart are recorded. `
    + `${rowsWords(jobs[0])} W is the weight of a row's gradient against GA's 1: the line is the `
    + "median of a step's rows, the band their middle half.";
}

// A run with all its evaluations, those of a few rows included.
const onTheWay = (job) => ({ ...job, ...job.way });

// How many rows the evaluations cover.
function rowsWords({ cells, few }) {
  const { forget = [], retain = [] } = cells[0];
  const all = `n = ${forget.length} forget and ${retain.length} retain rows`;
  if (!few) return `${all}, evaluated once an epoch.`;
  return (
    `${all} in the first and the last evaluation; those between them, once an epoch, are of the `
    + `first ${few} rows of each set and have no forget quality.`
  );
}

const nameOf = ({ short, label }) => short ?? label;

// Axes with room for the names of `lines` at their right.
function axesBySteps(name, label, lines, y) {
  const x = { low: 0, high: Math.max(...live.jobs.map((job) => job.total ?? 1)), label: "step" };
  const right = roomFor(lines.map((line) => line.name));
  return axesIn(chartAt(name), { label, height: 340, right, x, y: { low: 0, ...y } });
}

function drawProbabilities(jobs) {
  const label = "Mean probability of the true answers by step";
  const y = { high: 1, label: "probability per token" };
  const line = ({ look, steps, metrics }, set, width) => {
    const points = steps.map((step, i) => [step, metrics[`${set}_probability`][i]]);
    return { points, look, width, name: `${nameOf(look)}, ${set}` };
  };
  const lines = jobs.flatMap((job) => [line(job, "forget", 3), line(job, "retain", 1.2)]);
  drawNamed(axesBySteps("live-probability", label, lines, y), lines);
}

function drawWeights(jobs) {
  const weighed = jobs
    .map(({ look, history }) => ({ look, of: history.filter(({ weights }) => weights) }))
    .filter(({ of }) => of.length);
  if (!weighed.length) {
    emptyChart("live-weights", "These methods do not read the forget answers.");
    return;
  }
  const high = Math.max(1.2, ...weighed.flatMap(({ of }) => of.map(({ weights }) => weights.q75)));
  const y = { high, label: "weight W" };
  const medians = (of) => of.map(({ step, weights }) => [step, weights.median]);
  const lines = weighed.map(({ look, of }) => ({ points: medians(of), look, name: nameOf(look) }));
  const chart = axesBySteps("live-weights", "Gradient weights W by step", lines, y);
  for (const { look, of } of weighed) {
    const side = (name) => of.map(({ step, weights }) => [chart.x(step), chart.y(weights[name])]);
    const points = pathOf([...side("q75"), ...side("q25").reverse()]);
    chart.svg.append(svgNode("polygon", { points, fill: look.colour, opacity: 0.18 }));
  }
  drawNamed(chart, lines);
}

// How many of the latest weights are in each bin from 0 to 2.
function countsOf({ weights }) {
  const counts = Array(BINS).fill(0);
  for (const w of weights.at(-1)) counts[Math.min(BINS - 1, Math.floor((w / 2) * BINS))] += 1;
  return counts;
}

function drawHistogram(jobs) {
  const weighed = jobs.filter((job) => job.weights.at(-1));
  if (!weighed.length) {
    const text =
      `Known for ${index.live.weighed.join(" and ")}: the weights of the other methods depend `
      + "on more than the answers.";
    emptyChart("live-histogram", text);
    return;
  }
  const counts = weighed.map(countsOf);
  const chart = axesIn(chartAt("live-histogram"), {
    label: "Histogram of the weights W over the forget rows",
    height: 340,
    right: 18,
    x: { low: 0, high: 2, label: "weight W (1: as GA)" },
    y: { low: 0, high: Math.max(5, ...counts.flat()), label: "forget rows" },
  });
  const { width, right, top } = chart.size;
  const share = 0.9 / weighed.length;
  weighed.forEach(({ look, steps, weights }, k) => {
    const twin = k > 0 && look.colour === weighed[0].look.colour;
    const hollow = twin && { "fill-opacity": 0.25, stroke: look.colour };
    const edge = (bin, n) => chart.x(((bin + 0.05 + n * share) / BINS) * 2);
    counts[k].forEach((count, bin) => {
      if (!count) return;
      const [x, y] = [edge(bin, k), chart.y(count)];
      const box = { x, y, width: edge(bin, k + 1) - x, height: chart.y(0) - y };
      chart.svg.append(svgNode("rect", { ...box, fill: look.colour, ...hollow }));
    });
    const name = { ...nameIn(look.colour), "text-anchor": "end" };
    const rows = weights.at(-1).length;
    const words = `${nameOf(look)}, step ${steps.at(-1)}: ${rows} rows`;
    chart.svg.append(svgText(width - right - 6, top + 20 + 20 * k, words, name));
  });
}

kit.labcharts = { drawLiveCharts };
