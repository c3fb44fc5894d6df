// The figures of the audits' cards that stand beside: depth, membership, and what is still useful.

const { node, tableOf } = kit.dom;
const { known, percent, shown } = kit.words;
const { svgNode, svgLine, svgText, polyline } = kit.svg;
const { axesIn, drawNamed, roomFor } = kit.plot;
const { withWords } = kit.glossary;
const { figureIn, originalLook, rangeOf } = kit.auditframe;

const THIN = 4; // pixels of a square that has no room for an outline
const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const tableIn = (box, label, head, rows) =>
  box.append(
    node(
      "div",
      { className: "scroll", tabIndex: 0, role: "group", ariaLabel: label },
      tableOf(head, rows),
    ),
  );

// --- depth ---

function drawDepth(box, { own, original, look, name }) {
  const layers = own.audited.length;
  const words =
    `Each square: ${name}’s states after one layer are put into the original. Colour: the share of `
    + "the fact that is lost, of what a model without it would lose (from 0, pale, to 1 and more, "
    + "dark). "
    + "Palest: layers where the original does not encode the fact, which do not count. "
    + "Strip below: {audit_depth|UDS} by question.";
  const container = figureIn(
    box,
    "Where has the fact gone, by layer and question?",
    "depth",
    words,
  );
  const order = [...own.rows.keys()].filter((i) => known(own.rows[i]));
  order.sort((one, other) => own.rows[one] - own.rows[other]);
  const ticks = Array.from({ length: layers }, (_, i) => [i + 1, String(i + 1)]);
  const chart = axesIn(container, {
    label: `Share of each fact that is lost, by layer and question, of ${name}`,
    height: 120 + 50 * layers,
    fills: false,
    right: 20,
    x: {
      low: -1,
      high: order.length,
      ticks: [],
      label: "questions, from the least to the most lost",
      short: "questions",
    },
    y: { low: -0.6, high: layers + 0.6, ticks: [[0, "UDS"], ...ticks], label: "after layer" },
  });
  drawSquares(chart, own, order, look);
  drawLayers(box, own, original, name);
}

// A square for each layer and question, and the strip of UDS in row 0.
function drawSquares(chart, own, order, { colour }) {
  const wide = chart.x(1) - chart.x(0);
  const high = (chart.y(0) - chart.y(1)) * 0.9;
  const square = (place, layer, share, more) =>
    svgNode("rect", {
      x: chart.x(place) - wide / 2,
      y: chart.y(layer) - high / 2,
      width: Math.max(1, wide - 0.6),
      height: high,
      fill: colour,
      "fill-opacity": known(share) ? 0.08 + 0.92 * Math.min(1, Math.max(0, share)) : 0.03,
      ...more,
    });
  order.forEach((i, place) => {
    own.ratios.forEach((ratios, layer) => {
      const look = known(ratios[i]) && wide > THIN ? { class: "encoded" } : {};
      chart.svg.append(square(place, layer + 1, ratios[i], { ...look, "data-square": "" }));
    });
    chart.svg.append(square(place, 0, own.rows[i], { height: high * 0.6 }));
  });
}

function drawLayers(box, own, original, name) {
  const rows = own.audited.map((lost, layer) => {
    const ratios = own.ratios[layer].filter(known).sort((one, other) => one - other);
    const middle = ratios.length ? ratios[Math.floor(ratios.length / 2)] : null;
    const numbers = [meanOf(lost), meanOf(own.retained[layer]), middle, own.retain_rows[layer]];
    const lens = [own.lens[layer], original.lens[layer]];
    return [layer + 1, ...[...numbers, ...lens].map((value) => shown(value))];
  });
  const head = [
    "layer",
    "lost",
    "without it",
    "median ratio",
    "lost to keep",
    "lens",
    "lens, original",
  ];
  tableIn(box, "Depth by layer, a table", head, rows);
  const words =
    `{nat|Nats}, means over questions. Lost: what the original loses with ${name}’s states; `
    + `without it: `
    + "with the retained-only model’s. The ratio is not cut at 1: far above it, and with losses on "
    + "rows to keep, a model is broken rather than clean. {logit_lens|Lens}: log-prob of the fact "
    + "if the model’s "
    + "head reads this layer already.";
  box.append(node("p", { className: "small" }, ...withWords(words)));
}

// --- membership ---

