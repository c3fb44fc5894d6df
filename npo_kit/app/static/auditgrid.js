// The grid of audits: a row per model, a column per card, each cell against its band.

const { $, $$, node, button, hued, marked } = kit.dom;
const { known } = kit.words;
const { state } = kit.state;
const { svgNode, svgLine, markerPath } = kit.svg;
const { showCard, hideCard } = kit.card;
const { index } = kit.state;
const { explained } = kit.glossary;
const { change } = kit.address;
const { CONTROLS, originalOf, methodsOf, scaleIn, written, rangeOf, stepWords } = kit.audits;

const SIDES = { says: "says", hides: "hides", supports: "beside", guards: "" };
const HIGH = 34; // pixels of a cell

// --- one cell ---

const at = (percent) => `${percent.toFixed(2)}%`;

function bandIn([low, high], scale) {
  const [from, to] = [scale(low).at, scale(high).at].sort((one, other) => one - other);
  const width = Math.max(to - from, 1);
  return svgNode("rect", { class: "null", x: at(from), width: at(width), y: 3, height: HIGH - 6 });
}

// A marker at a percentage; an arrow where the value is beyond the scale.
function markIn(place, { marker, colour }, r, more) {
  const { at: x, beyond } = place;
  const d = beyond
    ? `M${-6 * beyond},-6L${5 * beyond},0L${-6 * beyond},6z`
    : markerPath(marker || "o", 0, 0, r);
  const look = { d, fill: colour, "data-beyond": beyond, ...more };
  return svgNode("svg", { x: at(x), y: HIGH / 2, overflow: "visible" }, svgNode("path", look));
}

function intervalIn({ lower, upper }, scale, { colour }) {
  const y = HIGH / 2;
  const look = { stroke: colour, "stroke-width": 3, class: "interval" };
  return svgLine([at(scale(lower).at), y], [at(scale(upper).at), y], look);
}

function tickIn(value, scale) {
  const x = at(scale(value).at);
  return svgLine([x, 3], [x, HIGH - 3], { class: "original", "data-tick": "" });
}

// The cell of a model: its band, the original, other seeds faintly, the model with its interval.
function drawnCell(card, audit, others, look, original, scale) {
  const cell = audit.cards[card.name];
  const svg = svgNode("svg", { class: "cell", height: HIGH, "aria-hidden": "true" });
  if (cell.band) svg.append(bandIn(cell.band, scale));
  svg.append(tickIn(original.cards[card.name].value, scale));
  if (!known(cell.value)) return svg;
  for (const other of others) {
    const { value } = other.cards[card.name];
    const hollow = {
      fill: "none",
      stroke: look.colour,
      "stroke-width": 1.5,
      "data-seed": other.seed,
    };
    if (known(value)) svg.append(markIn(scale(value), look, 3.5, hollow));
  }
  if (known(cell.lower)) svg.append(intervalIn(cell, scale, look));
  svg.append(markIn(scale(cell.value), look, 5, { "data-dot": "" }));
  return svg;
}

// The models that never saw the facts, as points.
function drawnPoints(card, points, band, scale) {
  const svg = svgNode("svg", { class: "cell", height: HIGH, "aria-hidden": "true" });
  if (band) svg.append(bandIn(band, scale));
  points.forEach((value, number) => {
    const y = 7 + ((number * 7) % 20);
    svg.append(svgNode("circle", { class: "point", cx: at(scale(value).at), cy: y, r: 2 }));
  });
  return svg;
}

function cellWords(name, card, { cards }, original) {
  const { value, lower, upper, band } = cards[card.name];
  const interval = known(lower) ? ` (95 %: ${rangeOf([lower, upper], card)})` : "";
  const against = band ? `; models that never saw it ${rangeOf(band, card)}` : "";
  const first = written(original.cards[card.name].value, card);
  return `${name}, ${card.title}: ${written(value, card)}${interval}${against}; original ${first}`;
}

// --- rows ---

// A verdict: a word, its two sentences in a card beside it.
function verdictOf({ state: word, says, hides, word: whole }, run) {
  const key = word.replaceAll(/[^a-z]/g, "_");
  const about = index.glossary[key];
  const made = button({ className: `verdict ${key}`, textContent: whole }, () => show());
  const show = () =>
    showCard(
      made,
      node("p", {}, node("b", { textContent: whole })),
      ...(about ? [node("p", { textContent: about.says })] : []),
      node("p", { textContent: `It ${says}.` }),
      node("p", { textContent: sentence(hides) }),
    );
  made.setAttribute("aria-describedby", "npo-card");
  for (const name of ["mouseenter", "focus"]) made.addEventListener(name, show);
  for (const name of ["mouseleave", "blur"]) made.addEventListener(name, hideCard);
  return marked(made, "verdict", run);
}

// "It holds it: …", or a sentence that has its own subject.
function sentence(line) {
  const whole = line.startsWith("holds ") ? `it ${line}` : line;
  return `${whole[0].toUpperCase()}${whole.slice(1)}.`;
}

function headOf(name, more, look) {
  const title = node(
    "span",
    { className: "model" },
    hued(node("b", { className: "swatch" }), look.colour),
    name,
  );
  return node("th", { scope: "row" }, title, " ", ...more);
}

// The checkpoint, and what the other seeds are called.
function aboutWords(audit, others) {
  const seeds = others.map(({ seed, verdict }) => `seed ${seed}: ${verdict.word}`);
  const alike = others.every(({ verdict }) => verdict.word === audit.verdict.word);
  const words = alike ? [`the same verdict in ${others.length + 1} seeds`] : seeds;
  const textContent = [stepWords(audit), ...(others.length ? words : [])].join(" · ");
  return node("span", { className: "small", textContent });
}

