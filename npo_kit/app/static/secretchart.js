// The chart of a visitor's secrets: how likely the true answers are, step by step.

const { $ } = kit.dom;
const { index } = kit.state;
const { chartAt, axesIn, drawNamed, roomFor } = kit.plot;
const { svgLine, svgText } = kit.svg;
const { secret } = kit.secret;

const OWN = {
  untouched: { colour: "currentColor", dash: "7 5" },
  taught: { colour: "#7f7f7f", dash: "" },
};
const lookOf = (name) => OWN[name] ?? index.styles[name];
// Its name in a sentence and in the chart.
const nameOf = (name) => index.styles[name]?.label ?? name;

const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;

function drawSecretChart() {
  const { models, phase, taught, total } = secret;
  $("secret-figure").hidden = !models.taught?.history.length;
  if ($("secret-figure").hidden) return;
  const narrow = chartAt("secret").clientWidth < 560;
  const from = phase === "teaching" ? 0 : taught; // where unlearning begins
  const lineOf = (name, of, words, width) => ({
    points: models[name].history.map((each) => [
      (name === "taught" ? 0 : from) + each.step,
      of(each),
    ]),
    look: lookOf(name),
    width,
    name: words && (narrow ? nameOf(name) : `${nameOf(name)}, ${words}`),
  });
  const shown = ["ga", "npo_rt"].filter((name) => models[name]?.history.length);
  const last = shown.length ? shown : ["taught"];
  const lines = ["taught", ...shown].flatMap((name) => [
    lineOf(name, ({ secrets }) => mean(secrets), last.includes(name) && "secrets", 4),
    lineOf(name, ({ kept }) => kept, last.includes(name) && "others", 1.5),
  ]);
  const high = shown.length ? from + total : Math.max(20, models.taught.step);
  const chart = axesIn(chartAt("secret"), {
    label: "Probability of the true answers by step: secrets bold, other questions thin",
    height: 300,
    right: roomFor([narrow ? "NPO+RT" : "NPO+RT, secrets"]),
    x: { low: 0, high, label: "step of teaching, then of unlearning", short: "step" },
    y: { low: 0, high: 1, label: "probability per token" },
  });
  if (from) drawTurn(chart, from);
  drawNamed(chart, lines);
}

// Where teaching ended.
function drawTurn({ svg, x, size: { top, height, bottom } }, step) {
  const ends = [top, height - bottom].map((y) => [x(step), y]);
  svg.append(
    svgLine(...ends, { class: "axis", "stroke-dasharray": "3 4" }),
    svgText(x(step), top - 8, "taught", { class: "faint", "text-anchor": "middle" }),
  );
}

kit.secretchart = { lookOf, nameOf, mean, drawSecretChart };
