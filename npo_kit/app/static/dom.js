// Elements, files and words. `element` and `server` come from Gradio; text goes in as text only.

const $ = (name) => element.querySelector(`[data-${name}]`);
const action = (name) => element.querySelector(`[data-action="${name}"]`);
const chartAt = (name) => element.querySelector(`[data-chart="${name}"]`);

function node(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties || {});
  made.append(...children);
  return made;
}

function option(value, textContent) {
  return node("option", { value, textContent });
}

function say(text) {
  $("say").textContent = text;
}

function complain(sentence) {
  $("problem").textContent = sentence;
  $("problem").hidden = !sentence;
}

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

// A labelled slider; `log` ones hold the power of ten. `changed(value)` is called while it moves.
function slider({ id, label, low, high, step, log, text }, changed) {
  const input = node("input", { type: "range", min: low, max: high, step });
  const out = node("output", {});
  const title = node("span", { textContent: label });
  const value = () => (log ? Number((10 ** Number(input.value)).toPrecision(2)) : Number(input.value));
  const set = (given) => {
    input.value = log ? Math.log10(given) : given;
    out.textContent = text ? text(value()) : String(value());
  };
  input.dataset.knob = id;
  input.addEventListener("input", () => { set(value()); changed(value()); });
  return { label: node("label", {}, title, input, out), input, title, set, value };
}
