// An opened card of the audits: what it asks, what it found, its figure, and texts.

const { node, button, marked } = kit.dom;
const { known, percent } = kit.words;
const { index } = kit.state;
const { svgNode, svgLine, markerPath } = kit.svg;
const { axesIn } = kit.plot;
const { change } = kit.address;
const { sentence } = kit.auditgrid;
const { CONTROLS, detailThere, fetchDetail, originalOf, rangeOf, stepWords, written } = kit.audits;
const { textsOf } = kit.audittexts;
const { FIGURES } = kit.auditfigures;

const lookOf = ({ method }) => index.styles[method];
const nameOf = (audit) => lookOf(audit).label;

// The audits whose details a card shows: the opened one, the original, those that never saw it.
const neededFor = (audits, audit) => ({
  own: audit,
  original: originalOf(audits),
  retained: { run: CONTROLS.retained, at: "last" },
});

// {own, original, retained}: what was fetched; null while a part is not there.
function partsOf(audits, { audit, card }) {
  const needed = Object.entries(neededFor(audits, audit));
  const parts = needed.map(([name, each]) => [name, detailThere(each, card.name)]);
  return parts.every(([, detail]) => detail) ? Object.fromEntries(parts) : null;
}

async function fetchParts(audits, { audit, card }) {
  const needed = Object.values(neededFor(audits, audit));
  const there = await Promise.all(needed.map((each) => fetchDetail(each, card.name)));
  return there.every(Boolean);
}

// The row under an audit's: {run, row, draw}; `draw` fills it once it is in the page.
function openedRow(audits, opened) {
  const { audit, card } = opened;
  const parts = partsOf(audits, opened);
  const box = node("section", { className: "audit-card" });
  box.setAttribute("aria-label", `${nameOf(audit)}, ${card.title}`);
  const cell = node("td", { colSpan: audits.cards.length + 1 }, box);
  const draw = () => {
    box.append(headOf(opened), ...findingOf(audits, opened));
    if (!parts) box.append(node("p", { className: "waiting", textContent: "Loading …" }));
    else fill(box, { ...parts, audits, audit, card, look: lookOf(audit), name: nameOf(audit) });
  };
  return { run: audit.run, row: node("tr", { className: "opened" }, cell), parts, draw };
}

function headOf({ audit, card }) {
  const close = button({ className: "quiet", textContent: "Close" }, () =>
    change({ run: "", card: "" }),
  );
  const title = node("h3", { textContent: `${nameOf(audit)} · ${card.title}` });
  const step = node("span", { className: "small", textContent: stepWords(audit) });
  const chip = node("span", { className: "chip", textContent: "recorded" });
  return node(
    "div",
    { className: "card-head" },
    title,
    step,
    chip,
    marked(close, "action", "unaudit"),
  );
}

// The question of the card, its number against the band, and the verdict's two lines.
function findingOf(audits, { audit, card }) {
  const { value, lower, upper, band } = audit.cards[card.name];
  const { asks, unit } = card;
  const interval = known(lower) ? ` (95 %: ${rangeOf([lower, upper], card)})` : "";
  const against = band
    ? `; 90 % of ${audits.alarms.models} models that never saw it: ${rangeOf(band, card)}`
    : "";
  const first = written(originalOf(audits).cards[card.name].value, card);
  const numbers =
    `${written(value, card)}${interval}, ${unit}${against}; the original: ${first}. `
    + `${placeWords(audit.cards[card.name])}`;
  const { word, says, hides } = audit.verdict;
  return [
    node("p", { className: "asks", textContent: `${asks[0].toUpperCase()}${asks.slice(1)}` }),
    node("p", { textContent: numbers }),
    node(
      "p",
      {},
      "Verdict of all cards: ",
      node("b", { textContent: word }),
      `. ${sentence(`it ${says}`)} ` + sentence(hides),
    ),
  ];
}

// Where the value lies, and how sure that is.
function placeWords({ value, band, above, below }) {
  if (!band || !known(value)) return "";
  const sure = (p) => {
    const draws = p === 0 ? "in every draw" : `in ${percent(1 - p)} of the draws`;
    const counted = p > 0.05 ? ", which is not enough to count" : "";
    return `${draws} of a bootstrap over authors${counted}`;
  };
  if (value > band[1]) return `It lies above the band, ${sure(above)}.`;
  if (value < band[0]) return `It lies below the band, ${sure(below)}.`;
  return "It lies in the band.";
}

function fill(box, context) {
  const { draw, layout, hasTexts } = FIGURES[context.card.name];
  const figures = node("div", { className: "figures" });
  const side = node("div", { className: "side" });
  const [strip, texts] = [node("div"), node("div")];
  side.append(strip, texts);
  box.append(node("div", { className: `parts ${layout}` }, figures, side));
  drawStrip(strip, context);
  draw(figures, context);
  if (hasTexts) texts.append(...textsOf(context));
}

// --- all models in a row ---

function drawStrip(box, context) {
  const { audits, audit, card, look, name } = context;
  const { value, lower, upper, band } = audit.cards[card.name];
  const points = audits.points[card.name];
  const first = originalOf(audits).cards[card.name].value;
  const values = [value, lower, upper, first, ...points, ...(band ?? [])].filter(known);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = 0.06 * (most - least || 1);
  const ends = [least - room, most + room]; // as in the grid, right is more of the facts
  const [low, high] = card.more ? ends : ends.toReversed();
  const container = marked(node("div"), "chart", `audit-strip-${card.name}`);
  const words =
    "Grey points: models that never saw it, each one; band: 90 % of them. "
    + `Grey line: the original. In colour: ${name} with its 95 % interval.`;
  const small = node("p", { className: "small", textContent: words });
  box.append(node("figure", {}, container, small));
  const chart = axesIn(container, {
    label: `${card.title} of ${name}, of the original and of models that never saw it`,
    height: 150,
    fills: false,
    right: 20,
    x: { low, high, label: card.unit, short: shortUnit(card.unit) },
    y: { low: 0, high: 1, ticks: [], label: "" },
  });
  const [top, bottom] = [chart.y(1), chart.y(0)];
  if (band) {
    const [from, to] = band.map(chart.x).toSorted((one, other) => one - other);
    const size = { x: from, width: Math.max(2, to - from), y: top, height: bottom - top };
    chart.svg.append(svgNode("rect", { class: "null", ...size }));
  }
  points.forEach((point, number) => {
    const cy = top + 12 + ((number * 13) % (bottom - top - 24));
    chart.svg.append(svgNode("circle", { class: "point", cx: chart.x(point), cy, r: 3 }));
  });
  const x = chart.x(first);
  chart.svg.append(svgLine([x, top], [x, bottom], { class: "original" }));
  if (!known(value)) return;
  const y = (top + bottom) / 2;
  const wide = { stroke: look.colour, "stroke-width": 4 };
  if (known(lower)) chart.svg.append(svgLine([chart.x(lower), y], [chart.x(upper), y], wide));
  const d = markerPath(look.marker, chart.x(value), y, 7);
  chart.svg.append(svgNode("path", { d, fill: look.colour }));
}

const shortUnit = (unit) => unit.split(/[:,]/)[0];

kit.auditcard = { fetchParts, openedRow };
