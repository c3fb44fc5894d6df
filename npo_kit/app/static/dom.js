// Elements of the page; text goes in as text only.

const { element } = kit.gradio;

const $ = (name) => element.querySelector(`[data-${name}]`);
const $$ = (selector) => [...element.querySelectorAll(selector)];
const action = (name) => $(`action="${name}"`);

function node(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const option = (value, textContent) => node("option", { value, textContent });

// A button that calls `does` when it is pressed.
function button(properties, does, ...children) {
  const made = node("button", { type: "button", ...properties }, ...children);
  made.addEventListener("click", does);
  return made;
}

// An element that is there for an attribute of its own: <… data-name="value">.
function marked(made, name, value) {
  made.dataset[name] = value;
  return made;
}

// An element in a colour of its own.
function hued(made, colour) {
  made.style.setProperty("--hue", colour);
  return made;
}

function tableOf(head, rows) {
  const line = (cells, kind) =>
    node("tr", {}, ...cells.map((textContent) => node(kind, { textContent })));
  const body = rows.map((row) => line(row, "td"));
  return node("table", {}, node("thead", {}, line(head, "th")), node("tbody", {}, ...body));
}

// What finds an element that has the same data attributes.
function likenessOf({ dataset }) {
  const plain = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const pairs = Object.entries(dataset);
  return pairs.map(([name, value]) => `[data-${plain(name)}="${CSS.escape(value)}"]`).join("");
}

// Does `work`, which may replace what has the focus, and gives the focus to what took its place.
function keepFocus(work) {
  const had = document.activeElement;
  if (!had || !element.contains(had)) return work();
  const parents = [];
  for (let at = had.parentNode; at && at !== element; at = at.parentNode) parents.push(at);
  const same = likenessOf(had);
  const stops = (box) => [...box.querySelectorAll("button, a[href], input, select, [tabindex]")];
  const places = parents.map((parent) => stops(parent).indexOf(had));
  work();
  const seen = (each) => each.isConnected && each.getClientRects().length > 0;
  if (document.activeElement === had && seen(had)) return;
  const level = parents.findIndex(seen);
  if (level < 0) return;
  const there = stops(parents[level]);
  const visible = there.filter(seen);
  const at = there[places[level]];
  const alike = same && visible.find((each) => each.matches(same));
  const next = alike || (at && seen(at) ? at : visible.at(-1));
  next?.focus({ preventScroll: true });
}

kit.dom = { $, $$, action, node, option, button, marked, hued, tableOf, keepFocus };
