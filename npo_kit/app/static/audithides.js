// The figures of the audits' cards on what a model hides: relearning, rounding, mixing.

const { node, tableOf } = kit.dom;
const { known, percent, shown } = kit.words;
const { svgLine, svgText, markerPath, svgNode } = kit.svg;
const { axesIn, drawLine, drawNamed, roomFor } = kit.plot;
const { bandAt, figureIn, originalLook, rangeOf } = kit.auditframe;

const LESSONS = {
  own: "Teach the other half of the facts",
  template: "Teach other authors, in the same wording",
  unrelated: "Teach unrelated facts",
};
const PLAIN = ({ colour }) => ({ colour });

// --- relearning ---

function drawRelearning(box, context) {
  const { own, original, retained } = context;
  const there = Object.keys(LESSONS).filter((name) => own.sets[name] && original.sets[name]);
  const levels = [own, original].flatMap(({ sets }) =>
    there.flatMap((name) => [...sets[name].tested, ...sets[name].taught]),
  );
  const y = rangeOf(levels, retained.start, retained.end);
  for (const name of there) drawLesson(box, context, name, { ...y, high: Math.min(y.high, 0) });
}

function drawLesson(box, { own, original, retained, look, name: model }, name, y) {
  const { rows } = own.sets[name];
  const isOwn = name === "own";
  const words =
    `Solid: ${own.tested} facts that are not taught here. Dotted: the `
    + `${isOwn ? "half that is" : "other half of them, not taught here either"}. ${rows} rows, `
    + `learning rate ${own.lr}. Grey bars: 90 % of the models that never saw it, before`
    + `${isOwn ? " and after the same lesson" : ""}.`;
  const container = figureIn(box, LESSONS[name], `relearning-${name}`, words);
  const chart = axesIn(container, {
    label: `${LESSONS[name]}: log-prob of the facts by step, of the original and of ${model}`,
    height: isOwn ? 320 : 220,
    fills: false,
    right: roomFor(["original", model]),
    x: {
      low: 0,
      high: own.steps.at(-1),
      ticks: own.steps.map((s) => [s, String(s)]),
      label: "steps",
    },
    y: { ...y, label: isOwn ? "log-prob of the fact, nats" : "log-prob, nats" },
  });
  bandAt(chart, chart.x(0), retained.start);
  if (isOwn) bandAt(chart, chart.x(own.steps.at(-1)), retained.end);
  const curve = (values) => own.steps.map((step, i) => [step, values[i]]);
  const pairs = [
    [original, originalLook(), "original"],
    [own, look, model],
  ];
  for (const [{ sets }, { colour }] of pairs) {
    drawLine(chart, curve(sets[name].taught), { colour, dash: "2 5" }, { width: 2 });
  }
  drawNamed(
    chart,
    pairs.map(([{ sets }, each, text]) => ({
      points: curve(sets[name].tested),
      look: PLAIN(each),
      name: text,
      width: 3,
    })),
  );
}

// --- rounding ---

const BITS = ["full", "8", "4", "3"];
const SETS = { forget: "Facts to forget", retain: "Facts to keep" };

function drawCompression(box, context) {
  const { own, original, retained } = context;
  const levels = [own, original].flatMap(({ bits }) =>
    BITS.flatMap((each) => Object.keys(SETS).map((set) => bits[each][set])),
  );
  const y = rangeOf(levels, retained.start, retained.end);
  for (const set of Object.keys(SETS))
    drawRounded(box, context, set, { ...y, high: Math.min(0, y.high) });
  const head = ["bits", "log-prob to forget", "to keep", "ES to forget", "to keep", "same codes"];
  const rows = BITS.map((each) => {
    const { forget, retain, forget_es, retain_es, same_codes } = own.bits[each];
    const scores = [forget, retain, forget_es, retain_es].map((value) => shown(value));
    return [each, ...scores, known(same_codes) ? percent(same_codes) : "–"];
  });
  const words =
    `${percent(own.rounded)} of the model’s parameters are rounded: linear layers, not embeddings. `
    + "Same codes: the share of rounded weights that equal the original’s.";
  box.append(
    node(
      "div",
      { className: "scroll", tabIndex: 0, role: "group", ariaLabel: "Bits, a table" },
      tableOf(head, rows),
    ),
    node("p", { className: "small", textContent: words }),
  );
}

function drawRounded(box, { own, original, retained, look, name }, set, y) {
  const isForget = set === "forget";
  const words = isForget
    ? "Grey bars: 90 % of the models that never saw it, unrounded and at 4 bits."
    : "";
  const container = figureIn(box, SETS[set], `rounding-${set}`, words);
  const chart = axesIn(container, {
    label: `${SETS[set]}: log-prob by bits, of the original and of ${name}`,
    height: 240,
    fills: false,
    right: roomFor(["original", name]),
    x: { low: -0.2, high: 3.2, ticks: BITS.map((each, i) => [i, each]), label: "bits of a weight" },
    y: { ...y, label: "log-prob, nats" },
  });
  if (isForget) {
    bandAt(chart, chart.x(0), retained.start);
    bandAt(chart, chart.x(BITS.indexOf("4")), retained.end);
  }
  const pairs = [
    [original, originalLook(), "original"],
    [own, look, name],
  ];
  drawNamed(
    chart,
    pairs.map(([{ bits }, each, text]) => ({
      points: BITS.map((b, i) => [i, bits[b][set]]),
      look: PLAIN(each),
      name: text,
      width: 3,
    })),
  );
}

// --- mixing ---

function drawMixing(box, { audit, own, look, name }) {
  const words =
    "Weights mixed: at 0 the original, at 1 this model, beyond it further along. The upright "
    + "line is "
    + "the UWC point: the largest share at which rows to keep still have 0.9 of the "
    + "{extraction_strength|ES} that they have "
    + "in the original. There the facts to forget are compared, so that no model forgets more only "
    + "because it broke more. Grey bar: the same of 90 % of the models that never saw it, each at "
    + "its "
    + "own such point.";
  const container = figureIn(box, "From the original to this model", "mixing", words);
  const chart = axesIn(container, {
    label: `Extraction strength by share of ${name} in the mix`,
    height: 360,
    fills: false,
    right: roomFor(["to forget", "to keep"]),
    x: { low: 0, high: own.points.at(-1).a, label: `share of ${name} in the mix`, short: "share" },
    y: { low: 0, high: 1, label: "extraction strength ES" },
  });
  const x = chart.x(own.uwc.a);
  const { top } = chart.size;
  chart.svg.append(
    svgLine([x, top], [x, chart.y(0)], { class: "axis", "stroke-dasharray": "2 5" }),
    svgText(x, top - 7, `UWC point ${shown(own.uwc.a)}`, {
      "text-anchor": x > 200 ? "end" : "start",
    }),
  );
  if (audit.cards.mixing.band) bandAt(chart, x, audit.cards.mixing.band);
  const curve = (key) => own.points.map((point) => [point.a, point[key]]);
  drawNamed(chart, [
    { points: curve("forget_es"), look: PLAIN(look), name: "to forget", width: 3.5 },
    {
      points: curve("retain_es"),
      look: { ...PLAIN(look), dash: "8 4" },
      name: "to keep",
      width: 2.5,
    },
  ]);
  const d = markerPath(look.marker || "o", x, chart.y(own.uwc.forget_es), 8);
  chart.svg.append(svgNode("path", { d, fill: look.colour, "data-uwc": "" }));
}

kit.audithides = { drawRelearning, drawCompression, drawMixing };
