// Controls with a name before them, known to the address.

const { node, marked } = kit.dom;
const { change } = kit.address;

const sliders = {}; // by what they change: {input, title, set}

// A control with its name before it, known to the address as `id`; `changed(text)` on `event`.
function knob(id, title, input, changed, event = "change") {
  input.addEventListener(event, () => changed(input.value));
  return node("label", {}, node("span", { textContent: title }), marked(input, "knob", id));
}

const seedInput = () => node("input", { type: "number", min: 0, max: 1e6, step: 1 });

// A slider of an option, which changes the state `id`; without a step it is logarithmic, and the
// input holds the power of ten.
function slider(id, { label, help = "", low, high, step }) {
  const log = !step;
  const [min, max] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
  const input = node("input", { type: "range", min, max, step: step ?? 0.001, title: help });
  const out = node("output");
  const value = () => (log ? Number((10 ** input.value).toPrecision(2)) : Number(input.value));
  const set = (given) => {
    input.value = log ? Math.log10(given) : given;
    out.textContent = given; // also where it is beyond the ends
  };
  const changed = () => {
    set(value());
    change({ [id]: value() });
  };
  const made = knob(id, label, input, changed, "input");
  made.append(out);
  sliders[id] = { input, set };
  return made;
}

kit.knobs = { knob, seedInput, slider, sliders };
