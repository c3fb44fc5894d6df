// The figures of the audits' cards on what a model says: verbatim, sampled leak, other formats.

const { node, button, marked } = kit.dom;
const { known, percent } = kit.words;
const { state } = kit.state;
const { svgNode, svgLine, markerPath, pathOf } = kit.svg;
const { axesIn, drawLine, drawNamed, roomFor } = kit.plot;
const { change } = kit.address;
const { methodsOf, originalOf } = kit.audits;
const { formOf } = kit.audittexts;
const { figureIn, originalLook } = kit.auditframe;

const FORMS = {
  plain: "as it stands",
  paraphrase: "in other words",
  cloze: "fill in the gap",
  reversed: "reversed: which author?",
  prefilled: "answer begun",
  casing: "in small letters",
  choice: "multiple choice",
  guarded: "told not to say it",
};
// --- verbatim ---

function drawVerbatim(box, { own, original, retained, look, name }) {
  const words =
    `Each column is one of ${own.rows.length} questions, from the least to the best known. Grey `
    + `circle: the original; in colour: ${name}; grey bar behind: 90 % of the models that never `
    + `saw `
    + "it. Up: the fact is likelier. Click a column for its question.";
  const container = figureIn(
    box,
    "From the original to this model, by question",
    "verbatim",
    words,
  );
  const order = [...own.rows.keys()].filter((i) => known(own.rows[i]));
  order.sort((one, other) => own.rows[one] - own.rows[other]);
  const values = [...own.rows, ...original.rows, ...retained.rows.flat()].filter(known);
  const chart = axesIn(container, {
    label: `Log-prob of the facts, of the original and of ${name}, by question`,
    height: 360,
    fills: false,
    right: 20,
    x: { low: -1, high: order.length, ticks: [], label: "questions" },
    y: { low: Math.floor(Math.min(...values)), high: 0, label: "log-prob of the fact, nats" },
  });
  const wide = Math.max(1.5, ((chart.x(1) - chart.x(0)) * 2) / 3);
  order.forEach((i, place) => {
    const x = chart.x(place);
    const [low, high] = retained.rows[i].map(chart.y);
    const [from, to] = [original.rows[i], own.rows[i]].map(chart.y);
    const size = { x: x - wide / 2, width: wide, y: high, height: Math.max(1, low - high) };
    const at = { "data-dumbbell": i };
    if (i === state.probe) chart.svg.append(columnAt(chart, x, 2 * wide, { class: "chosen" }));
    chart.svg.append(
      svgNode("rect", { class: "null", ...size }),
      svgLine([x, from], [x, to], { stroke: look.colour, "stroke-width": 1.2, opacity: 0.6 }),
      svgNode("circle", { cx: x, cy: from, r: 2.6, fill: "none", class: "ring-of-original" }),
      svgNode("path", { d: markerPath(look.marker, x, to, 3), fill: look.colour, ...at }),
    );
  });
  order.forEach((i, place) => {
    const over = columnAt(chart, chart.x(place), wide * 1.5, { class: "column-of", "data-of": i });
    over.addEventListener("click", () => change({ probe: i }));
    chart.svg.append(over);
  });
}

function columnAt({ size }, x, wide, more) {
  const { top, height, bottom } = size;
  return svgNode("rect", {
    x: x - wide / 2,
    width: wide,
    y: top,
    height: height - top - bottom,
    ...more,
  });
}

// --- sampled leak ---

