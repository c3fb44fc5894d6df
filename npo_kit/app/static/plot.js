// Charts: axes, lines, names, and their export.

const { $, node, button } = kit.dom;
const { save } = kit.words;
const { state } = kit.state;
const { SVG, setAll, svgNode, svgText, svgLine, polyline } = kit.svg;

const SLIDE = 1920; // pixels across a slide, as wide as a saved chart

const chartAt = (name) => $(`chart="${name}"`);

function linearTicks(low, high, about) {
  const span = Math.abs(high - low) / about;
  const unit = 10 ** Math.floor(Math.log10(span));
  const every = unit * [1, 2, 5, 10].find((m) => unit * m >= span * 0.999);
  const [from, to] = [Math.min(low, high), Math.max(low, high)];
  const digits = Math.max(0, -Math.floor(Math.log10(every) + 1e-9));
  const words = (v) => (Math.abs(v) >= 1e4 ? `${v / 1000}k` : v.toFixed(digits).replace("-", "−"));
  const ticks = [];
  for (let k = Math.ceil(from / every - 1e-9); k * every <= to + every * 1e-9; k++) {
    ticks.push([k * every, words(k * every)]);
  }
  return ticks;
}

// [value, power of ten] of each tick.
function logTicks(low, high, about) {
  const [from, to] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.max(1, Math.ceil((to - from) / about));
  const ticks = [];
  for (let power = to; power >= from; power -= every) ticks.push([10 ** power, power]);
  return ticks;
}

// [value, word or power of ten] of each tick: those that the axis names, else some that fit.
function ticksOf({ ticks, log, low, high }, about) {
  return ticks ?? (log ? logTicks : linearTicks)(low, high, about);
}

function tickLabel(text, at, more) {
  if (typeof text === "string" || text === 0) return svgText(...at, text || "1", more);
  const power = String(text).replace("-", "−");
  const label = svgText(...at, "10", more);
  label.append(svgNode("tspan", { dy: -7, "font-size": 12 }, power));
  return label;
}

// A scale from values to 0 … 1. A `low` above `high` runs backwards.
function scaleOf({ low, high, log }) {
  const f = log ? Math.log10 : (v) => v;
  const clamp = (v) => Math.min(Math.max(v, Math.min(low, high)), Math.max(low, high));
  return (value) => (f(clamp(value)) - f(low)) / (f(high) - f(low));
}

const LARGE = 1.5; // how much larger a chart's words are in a lecture
const BELOW = 60; // pixels below a chart in a lecture

// A chart's width and height in its own pixels: in a lecture its words are large, and it fills the
// screen if it is to.
function sizeIn(container, height, fills) {
  const wide = container.clientWidth || 600;
  if (!state.present) return { width: Math.max(300, Math.min(1000, wide)), height };
  if (!fills) return { width: Math.max(300, wide / LARGE), height };
  const top = container.getBoundingClientRect().top + window.scrollY;
  const high = Math.max(400, window.innerHeight - top - BELOW);
  return { width: Math.max(300, wide / LARGE), height: high / LARGE };
}

// Draws axes into `container`; returns {svg, x, y, size} to add to. Each axis is {label, low, high,
// log, ticks}, with a `short` label for where there is little room; `right` is the margin in
// pixels; a chart that does not fill the screen in a lecture has `fills` false. One unit is one
// pixel, so that words keep their size.
function axesIn(container, { label, height: usual, right, fills = true, x: across, y: upward }) {
  const { width, height } = sizeIn(container, usual, fills);
  const size = { width, height, left: 76, right, top: 24, bottom: 58 };
  const [end, bottom] = [width - right, height - size.bottom];
  const [wide, high] = [end - size.left, bottom - size.top];
  const [sx, sy] = [scaleOf(across), scaleOf(upward)];
  const x = (v) => size.left + wide * sx(v);
  const y = (v) => size.top + high * (1 - sy(v));
  const viewBox = `0 0 ${width} ${height}`;
  const svg = svgNode("svg", { viewBox, role: "group", "aria-label": label });
  for (const [value, text] of ticksOf(across, wide / 95)) {
    const rule = svgLine([x(value), size.top], [x(value), bottom], { class: "rule" });
    svg.append(rule, tickLabel(text, [x(value), bottom + 21], { "text-anchor": "middle" }));
  }
  for (const [value, text] of ticksOf(upward, high / 55)) {
    const rule = svgLine([size.left, y(value)], [end, y(value)], { class: "rule" });
    svg.append(rule, tickLabel(text, [size.left - 9, y(value) + 5], { "text-anchor": "end" }));
  }
  const centre = size.left + wide / 2;
  const isLong = across.label.length * 8.2 > 2 * Math.min(centre, width - centre);
  const words = isLong && across.short ? across.short : across.label;
  const centred = { "text-anchor": "middle" };
  const middle = size.top + high / 2;
  svg.append(
    svgLine([size.left, bottom], [end, bottom], { class: "axis" }),
    svgText(centre, height - 12, words, centred),
  );
  const turned = { ...centred, transform: `rotate(-90 17 ${middle})` };
  if (upward.label) svg.append(svgText(17, middle, upward.label, turned));
  container.replaceChildren(svg, exportButtons(svg, container.dataset.chart));
  return { svg, x, y, size };
}