function modelRow(audits, { name, look, audit, others }, scales) {
  const original = originalOf(audits);
  const cells = audits.cards.map((card, i) => {
    const svg = drawnCell(card, audit, others, look, original, scales[i]);
    return cellOf(card, cellWords(name, card, audit, original), svg, audit);
  });
  const more = [verdictOf(audit.verdict, audit.run), aboutWords(audit, others)];
  return node("tr", {}, headOf(name, more, look), ...cells);
}

function cellOf(card, words, svg, { run, detailed }) {
  const short = node("span", { className: "title", textContent: card.title });
  const td = node("td", { className: `of-${card.side}` });
  if (!detailed) {
    td.append(short, svg);
    return td;
  }
  const isOpen = state.run === run && state.card === card.name;
  const made = button({ className: "cell", tabIndex: -1 }, () => open(run, card.name), short, svg);
  Object.assign(made, { ariaLabel: words, ariaExpanded: String(isOpen), title: words });
  td.append(marked(made, "cell", `${run} ${card.name}`));
  return td;
}

function retainedRow(audits, scales) {
  const { models, verdicts } = audits.alarms;
  const bands = originalOf(audits).cards;
  const count = (fits) =>
    Object.entries(verdicts).reduce((sum, [word, n]) => sum + (fits(word) ? n : 0), 0);
  const like = count((word) => word.startsWith("retained-like"));
  const others = Object.entries(verdicts).filter(([word]) => word !== "retained-like");
  const rest = others.map(([word, n]) => `${n} ${word}`).join(", ");
  const more = [
    node("span", { className: "verdict", textContent: `${like} of ${models} retained-like` }),
    node("span", {
      className: "small",
      textContent: `each left out in turn${rest && ` · ${rest}`}`,
    }),
  ];
  const cells = audits.cards.map((card, i) => {
    const svg = drawnPoints(card, audits.points[card.name], bands[card.name].band, scales[i]);
    const words = node("span", { className: "title", textContent: card.title });
    return node("td", { className: `of-${card.side}` }, words, svg);
  });
  const head = headOf("never saw it", more, index.styles.retained);
  return marked(node("tr", {}, head, ...cells), "retainedRow", "");
}

// --- the table ---

function open(run, card) {
  change(state.run === run && state.card === card ? { run: "", card: "" } : { run, card });
  $("audit-grid").querySelector("tr.opened")?.scrollIntoView({ block: "start" });
}

function headRows(audits) {
  const of = (side) => audits.cards.filter((card) => card.side === side);
  const groups = Object.entries(SIDES).filter(([side]) => of(side).length);
  const first = node("th", { rowSpan: 2, scope: "col", textContent: "model, verdict" });
  const heads = groups.map(([side, name]) => {
    if (!name)
      return node("th", { rowSpan: 2, scope: "col" }, explained("audit_guards", of(side)[0].title));
    const small = node("span", { className: "small", textContent: audits.sides[side] });
    const look = { colSpan: of(side).length, scope: "colgroup", className: `of-${side}` };
    return node("th", look, node("b", { textContent: name }), " ", small);
  });
  const named = groups.filter(([, name]) => name).flatMap(([side]) => of(side));
  const titles = named.map(({ name, title, side }) =>
    node("th", { scope: "col", className: `of-${side}` }, explained(`audit_${name}`, title)),
  );
  return node("thead", {}, node("tr", {}, first, ...heads), node("tr", {}, ...titles));
}

// The table; where a card is open, `opened(row)` follows its row.
function gridOf(audits, opened) {
  const scales = audits.cards.map((card) => scaleIn(audits, card));
  const original = originalOf(audits);
  const look = index.styles.original;
  const rows = [
    { name: "original", look, audit: original, others: [] },
    ...methodsOf(audits).map(({ look: own, first, others }) => ({
      name: own.label,
      look: own,
      audit: first,
      others,
    })),
  ];
  const made = rows.map((row) => ({ run: row.audit.run, row: modelRow(audits, row, scales) }));
  made.splice(1, 0, { run: CONTROLS.retained, row: retainedRow(audits, scales) });
  const body = node("tbody", {});
  for (const { run, row } of made) {
    body.append(row);
    if (opened && run === opened.run) body.append(opened.row);
  }
  const table = node("table", { className: "audits" }, headRows(audits), body);
  table.addEventListener("keydown", moveCell);
  const stop = table.querySelector('[aria-expanded="true"]') ?? table.querySelector("[data-cell]");
  if (stop) stop.tabIndex = 0; // the cells are one stop of the Tab key; arrows move among them
  return table;
}

function moveCell(event) {
  const here = event.target.closest("[data-cell]");
  if (event.key === "Escape" && state.card) {
    event.stopPropagation();
    change({ run: "", card: "" });
  }
  if (!here || state.present) return;
  const next = nextCell(here, event.key);
  if (!next) return;
  event.preventDefault();
  here.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function nextCell(here, key) {
  const along = { ArrowRight: 1, ArrowLeft: -1 }[key];
  const down = { ArrowDown: 1, ArrowUp: -1 }[key];
  const all = $$("[data-cell]");
  const [run, card] = here.dataset.cell.split(" ");
  const same = (place, value) =>
    all.filter((each) => each.dataset.cell.split(" ")[place] === value);
  if (along) {
    const row = same(0, run);
    return row[row.indexOf(here) + along];
  }
  if (!down) return null;
  const column = same(1, card);
  return column[column.indexOf(here) + down];
}

kit.auditgrid = { gridOf, sentence };