const ATTACKS = { loss: "Loss", zlib: "Zlib", min_k: "Min-40 %", min_k_plus_plus: "Min-40 %++" };

// Points of a ROC curve: a lower score looks more like a row that was learned.
function rocOf({ forget, holdout }) {
  const cuts = [-Infinity, ...forget, ...holdout].sort((one, other) => one - other);
  const share = (scores, cut) => scores.filter((score) => score <= cut).length / scores.length;
  return cuts.map((cut) => [share(holdout, cut), share(forget, cut)]);
}

function drawMembership(box, { own, original, look, name }) {
  const words =
    `${own.scores.forget.length} forgotten rows against ${own.scores.holdout.length} rows of `
    + `authors `
    + "that no model learned, by Min-40 %: how many of each look learned as the cut moves (a "
    + "{roc|ROC curve}). On the "
    + "diagonal they cannot be told apart; far below it, the forgotten rows stand out as well.";
  const container = figureIn(box, "Can the forgotten rows be told apart?", "membership", words);
  const share = { low: 0, high: 1 };
  const chart = axesIn(container, {
    label: `ROC curve of Min-40 %, of the original and of ${name}`,
    height: 380,
    fills: false,
    right: roomFor(["original", name]),
    x: {
      ...share,
      label: "rows nobody learned that look learned, share",
      short: "holdout rows, share",
    },
    y: { ...share, label: "forgotten rows that look learned" },
  });
  const ends = [
    [0, 0],
    [1, 1],
  ].map(([x, y]) => [chart.x(x), chart.y(y)]);
  chart.svg.append(svgLine(...ends, { class: "axis", "stroke-dasharray": "2 5" }));
  const plain = ({ colour }) => ({ colour });
  drawNamed(chart, [
    { points: rocOf(original.scores), look: plain(originalLook()), name: "original", width: 3 },
    { points: rocOf(own.scores), look: plain(look), name, width: 3 },
  ]);
  const rows = Object.entries(ATTACKS).map(([key, attack]) => [
    attack,
    ...[own.auc, original.auc, own.auc_retained].map((of) => shown(of[key], 3)),
  ]);
  tableIn(box, "AUC by attack, a table", ["AUC", name, "original", "retained-only"], rows);
  const sentence =
    `{privleak|PrivLeak} ${shown(own.privleak, 1)} ± ${shown(own.privleak_error, 1)} (one `
    + `standard error); `
    + "0 is as the retained-only model, below it too little is forgotten, above it too much. The "
    + `AUC’s own error is ${shown(own.auc_error, 3)}.`;
  box.append(node("p", {}, ...withWords(sentence)));
}

// --- guards ---

function drawGuards(box, { own, original, look, name }) {
  const words =
    "How likely the original finds each answer to a question to forget, a line per answer. Far to "
    + "the left is text that it would never write.";
  const container = figureIn(box, "Are its answers still language?", "guards", words);
  const pairs = [
    [original, originalLook(), "original"],
    [own, look, name],
  ];
  const chart = axesIn(container, {
    label: `Fluency of the answers of the original and of ${name}`,
    height: 220,
    fills: false,
    right: 20,
    x: { ...rangeOf(own.fluency, original.fluency), label: "fluency: log-prob of a token, nats" },
    y: { low: -0.2, high: 2, ticks: [], label: "" },
  });
  pairs.forEach(([{ fluency }, { colour }, text], i) => {
    const [top, bottom] = [chart.y(1.55 - i), chart.y(1.0 - i)];
    for (const value of fluency.filter(known)) {
      const at = chart.x(value);
      const stroke = { stroke: colour, "stroke-width": 2, opacity: 0.5 };
      chart.svg.append(
        polyline(
          [
            [at, top],
            [at, bottom],
          ],
          { colour },
          stroke,
        ),
      );
    }
    chart.svg.append(svgText(chart.size.left, top - 6, text, { class: "halo" }));
  });
  const rows = pairs.map(([detail, , text]) => [
    text,
    percent(meanOf(detail.rows.filter(known))),
    shown(detail.mean_logps),
    shown(meanOf(detail.fluency.filter(known))),
    percent(meanOf(detail.repetition)),
  ]);
  const head = ["", "facts to keep told", "their log-prob", "fluency", "repeated"];
  tableIn(box, "What it can still do, a table", head, rows);
}

kit.auditbeside = { drawDepth, drawMembership, drawGuards };
