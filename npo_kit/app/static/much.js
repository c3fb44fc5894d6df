// How much can be forgotten: controls, what is seen in words, and the numbers as tables.

const { $, keepFocus, node, option, tableOf } = kit.dom;
const { known } = kit.words;
const { index, state } = kit.state;
const { draw } = kit.address;
const { fetchSplits, splitsThere, methodsOf, percentsOf, rangeWords } = kit.splits;
const { valueOf, written } = kit.splits;
const { drawMuchCharts } = kit.muchcharts;

const TOLD = ["npo_rt", "ga_rt"]; // in the sentence above the charts
const TOLD_AT = 50; // per cent, where the study has it
const NONE =
  "No study of several splits travels with this copy of the kit: make one with "
  + "npo-kit study pocket-splits --out runs/splits";
const RULE =
  "The rule takes the most useful checkpoint of those with p ≥ 0.05, else the one with the "
  + "highest p. ";
const PLACE =
  "Percentile: of models that never saw the forgotten authors, how many lie nearer to it.";
const FAR =
  "They never forgot as much as the retained-only model, or their utility could not be measured.";
const COLUMNS = {
  kept: "utility kept",
  step: "step",
  p: "p",
  d: "D",
  percentile: "percentile",
  forget: "P(forget)",
};
const LACKS = {
  equal: "did not get there",
  best: "have no utility, since scores are not finite",
  last: "have no utility, since scores are not finite",
};

function drawMuch() {
  const splits = splitsThere();
  $("much").hidden = !splits?.runs;
  $("much-none").hidden = Boolean(splits?.runs);
  $("much-none").textContent = splits ? NONE : "Loading …";
  if (!splits) {
    fetchSplits().then((there) => {
      if (state.view !== "much") return;
      if (there) keepFocus(draw);
      else $("much-none").textContent = "The study could not be read.";
    });
    return;
  }
  if (!splits.runs) return;
  fillControls(splits);
  $("much-lead").replaceChildren(...leadWords(splits));
  drawMuchCharts(splits);
  $("much-caption").textContent = captionWords(splits);
  $("much-quality-caption").textContent = qualityWords(splits);
  $("much-table").replaceChildren(runsTable(splits));
  $("much-nulls").replaceChildren(nullsTable(splits));
}

// "equal epochs" of "equal epochs: each run …".
const shortName = (reading) => reading.split(/[:,]/)[0];

function fillControls({ readings, cuts }) {
  const fill = (select, names) => {
    if (!select.options.length) {
      select.append(...Object.entries(names).map(([value, name]) => option(value, name)));
    }
  };
  const short = Object.entries(readings).map(([value, name]) => [value, shortName(name)]);
  fill($("reading"), Object.fromEntries(short));
  fill($("cut"), cuts);
  for (const name of ["reading", "cut", "quality"]) $(name).value = state[name];
}

// --- in words ---

// What two methods keep at one percentage, of the runs that are shown; and which runs these are.
function leadWords(splits) {
  const percents = percentsOf(splits);
  const at = percents.includes(TOLD_AT) ? TOLD_AT : percents.at(-1);
  const methods = methodsOf(splits).filter(({ method }) => TOLD.includes(method));
  methods.sort((one, other) => TOLD.indexOf(one.method) - TOLD.indexOf(other.method));
  const told = methods.map(({ look, cells }) => {
    const cell = cells.find((each) => each.percent === at);
    return `${look.label} ${keptWords(cell)}`;
  });
  const reading = shortName(splits.readings[state.reading]);
  const where = `${reading[0].toUpperCase()}${reading.slice(1)}, ${splits.cuts[state.cut]}.`;
  const sentence = `When ${at} % of the authors are to be forgotten, ${told.join(", ")}. `;
  return [sentence, node("span", { className: "small", textContent: where })];
}

function keptWords(cell) {
  const kept = rangeWords(cell, "kept");
  const lack = lackOf(cell);
  if (!cell.runs.length) return "was not run";
  if (!kept) return LACKS[state.cut];
  const besides = lack && ` (${lack} seeds ${LACKS[state.cut]})`;
  return `keeps ${kept} of its utility${besides}`;
}

// "2 of 3" runs of a cell without a utility, or "".
function lackOf({ runs }) {
  const lacking = runs.filter((run) => !known(valueOf(run, "kept"))).length;
  return lacking ? `${lacking} of ${runs.length}` : "";
}

function captionWords(splits) {
  const methods = methodsOf(splits);
  const cells = methods.flatMap((each) => each.cells);
  const counts = [...new Set(cells.map(({ runs }) => runs.length))].filter(Boolean).sort();
  return (
    `Recorded, ${splits.readings[state.reading]}. Lines: the median of ${counts.join(" or ")} `
    + "seeds; pale bands: from the least to the greatest. 100 %: the model before unlearning. "
    + (state.cut === "best" ? RULE : "")
    + missingWords(cells)
  );
}

// What leaves a gap in the lines, or is missing in a band.
function missingWords(cells) {
  const nameOf = ({ method, percent }) => `${index.styles[method].label} at ${percent} %`;
  const lacking = cells.filter(lackOf).map((cell) => `${nameOf(cell)} (${lackOf(cell)})`);
  const absent = cells.filter(({ runs }) => !runs.length).map(nameOf);
  const sentences = [
    lacking.length && `Seeds that ${LACKS[state.cut]}: ${lacking.join(", ")}.`,
    lacking.length && state.cut === "equal" && FAR,
    absent.length && `Not run: ${absent.join(", ")}.`,
  ];
  return sentences.filter(Boolean).join(" ");
}

function qualityWords(splits) {
  const nulls = Object.values(splits.nulls).some(Boolean);
  const band = nulls
    ? " The grey band holds 90 % of the pairs of models that never saw the forgotten authors. "
      + "A model below it differs from the retained-only model more than they differ from each "
      + "other, also where p is above 0.05 and the test does not tell them apart."
    : " No models that never saw the rows are recorded to compare with.";
  const meaning = state.quality === "percentile" ? ` ${PLACE}` : "";
  const up = "Recorded. Up is nearer to the model trained without the forgotten authors.";
  const foot = state.quality === "p" ? " A p below 10⁻¹² is drawn at the foot." : "";
  return up + meaning + band + foot;
}

// --- tables ---

function runsTable(splits) {
  const columns = Object.keys(splits.cuts).flatMap((cut) =>
    Object.keys(COLUMNS).map((measure) => ({ cut, measure })),
  );
  const head = columns.map(({ cut, measure }) => `${COLUMNS[measure]}, ${splits.cuts[cut]}`);
  const rows = methodsOf(splits).flatMap(({ look, cells }) =>
    cells.flatMap(({ percent, runs }) =>
      runs.map((run) => [
        look.label,
        `${percent} %`,
        run.seed,
        ...columns.map(({ cut, measure }) => written(valueOf(run, measure, cut), measure)),
      ]),
    ),
  );
  return tableOf(["method", "forgotten", "seed", ...head], rows);
}

function nullsTable({ nulls }) {
  const there = Object.entries(nulls).filter(([, band]) => band);
  const at = ["5 %", "median", "95 %"];
  const head = ["forgotten", ...at.map((q) => `D, ${q}`), ...at.map((q) => `p at D, ${q}`)];
  const rows = there.map(([percent, band]) => [
    `${percent} %`,
    ...band.map(([d]) => written(d, "d")),
    ...band.map(([, p]) => written(p, "p")),
  ]);
  return tableOf(head, rows);
}

kit.much = { drawMuch };
