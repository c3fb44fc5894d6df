// The points of the charts of how much can be forgotten, and the card that each of them has.

const { $$, node, tableOf } = kit.dom;
const { index } = kit.state;
const { svgNode, markerPath } = kit.svg;
const { showCard, hideCard } = kit.card;
const { rangeWords, valueOf, written } = kit.splits;

const CLOSE = 12; // pixels within which points lie on one another
let pressed = { dot: null, times: 0 }; // the point pressed last, and how often since

function pointOf(cell, { colour, marker, label }, [x, y], measure, first) {
  const { method, percent } = cell;
  const words = `${label}, ${percent} %: ${rangeWords(cell, measure)}`;
  const made = svgNode("path", {
    class: "dot",
    d: markerPath(marker, x, y, 6),
    fill: colour,
    stroke: "transparent",
    "stroke-width": 10,
    role: "button",
    tabindex: first ? 0 : -1,
    "aria-label": words,
    "aria-describedby": "npo-card",
    "data-much": `${method} ${percent}`,
  });
  const show = () => showPoint(made, cell);
  made.addEventListener("mouseenter", show);
  made.addEventListener("focus", show);
  made.addEventListener("click", () => pressPoint(made));
  made.addEventListener("mouseleave", leaveCard);
  made.addEventListener("blur", hidePoint);
  made.addEventListener("keydown", movePoint);
  return made;
}

// The points that lie on one another where `here` is, itself first.
function pointsAt(here) {
  const centre = (each) => {
    const { left, right, top, bottom } = each.getBoundingClientRect();
    return [(left + right) / 2, (top + bottom) / 2];
  };
  const [x, y] = centre(here);
  const near = (each) => {
    const [left, top] = centre(each);
    return each !== here && Math.hypot(left - x, top - y) < CLOSE;
  };
  return [here, ...[...here.ownerSVGElement.querySelectorAll("[data-much]")].filter(near)];
}

// Pressed again and again, a point leads to those beneath it.
function pressPoint(dot) {
  pressed = { dot, times: pressed.dot === dot ? pressed.times + 1 : 0 };
  const there = pointsAt(dot);
  there[pressed.times % there.length].focus();
}

// Arrows lead along a line and from line to line; Escape puts the card away.
function movePoint(event) {
  const here = event.currentTarget;
  if (event.key === "Escape") hidePoint();
  const next = nextPoint(here, event.key);
  if (!next) return;
  event.preventDefault();
  here.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
}

function nextPoint(here, key) {
  const [along, up] = [{ ArrowRight: 1, ArrowLeft: -1 }[key], { ArrowUp: -1, ArrowDown: 1 }[key]];
  const all = [...here.ownerSVGElement.querySelectorAll("[data-much]")];
  const [method, percent] = here.dataset.much.split(" ");
  const same = (place, value) => (each) => each.dataset.much.split(" ")[place] === value;
  const top = (each) => each.getBoundingClientRect().top;
  if (along) {
    const line = all.filter(same(0, method));
    return line[line.indexOf(here) + along];
  }
  if (!up) return null;
  const column = all.filter(same(1, percent)).sort((a, b) => top(a) - top(b));
  return column[column.indexOf(here) + up];
}

const COLUMNS = { kept: "kept", step: "step", p: "p", d: "D", percentile: "percentile" };

function showPoint(dot, cell) {
  const beneath = pointsAt(dot).slice(1);
  const names = beneath.map((each) => index.styles[each.dataset.much.split(" ")[0]].label);
  const more = names.length ? `Here too: ${names.join(", ")}. Press again to see them.` : "";
  showCard(dot, ...cardOf(cell), node("p", { className: "small", textContent: more }));
  for (const each of $$("[data-much].on")) each.classList.remove("on");
  for (const each of $$(`[data-much="${dot.dataset.much}"]`)) each.classList.add("on");
}

function cardOf(cell) {
  const { label } = index.styles[cell.method];
  const rows = cell.runs.map((run) => [
    run.seed,
    ...Object.keys(COLUMNS).map((measure) => written(valueOf(run, measure), measure)),
  ]);
  const nearer = rangeWords(cell, "percentile");
  const meaning = nearer
    ? `Of models that never saw the rows, ${nearer} lie nearer to the retained-only model.`
    : "";
  return [
    node("p", {}, node("b", { textContent: `${label} · ${cell.percent} %` }), " · recorded"),
    tableOf(["seed", ...Object.values(COLUMNS)], rows),
    node("p", { className: "small", textContent: meaning }),
  ];
}

// The card stays where a point has the focus.
function leaveCard() {
  if (document.activeElement?.matches("[data-much]")) document.activeElement.focus();
  hidePoint();
}

function hidePoint() {
  hideCard();
  for (const each of $$("[data-much].on")) each.classList.remove("on");
}

kit.muchpoints = { hidePoint, pointOf };
