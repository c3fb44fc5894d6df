// The frame of a figure on an audit's card.

const { node, marked } = kit.dom;
const { index } = kit.state;
const { svgLine } = kit.svg;
const { withWords } = kit.glossary;

const originalLook = () => index.styles.original;

// A figure with a title, a place for a chart, and small words below; returns the place.
function figureIn(box, title, name, words) {
  const container = marked(node("div"), "chart", `audit-${name}`);
  const caption = node("figcaption", {}, node("h4", { textContent: title }));
  const small = node("p", { className: "small" }, ...withWords(words));
  box.append(node("figure", {}, caption, container, small));
  return container;
}

// The place where 90 % of the models that never saw it lie, at one place across.
function bandAt(chart, x, [low, high]) {
  const ends = [low, high].map(chart.y);
  chart.svg.append(svgLine([x, ends[0] + 1], [x, ends[1] - 1], { class: "band-bar" }));
}

// Least and greatest of several lists, with some room.
function rangeOf(...lists) {
  const values = lists.flat().filter(Number.isFinite);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = 0.05 * (most - least || 1);
  return { low: least - room, high: most + room };
}

kit.auditframe = { originalLook, figureIn, bandAt, rangeOf };
