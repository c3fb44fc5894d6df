// What forget quality is: two distributions of the truth ratio and the largest gap between them.

const { $, keepFocus } = kit.dom;
const { shown } = kit.words;
const { index, runs, state } = kit.state;
const { standOf, compared, placeWords, styleOf } = kit.stands;
const { svgText, svgLine } = kit.svg;
const { axesIn, chartAt, drawLine, emptyChart, nameIn } = kit.plot;
const { fetchScores, scoresOf } = kit.answers;

const PLACE =
  "The percentile says how many of the models that never saw the rows have a smaller gap. ";

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

// The truth ratios of the forget rows where each run stands, by run; empty ones are left out.
function ratiosOf(wanted) {
  const isForget = (_, number) => index.questions[number].set === "forget";
  const ratios = (run) => cumulative(scoresOf(run, "truth_ratio").filter(isForget));
  const pairs = wanted.map((run) => [run.id, ratios(run)]);
  return new Map(pairs.filter(([, { sorted }]) => sorted.length));
}

function drawCdf() {
  const all = [runs.retained, ...compared(), runs.original];
  const wanted = all.filter((run) => run?.steps.length);
  const missing = wanted.filter((run) => !scoresOf(run, "truth_ratio"));
  if (missing.length) {
    Promise.all(missing.map(fetchScores)).then((there) => {
      if (there.every(Boolean) && state.view === "tradeoff") keepFocus(drawCdf);
    });
    return;
  }
  const of = ratiosOf(wanted);
  if (of.size) drawCurves(of);
  else emptyChart("cdf", "No truth ratios in this study.");
}

function drawCurves(of) {
  const ratios = [...of.values()].flatMap(({ sorted }) => sorted).filter((v) => v > 0);
  ratios.sort((a, b) => a - b);
  const decade = (share, round) => {
    const value = ratios[Math.floor(share * (ratios.length - 1))] ?? 1;
    return 10 ** Math.max(-4, Math.min(4, round(Math.log10(value))));
  };
  const low = Math.min(0.1, decade(0.005, Math.floor));
  const high = Math.max(10, decade(0.995, Math.ceil));
  const label = "truth ratio R = P(wrong) / P(right), log scale";
  const chart = axesIn(chartAt("cdf"), {
    label: "Cumulative distribution of the truth ratio over the forget rows",
    height: 460,
    right: 18,
    x: { low, high, log: true, label, short: "truth ratio R (log scale)" },
    y: { low: 0, high: 1, label: "share of forget rows with R or less" },
  });
  const curve = (id, look, more) => {
    const { sorted } = of.get(id);
    const share = (count) => count / sorted.length;
    const stairs = sorted.flatMap((v, i) => [share(i), share(i + 1)].map((s) => [v, s]));
    drawLine(chart, [[low, 0], ...stairs, [high, 1]], look, more);
  };
  if (of.has("original")) curve("original", { colour: "#7f7f7f" }, { width: 1.5 });
  const gaps = compared()
    .filter(({ id }) => of.has(id))
    .map((run) => {
      curve(run.id, styleOf(run));
      return of.has("retained") ? drawGap(chart, run, of) : "";
    });
  if (of.has("retained")) curve("retained", { colour: "currentColor", dash: "7 5" });
  drawCaption(of.has("retained"), gaps);
}

// Draws the gap of a run to the retrained model; returns it in words.
function drawGap({ svg, x: across, y, size }, run, of) {
  const { D, at, ours, theirs } = ksGap(of.get(run.id), of.get("retained"));
  const { colour } = styleOf(run);
  const isA = run.id === state.a;
  const x = across(at) + (isA ? -2 : 2);
  const look = { class: "gap", "data-gap": run.id, stroke: colour, "stroke-width": 5 };
  const beside = (y(ours) + y(theirs)) / 2 + (isA ? -2 : 16);
  const left = x > size.width - size.right - 80;
  const name = { ...nameIn(colour), "font-weight": 700, "text-anchor": left ? "end" : "start" };
  svg.append(
    svgLine([x, y(ours)], [x, y(theirs)], look),
    svgText(x + (left ? -8 : 8), beside, `D = ${D.toFixed(2)}`, name),
  );
  const { place } = standOf(run);
  const p = shown(run.metrics.forget_quality[place]);
  return `${run.label}: D = ${D.toFixed(3)}, p = ${p}${placeWords(run, place)}`;
}

function drawCaption(referred, gaps) {
  const step = " at the current step";
  const when = state.match === "step" ? step : ", at the evaluation nearest to the level";
  const against =
    ", dashed the model retrained without them. The bar is the largest gap D to the "
    + "dashed curve; forget quality is the p-value of that gap. "
    + (index.null ? PLACE : "");
  $("cdf-caption").textContent =
    `Each curve sorts the ${index.rows.forget} forget rows by their truth ratio${when}: grey the `
    + `original${referred ? against + gaps.join("; ") : ""}.`;
}

kit.quality = { drawCdf };