// A line through [x, y] values; returns its end in pixels.
function drawLine(chart, points, look, { width = 2.5, opacity = 1, attributes } = {}) {
  const there = points.filter(([, v]) => v !== null && Number.isFinite(v));
  const at = there.map(([u, v]) => [chart.x(u), chart.y(v)]);
  chart.svg.append(polyline(at, look, { "stroke-width": width, opacity, ...attributes }));
  return at.at(-1);
}

// The margin that names at the right edge need, in pixels.
const roomFor = (names) => 22 + 11 * Math.max(...names.map((name) => name.length));

const LEAD = 8; // pixels from a line's end at which its name needs a line to it

// Lines with their names at the right edge, moved apart where they would touch: {points, look,
// name} and what `drawLine` takes more.
function drawNamed(chart, lines) {
  const ends = lines.map(({ points, look, name, ...more }) => {
    const end = drawLine(chart, points, look, more);
    return { from: end, y: end?.[1], name, colour: look.colour };
  });
  const named = ends.filter(({ y, name }) => y !== undefined && name).sort((a, b) => a.y - b.y);
  const { width, height, right, bottom } = chart.size;
  const apart = 19; // pixels between two names
  named.forEach((end, i) => {
    if (i) end.y = Math.max(end.y, named[i - 1].y + apart);
  });
  let lowest = height - bottom - 4;
  for (const end of named.toReversed()) {
    end.y = Math.min(end.y, lowest);
    lowest = end.y - apart;
  }
  for (const { from, y, name, colour } of named) {
    const at = width - right + 12;
    if (Math.abs(y - from[1]) > LEAD) {
      const look = { stroke: colour, "stroke-width": 1.2, class: "lead-line" };
      chart.svg.append(svgLine(from, [at - 2, y], look));
    }
    chart.svg.append(svgText(at, y + 5, name, nameIn(colour)));
  }
}

// Attributes of a name in a colour.
const nameIn = (colour) => ({ class: "named", style: `--hue:${colour}`, "font-weight": 600 });

const emptyChart = (name, textContent) =>
  chartAt(name).replaceChildren(node("p", { className: "small waiting", textContent }));

// --- export ---

function exportButtons(svg, name) {
  const as = (kind, does) => {
    const ariaLabel = `Save this chart as ${kind}`;
    return button({ className: "quiet", textContent: kind, ariaLabel }, does);
  };
  const asSvg = as("SVG", () => save(`${name}.svg`, standalone(svg), "image/svg+xml"));
  const asPng = as("PNG", () => savePng(svg, name));
  return node("div", { className: "export" }, asSvg, asPng);
}

// The chart at the width of a slide, with its computed colours written out, on its background.
function standalone(svg) {
  const copied = svg.cloneNode(true);
  const [from, to] = [svg.querySelectorAll("*"), copied.querySelectorAll("*")];
  from.forEach((each, i) => {
    const style = getComputedStyle(each);
    for (const name of ["fill", "stroke", "opacity", "font-size", "font-weight"]) {
      to[i].style[name] = style.getPropertyValue(name);
    }
  });
  const { width, height } = svg.viewBox.baseVal;
  const size = { width: SLIDE, height: Math.round((SLIDE * height) / width) };
  setAll(copied, { xmlns: SVG, ...size, "font-family": "system-ui, sans-serif" });
  const fill = getComputedStyle(svg).getPropertyValue("--ground-colour").trim();
  copied.prepend(svgNode("rect", { width, height, fill }));
  return new XMLSerializer().serializeToString(copied);
}

function savePng(svg, name) {
  const image = new Image();
  image.onload = () => {
    const { width, height } = image;
    const canvas = node("canvas", { width, height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(`${name}.png`, blob, "image/png"));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(svg))}`;
}

kit.plot = { chartAt, axesIn, drawLine, drawNamed, roomFor, nameIn, emptyChart };
