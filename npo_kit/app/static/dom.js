// Elements, files and words. `element` and `server` come from Gradio; text goes in as text only.

const $ = (name) => element.querySelector(`[data-${name}]`);
const action = (name) => element.querySelector(`[data-action="${name}"]`);
const chartAt = (name) => element.querySelector(`[data-chart="${name}"]`);

function node(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties || {});
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

// A control with its name before it, known to the address as `id`; `changed(text)` on `event`.
function knob(id, title, input, changed, event = "change") {
  input.dataset.knob = id;
  input.addEventListener(event, () => changed(input.value));
  return node("label", {}, node("span", { textContent: title }), input);
}

// Does `work`, which may replace what has the focus, and gives the focus to what took its place.
function keepFocus(work) {
  const had = document.activeElement;
  if (!had || !element.contains(had)) { work(); return; }
  const parents = [];
  for (let at = had.parentNode; at && at !== element; at = at.parentNode) parents.push(at);
  const same = Object.entries(had.dataset).map(([name, value]) => {
    const plain = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return `[data-${plain}="${CSS.escape(value)}"]`;
  }).join("");
  const stops = (box) => [...box.querySelectorAll("button, a[href], input, select, [tabindex]")];
  const places = parents.map((parent) => stops(parent).indexOf(had));
  work();
  const seen = (each) => each.isConnected && each.getClientRects().length > 0;
  if (document.activeElement === had && seen(had)) return;
  const level = parents.findIndex(seen);
  if (level < 0) return;
  const there = stops(parents[level]), shown = there.filter(seen), at = there[places[level]];
  const next = (same && shown.find((each) => each.matches(same))) || (at && seen(at) ? at : shown.at(-1));
  next?.focus({ preventScroll: true });
}

const say = (text) => { $("say").textContent = text; };
const complain = (sentence) => {
  Object.assign($("problem"), { textContent: sentence, hidden: !sentence });
};

// What the server answers, or null after its problem was shown.
async function asked(answer) {
  const found = await answer;
  if (!found || found.problem) {
    complain(found ? found.problem : "The server does not answer: is it still running?");
    return null;
  }
  return found;
}

function shown(value, digits = 2, small = 1) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) < 10 ** -digits || Math.abs(value) >= 1e4)) {
    return value.toExponential(small).replace("e-", "e−").replace("e+", "e").replace("-", "−");
  }
  return value.toFixed(digits).replace("-", "−");
}

function save(name, content, type) {
  const link = node("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    const before = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1500);
    say("Copied");
  } catch { complain(`Copy this: ${text}`); }
}

const seedInput = () => node("input", { type: "number", min: 0, max: 1e6, step: 1 });

// A slider that changes the state `id`; of a `log` one the input holds the power of ten.
const sliders = {};
function slider(id, label, low, high, { step = 0.001, log = false } = {}) {
  const input = node("input", { type: "range", min: low, max: high, step });
  const out = node("output", {});
  const value = () => (log ? Number((10 ** input.value).toPrecision(2)) : Number(input.value));
  const set = (given) => {
    input.value = log ? Math.log10(given) : given;
    out.textContent = given; // also where it is beyond the ends
  };
  const made = knob(id, label, input, () => { set(value()); change({ [id]: value() }); }, "input");
  made.append(out);
  sliders[id] = { input, title: made.firstChild, set };
  return made;
}
