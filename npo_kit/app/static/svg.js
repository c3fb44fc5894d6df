// Shapes as SVG.

const SVG = "http://www.w3.org/2000/svg";

// A style is set as such: the policy of a page in one file forbids it as an attribute.
function setAll(made, { style, ...attributes }) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (style) made.style.cssText = style;
}

function svgNode(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  setAll(made, attributes);
  made.append(...children);
  return made;
}

const svgText = (x, y, text, more) => svgNode("text", { x, y, "font-size": 16, ...more }, text);
const svgLine = ([x1, y1], [x2, y2], more) => svgNode("line", { x1, y1, x2, y2, ...more });

function markerPath(marker, x, y, r) {
  if (marker === "s") return `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
  const [top, right, left] = [y - 1.3 * r, x + 1.3 * r, x - 1.3 * r];
  if (marker === "^") return `M${x},${top}L${x + 1.2 * r},${y + r}H${x - 1.2 * r}z`;
  if (marker === "D") return `M${x},${top}L${right},${y}L${x},${y + 1.3 * r}L${left},${y}z`;
  return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`;
}

const pathOf = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

// A line through points of the chart, in pixels.
function polyline(points, { colour, dash }, more) {
  const stroke = { stroke: colour, "stroke-dasharray": dash || "none", fill: "none" };
  return svgNode("polyline", { points: pathOf(points), ...stroke, ...more });
}

kit.svg = { SVG, setAll, svgNode, svgText, svgLine, markerPath, pathOf, polyline };
