// The trade-off: model utility against forget quality, a trajectory for every run.

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 820, height: 470, left: 66, right: 128, top: 26, bottom: 62 };

// One unit of the drawing is one pixel, so that words keep their size on a narrow screen.
function fitChart(container) {
  const wide = Math.max(320, Math.min(1000, container.clientWidth));
  const narrow = wide < 560;
  Object.assign(SIZE, {
    width: wide, height: narrow ? 380 : 470, left: narrow ? 56 : 66, right: narrow ? 16 : 128,
  });
  return narrow;
}

function svgNode(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function svgText(x, y, text, more) {
  return svgNode("text", { x, y, "font-size": 15, ...more }, text);
}

function scalesOf(runs) {
  const all = runs.flatMap((run) => run.metrics.forget_quality).filter((p) => p > 0);
  const low = Math.max(-16, Math.min(-4, Math.floor(Math.log10(Math.min(...all, 1e-4)))));
  const tops = runs.flatMap((run) => run.metrics.model_utility).filter((u) => u !== null);
  const top = Math.max(0.1, Math.ceil(Math.max(...tops, 0) * 1.08 * 10) / 10);
  const wide = SIZE.width - SIZE.left - SIZE.right;
  const high = SIZE.height - SIZE.top - SIZE.bottom;
  return {
    low, top,
    x: (p) => SIZE.left + wide * (1 - Math.max(low, p > 0 ? Math.log10(p) : low) / low),
    y: (u) => SIZE.top + high * (1 - (u || 0) / top),
  };
}

function axes(scale, narrow) {
  const { low, top, x, y } = scale;
  const parts = [svgNode("rect", {
    x: x(0.05), y: SIZE.top, width: x(1) - x(0.05), height: y(0) - SIZE.top, fill: "#0b6b3a",
    opacity: 0.1,
  })];
  const every = low < -8 ? 4 : 2;
  for (let power = 0; power >= low; power -= every) {
    const at = x(10 ** power);
    parts.push(svgNode("line", { class: "rule", x1: at, x2: at, y1: SIZE.top, y2: y(0) }));
    const label = svgText(at, y(0) + 22, power === 0 ? "1" : "10", { "text-anchor": "middle" });
    if (power) {
      label.append(svgNode("tspan", { dy: -7, "font-size": 11 }, String(power).replace("-", "−")));
    }
    parts.push(label);
  }
  for (let u = 0; u <= top + 1e-9; u += 0.2) {
    parts.push(svgNode("line", { class: "rule", x1: x(0), x2: x(1), y1: y(u), y2: y(u) }));
    parts.push(svgText(SIZE.left - 10, y(u) + 5, u.toFixed(1), { "text-anchor": "end" }));
  }
  parts.push(svgNode("line", { class: "axis", x1: x(0), x2: x(1), y1: y(0), y2: y(0) }));
  parts.push(svgNode("line", {
    class: "axis", x1: x(0.05), x2: x(0.05), y1: SIZE.top, y2: y(0), "stroke-dasharray": "3 4",
  }));
  parts.push(svgText(x(0.05) + 5, SIZE.top - 8, "p = 0.05", { class: "faint", "text-anchor": narrow ? "end" : "start" }));
  parts.push(svgText((x(0) + x(1)) / 2, SIZE.height - 14, narrow ? "forget quality p (log scale) → better"
    : "forget quality p (KS test against retained-only, log scale) → better",
    { "text-anchor": "middle" }));
  const middle = (y(0) + y(top)) / 2;
  parts.push(svgText(18, middle, "model utility → better",
    { "text-anchor": "middle", transform: `rotate(-90 18 ${middle})` }));
  return parts;
}

function markerPath(marker, x, y, r) {
  if (marker === "s") return `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (marker === "^") return `M${x},${y - 1.3 * r}L${x + 1.2 * r},${y + r}H${x - 1.2 * r}z`;
  if (marker === "D") return `M${x},${y - 1.3 * r}L${x + 1.3 * r},${y}L${x},${y + 1.3 * r}L${x - 1.3 * r},${y}z`;
  return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`;
}

function isMeasured(run, i) {
  return run.metrics.forget_quality[i] !== null && run.metrics.model_utility[i] !== null;
}

function trajectory(run, look, scale, bold, onPick) {
  const points = run.steps.map((step, i) => [
    scale.x(run.metrics.forget_quality[i]), scale.y(run.metrics.model_utility[i]), step, i,
  ]).filter(([, , , i]) => isMeasured(run, i));
  const group = svgNode("g", { opacity: bold ? 1 : 0.3 });
  group.append(svgNode("polyline", {
    points: points.map(([x, y]) => `${x},${y}`).join(" "), fill: "none", stroke: look.colour,
    "stroke-width": bold ? 3 : 1.5, "stroke-dasharray": look.dash,
  }));
  for (const [x, y, step, i] of points) {
    const dot = svgNode("path", {
      class: "dot", d: markerPath(look.marker, x, y, bold ? 5 : 3), fill: look.colour,
      "data-run": run.id, "data-point": step, stroke: "transparent", "stroke-width": 10,
    }, svgNode("title", {}, `${run.label}, step ${step}: utility `
      + `${shown(run.metrics.model_utility[i])}, p ${shown(run.metrics.forget_quality[i])}`));
    dot.addEventListener("click", () => onPick(run.id, step));
    group.append(dot);
  }
  return group;
}

// view: {runs, looks, shown: [ids], step, original, retained}; onPick(run id, step).
function drawChart(container, view, onPick) {
  const narrow = fitChart(container);
  const scale = scalesOf([...view.runs, view.original, view.retained]);
  const svg = svgNode("svg", {
    viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img",
    "aria-label": "Model utility against forget quality; the table below has the same numbers",
  }, ...axes(scale, narrow));
  const kept = scale.y(view.retained.metrics.model_utility[0]);
  svg.append(svgNode("line", {
    x1: scale.x(0), x2: scale.x(1), y1: kept, y2: kept, stroke: "currentColor",
    "stroke-width": 1.5, "stroke-dasharray": "7 5",
  }));
  svg.append(narrow
    ? svgText(scale.x(1), kept - 8, "retained-only", { "font-weight": 600, "text-anchor": "end" })
    : svgText(scale.x(1) + 8, kept + 5, "retained-only", { "font-weight": 600 }));
  const behind = view.runs.filter((run) => !view.shown.includes(run.id));
  const front = view.runs.filter((run) => view.shown.includes(run.id));
  for (const run of behind) svg.append(trajectory(run, view.looks[run.method], scale, false, onPick));
  const [x0, y0] = [scale.x(view.original.metrics.forget_quality[0]),
    scale.y(view.original.metrics.model_utility[0])];
  svg.append(svgNode("circle", { cx: x0, cy: y0, r: 8, fill: "#7f7f7f" }));
  svg.append(svgText(x0 + 2, y0 - 14, "original", { "font-weight": 600 }));
  front.forEach((run) => {
    svg.append(trajectory(run, view.looks[run.method], scale, true, onPick));
    if (run.steps.length && isMeasured(run, placeOf(run, view.step))) ringAndName(svg, run, view, scale);
  });
  container.replaceChildren(svg);
}

function ringAndName(svg, run, view, scale) {
  const i = placeOf(run, view.step);
  const at = (j) => [scale.x(run.metrics.forget_quality[j]), scale.y(run.metrics.model_utility[j])];
  const [x, y] = at(i);
  const colour = view.looks[run.method].colour;
  svg.append(svgNode("circle", {
    class: "ring", cx: x, cy: y, r: 12, fill: "none", stroke: colour, "stroke-width": 3,
    "data-ring": run.id,
  }));
  const left = x > SIZE.width - SIZE.right - 70;
  const lower = svg.querySelectorAll("[data-name]").length === 0 ? -18 : 30;
  svg.append(svgText(x + (left ? -16 : 16), y + lower, run.label, {
    "font-weight": 700, "font-size": 16, "text-anchor": left ? "end" : "start", "data-name": "",
  }));
}

// The last recorded step of a run that is not after `step`.
function placeOf(run, step) {
  let place = 0;
  run.steps.forEach((s, i) => { if (s <= step) place = i; });
  return place;
}
