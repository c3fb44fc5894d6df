// The charts of how much can be forgotten.

const { known } = kit.words;
const { NULL_NAME } = kit.names;
const { state } = kit.state;
const { svgNode, svgText, svgLine, pathOf } = kit.svg;
const { chartAt, axesIn, drawNamed, emptyChart, roomFor } = kit.plot;
const { methodsOf, percentsOf, spreadOf, valueOf } = kit.splits;
const { hidePoint, pointOf } = kit.muchpoints;

const PAD = 4; // percent of the authors beyond the first and the last split
const LEAST = 1e-12; // of a p that is drawn
const QUALITIES = {
  p: {
    label: "forget quality p (log scale) → better",
    band: ([low, , high]) => [high[1], low[1]],
    axis: (values) => {
      const least = Math.max(LEAST, Math.min(1e-2, ...values));
      return { low: 10 ** Math.floor(Math.log10(least)), high: 1, log: true };
    },
  },
  percentile: {
    label: "percentile → better",
    band: () => [0.05, 0.95],
    axis: () => ({ low: 100, high: 0 }),
    scale: 100,
  },
  d: {
    label: "KS distance D → better",
    band: ([low, , high]) => [high[0], low[0]],
    axis: (values) => ({ low: Math.ceil(10 * Math.max(0.2, ...values)) / 10, high: 0 }),
  },
};

function drawMuchCharts(splits) {
  hidePoint();
  drawKept(splits);
  drawQuality(splits);
}

// Axes over the percentages, with room for the methods' names at the right.
function axesOf(splits, name, methods, y, label) {
  const percents = percentsOf(splits);
  return axesIn(chartAt(name), {
    label,
    height: window.innerWidth > 1000 ? 500 : 400, // beside each other, or below
    right: roomFor(methods.map(({ look }) => look.label)),
    x: {
      low: percents[0] - PAD,
      high: percents.at(-1) + PAD,
      ticks: percents.map((each) => [each, String(each)]),
      label: "authors to be forgotten, % of 100",
      short: "authors to be forgotten, %",
    },
    y,
  });
}

function drawKept(splits) {
  const methods = methodsOf(splits);
  const most = Math.max(1, ...valuesOf(methods, "kept"));
  const y = {
    low: 0,
    high: (100 * Math.ceil(most * 10 - 1e-9)) / 10,
    label: "utility kept, % of the original's → better",
  };
  const words = "Utility kept against the share forgotten; the table below has the same numbers";
  const chart = axesOf(splits, "much-kept", methods, y, words);
  const [from, to] = endsOf(chart);
  const at = chart.y(100);
  chart.svg.append(svgLine([from, at], [to, at], { class: "axis", "stroke-dasharray": "2 5" }));
  drawMethods(chart, methods, "kept", 100);
}

function drawQuality(splits) {
  const { quality } = state;
  const methods = methodsOf(splits);
  const values = valuesOf(methods, quality);
  if (!values.length) {
    emptyChart("much-quality", "No forget quality is known here.");
    return;
  }
  const { label, axis, band, scale = 1 } = QUALITIES[quality];
  const words = "Forget quality against the share forgotten; the table below has the same numbers";
  const chart = axesOf(splits, "much-quality", methods, { ...axis(values), label }, words);
  drawNull(chart, splits, band, scale);
  if (quality === "p") drawTest(chart);
  drawMethods(chart, methods, quality, scale);
}

const valuesOf = (methods, measure) =>
  methods
    .flatMap(({ cells }) => cells)
    .flatMap(({ runs }) => runs.map((run) => valueOf(run, measure)))
    .filter(known);

const endsOf = ({ size }) => [size.left, size.width - size.right];

// The band of models that never saw the forget rows, 5 to 95 % of them, and its name above.
function drawNull(chart, splits, band, scale) {
  const there = Object.entries(splits.nulls).filter(([, of]) => of);
  if (!there.length) return;
  const corners = there.map(([percent, of]) => [Number(percent), ...band(of)]);
  const at = (percent, value) => [chart.x(percent), chart.y(scale * value)];
  const upper = corners.map(([percent, , high]) => at(percent, high));
  const lower = corners.map(([percent, low]) => at(percent, low));
  const points = pathOf([...upper, ...lower.reverse()]);
  const [from] = endsOf(chart);
  const y = chart.size.top;
  chart.svg.append(
    svgNode("polygon", { class: "null", points }),
    svgNode("rect", { class: "null", x: from, y: y - 19, width: 18, height: 12 }),
    svgText(from + 26, y - 8, NULL_NAME),
  );
}

// Where the test begins to tell a model from the retained-only one.
function drawTest(chart) {
  const [from, to] = endsOf(chart);
  const y = chart.y(0.05);
  chart.svg.append(
    svgLine([from, y], [to, y], { class: "axis", "stroke-dasharray": "2 5" }),
    svgText(from + 8, y + 20, "p = 0.05", { class: "halo faint" }),
  );
}

// Lines of the medians, their bands, their names and their points; `scale` times each value.
function drawMethods(chart, methods, measure, scale) {
  const drawn = methods.map((each) => ({ ...each, parts: partsOf(each.cells, measure) }));
  for (const { look, parts } of drawn) {
    for (const part of parts) drawBand(chart, part, look, scale);
  }
  const lines = drawn.flatMap(({ look, parts }) =>
    parts.map((part, i) => ({
      points: part.map(({ cell, spread }) => [cell.percent, scale * spread.middle]),
      look,
      name: i === parts.length - 1 ? look.label : "",
      width: 3,
    })),
  );
  drawNamed(chart, lines);
  const points = drawn.flatMap(({ look, parts }) =>
    parts.flat().map((part) => ({ look, ...part })),
  );
  points.forEach(({ look, cell, spread }, number) => {
    const at = [chart.x(cell.percent), chart.y(scale * spread.middle)];
    chart.svg.append(pointOf(cell, look, at, measure, number === 0));
  });
}

// The stretches of a method's line that have values: lists of {cell, spread}.
function partsOf(cells, measure) {
  const parts = [[]];
  for (const cell of cells) {
    const spread = spreadOf(cell, measure);
    if (spread) parts.at(-1).push({ cell, spread });
    else parts.push([]);
  }
  return parts.filter((part) => part.length);
}

function drawBand(chart, part, { colour }, scale) {
  const at = (end) =>
    part.map(({ cell, spread }) => [chart.x(cell.percent), chart.y(scale * spread[end])]);
  const points = pathOf([...at("high"), ...at("low").reverse()]);
  const look = { class: "band", fill: colour, stroke: colour, "stroke-width": 2, opacity: 0.16 };
  chart.svg.append(svgNode("polygon", { ...look, points }));
}

kit.muchcharts = { drawMuchCharts };
