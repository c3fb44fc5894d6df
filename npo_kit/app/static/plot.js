// Charts as SVG: axes, lines, markers, and their export.

const SVG = "http://www.w3.org/2000/svg";

function svgNode(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const svgText = (x, y, text, more) => svgNode("text", { x, y, "font-size": 15, ...more }, text);

function linearTicks(low, high, about) {
  const span = Math.abs(high - low) / about, unit = 10 ** Math.floor(Math.log10(span));
  const every = unit * [1, 2, 5, 10].find((m) => unit * m >= span * 0.999);
  const [from, to] = [Math.min(low, high), Math.max(low, high)];
  const ticks = [];
  for (let k = Math.ceil(from / every - 1e-9); k * every <= to + every * 1e-9; k++) ticks.push(k * every);
  const digits = Math.max(0, -Math.floor(Math.log10(every) + 1e-9));
  return ticks.map((value) => [value, Math.abs(value) >= 1e4 ? `${value / 1000}k` : value.toFixed(digits).replace("-", "−")]);
}

function logTicks(low, high, about) {
  const [from, to] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.max(1, Math.ceil((to - from) / about));
  const ticks = [];
  for (let power = to; power >= from; power -= every) ticks.push([10 ** power, power]);
  return ticks;
}

// A scale from values to 0 … 1. A `low` above `high` runs backwards.
function scaleOf({ low, high, log }) {
  const f = log ? Math.log10 : (v) => v;
  const clamp = (v) => Math.min(Math.max(v, Math.min(low, high)), Math.max(low, high));
  return (value) => (f(clamp(value)) - f(low)) / (f(high) - f(low));
}

// Draws axes into `container`; returns {svg, x, y, size} to add to. spec: {label, x, y, height, right},
// an axis {label, low, high, log}. One unit is one pixel, so that words keep their size.
function axesIn(container, spec) {
  const width = Math.max(300, Math.min(1000, container.clientWidth || 600));
  const narrow = width < 480;
  const size = { width, height: spec.height ?? (narrow ? 330 : 400), left: 76, right: spec.right ?? 16, top: 24, bottom: 58 };
  const wide = size.width - size.left - size.right, high = size.height - size.top - size.bottom;
  const [sx, sy] = [scaleOf(spec.x), scaleOf(spec.y)];
  const x = (v) => size.left + wide * sx(v), y = (v) => size.top + high * (1 - sy(v));
  const svg = svgNode("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "group", "aria-label": spec.label });
  const bottom = size.top + high;
  const tick = (value, text, at, more) => {
    const label = svgText(...at, typeof text === "number" ? (text === 0 ? "1" : "10") : text, more);
    if (typeof text === "number" && text !== 0) {
      label.append(svgNode("tspan", { dy: -7, "font-size": 11 }, String(text).replace("-", "−")));
    }
    svg.append(label);
  };
  const ticksOf = (axis, about) => (axis.log ? logTicks : linearTicks)(axis.low, axis.high, about);
  for (const [value, text] of ticksOf(spec.x, wide / 95)) {
    svg.append(svgNode("line", { class: "rule", x1: x(value), x2: x(value), y1: size.top, y2: bottom }));
    tick(value, text, [x(value), bottom + 21], { "text-anchor": "middle" });
  }
  for (const [value, text] of ticksOf(spec.y, high / 55)) {
    svg.append(svgNode("line", { class: "rule", x1: size.left, x2: size.left + wide, y1: y(value), y2: y(value) }));
    tick(value, text, [size.left - 9, y(value) + 5], { "text-anchor": "end" });
  }
  svg.append(svgNode("line", { class: "axis", x1: size.left, x2: size.left + wide, y1: bottom, y2: bottom }));
  const label = narrow && spec.x.short ? spec.x.short : spec.x.label;
  svg.append(svgText(size.left + wide / 2, size.height - 12, label, { "text-anchor": "middle" }));
  const middle = size.top + high / 2;
  svg.append(svgText(17, middle, spec.y.label, { "text-anchor": "middle", transform: `rotate(-90 17 ${middle})` }));
  container.replaceChildren(svg, exportButtons(svg, container.dataset.chart));
  return { svg, x, y, size, narrow };
}

function markerPath(marker, x, y, r) {
  if (marker === "s") return `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (marker === "^") return `M${x},${y - 1.3 * r}L${x + 1.2 * r},${y + r}H${x - 1.2 * r}z`;
  if (marker === "D") return `M${x},${y - 1.3 * r}L${x + 1.3 * r},${y}L${x},${y + 1.3 * r}L${x - 1.3 * r},${y}z`;
  return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`;
}

const pathOf = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

// A line through [x, y] values, with a name at its end where there is one.
function drawLine(chart, points, look, more = {}) {
  const at = points.filter(([, v]) => v !== null && Number.isFinite(v)).map(([u, v]) => [chart.x(u), chart.y(v)]);
  chart.svg.append(svgNode("polyline", {
    points: pathOf(at), fill: "none", stroke: look.colour, "stroke-width": more.width ?? 2.5,
    "stroke-dasharray": look.dash || "none", opacity: more.opacity ?? 1, ...more.attributes,
  }));
  return at.at(-1);
}

// Names at the right edge, moved apart where they would touch: [[y, text, colour], …].
function nameEnds(chart, ends) {
  const sorted = ends.filter(([y, text]) => y !== undefined && text).sort((a, b) => a[0] - b[0]);
  let last = -Infinity;
  for (const end of sorted) { end[0] = Math.max(end[0], last + 17); last = end[0]; }
  const over = last - (chart.size.height - chart.size.bottom - 4);
  for (const [y, text, colour] of sorted) {
    chart.svg.append(svgText(chart.size.width - chart.size.right + 6, y + 5 - Math.max(0, over), text,
      { "font-weight": 600, "font-size": 14, class: "named", style: `--hue:${colour}` }));
  }
}

// Lines with their names at the right edge: {points, look, name} and what `drawLine` takes more.
function drawNamed(chart, lines) {
  nameEnds(chart, lines.map(({ points, look, name, ...more }) =>
    [drawLine(chart, points, look, more)?.[1], name ?? "", look.colour]));
}

const emptyChart = (container, textContent) =>
  container.replaceChildren(node("p", { className: "small waiting", textContent }));

// --- export ---

function exportButtons(svg, name) {
  const as = (kind, does) => button(
    { className: "quiet", textContent: kind, ariaLabel: `Save this chart as ${kind}` }, does);
  return node("div", { className: "export" },
    as("SVG", () => save(`${name}.svg`, standalone(svg), "image/svg+xml")),
    as("PNG", () => savePng(svg, name)));
}

// The chart with its computed colours written out, on its background.
function standalone(svg) {
  const copied = svg.cloneNode(true);
  const [from, to] = [svg.querySelectorAll("*"), copied.querySelectorAll("*")];
  from.forEach((each, i) => {
    const style = getComputedStyle(each);
    for (const name of ["fill", "stroke", "opacity", "font-size", "font-weight"]) to[i].style[name] = style.getPropertyValue(name);
  });
  const { width, height } = svg.viewBox.baseVal;
  const more = { xmlns: SVG, width, height, "font-family": "system-ui, sans-serif" };
  for (const [key, value] of Object.entries(more)) copied.setAttribute(key, value);
  const ground = getComputedStyle(element.querySelector(".npo")).getPropertyValue("--ground-colour") || "#fff";
  copied.prepend(svgNode("rect", { width, height, fill: ground.trim() }));
  return new XMLSerializer().serializeToString(copied);
}

function savePng(svg, name) {
  const image = new Image(), { width, height } = svg.viewBox.baseVal;
  image.onload = () => {
    const canvas = node("canvas", { width: 2 * width, height: 2 * height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(`${name}.png`, blob, "image/png"));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(svg))}`;
}