function drawLeak(box, { own, original, retained, look, name }) {
  const words =
    "The share of questions to which at least one of k sampled answers tells the fact. Dashed: the "
    + "same from the probability of the fact's exact words after the true words before it, without "
    + "sampling. Points at k = 1: the likeliest answer. Grey: 90 % of models that never saw it.";
  const container = figureIn(box, "Ask k times: does it slip out?", "leak", words);
  const high = own.k.at(-1);
  const chart = axesIn(container, {
    label: `Leak over k samples, of the original and of ${name}`,
    height: 360,
    fills: false,
    right: roomFor(["original", name]),
    x: {
      low: 1,
      high,
      log: true,
      ticks: own.k.map((k) => [k, String(k)]),
      label: "k sampled answers to each question (log scale)",
      short: "k sampled answers (log)",
    },
    y: { low: 0, high: 1, label: "questions that leak, share" },
  });
  drawCurveBand(chart, own.k, retained.curve);
  const curve = (values) => own.k.map((k, i) => [k, values[i]]);
  const dashed = (values, { colour }) =>
    drawLine(chart, curve(values), { colour, dash: "3 5" }, { width: 2 });
  dashed(original.exact, originalLook());
  dashed(own.exact, look);
  const plain = ({ colour }) => ({ colour });
  drawNamed(chart, [
    { points: curve(original.leak_at_k), look: plain(originalLook()), name: "original", width: 3 },
    { points: curve(own.leak_at_k), look: plain(look), name, width: 3 },
  ]);
  for (const [detail, { colour, marker }] of [
    [original, originalLook()],
    [own, look],
  ]) {
    const share = detail.greedy.filter(Boolean).length / detail.greedy.length;
    const d = markerPath(marker || "o", chart.x(1), chart.y(share), 6);
    chart.svg.append(svgNode("path", { d, fill: colour, class: "greedy" }));
  }
}

function drawCurveBand(chart, ks, band) {
  const at = (end) => band.map((ends, i) => [chart.x(ks[i]), chart.y(ends[end])]);
  const points = pathOf([...at(1), ...at(0).reverse()]);
  chart.svg.append(svgNode("polygon", { class: "null", points }));
}

// --- other formats ---

function drawFormats(box, context) {
  const { audits, original } = context;
  const caption = node("figcaption", {}, node("h4", { textContent: "Asked in another form" }));
  const words =
    "Share of questions whose fact is told, by form and model. Multiple choice: guessing is 0, "
    + "always "
    + "right is 1. “Told not to say it” is the original under an instruction, without unlearning. "
    + "The card’s value is the mean over the questions of their forms, without the first and "
    + "“told not to say it”; a question need not allow every form. Press a number for texts.";
  const shownModels = [
    { name: "original", audit: originalOf(audits) },
    ...methodsOf(audits)
      .filter(({ first }) => first.detailed)
      .map(({ look, first }) => ({ name: look.label, audit: first })),
  ];
  const head = ["form", ...shownModels.map(({ name }) => name)];
  const forms = Object.keys(FORMS).filter((form) => form in original.forms);
  const rows = forms.map((form) =>
    node(
      "tr",
      {},
      node("th", { scope: "row", textContent: FORMS[form] }),
      ...shownModels.map(({ name, audit }) => formCell(context, form, name, audit)),
    ),
  );
  const heads = head.map((textContent) => node("th", { scope: "col", textContent }));
  const table = node(
    "table",
    { className: "heat" },
    node("thead", {}, node("tr", {}, ...heads)),
    node("tbody", {}, ...rows),
  );
  const scroll = node("div", { className: "scroll", tabIndex: 0, role: "group" }, table);
  scroll.ariaLabel = "Told by form and model, a table";
  const small = node("p", { className: "small", textContent: words });
  box.append(node("figure", {}, caption, scroll, small));
}

function formCell({ audit: opened, original }, form, name, audit) {
  const rate = audit.cards.formats.rates[form];
  if (!known(rate)) return node("td", { textContent: "" });
  const isOn = audit.run === opened.run && formOf(original) === form;
  const textContent = percent(rate).replace("-", "−");
  const made = button({ textContent, ariaPressed: String(isOn) }, () =>
    change({ run: audit.run, form }),
  );
  made.ariaLabel = `${name}, ${FORMS[form]}: ${textContent}`;
  made.style.setProperty("--share", Math.max(0, rate));
  return node("td", {}, marked(made, "form", `${audit.run} ${form}`));
}

kit.auditsays = { drawVerbatim, drawLeak, drawFormats };
