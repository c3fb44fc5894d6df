// A class's own questions: a list to pick from where live models are asked.

const { $, node, option } = kit.dom;
const { index } = kit.state;

function makeAsking() {
  if (!index.asks.length) return;
  for (const [form, prompt] of [
    ["secret-ask", "secret-prompt"],
    ["ask", "prompt"],
  ]) {
    $(form).prepend(listFor($(prompt)));
  }
}

// The list that fills an input.
function listFor(input) {
  const first = option("", `${index.asks.length} of this class: pick one …`);
  const select = node("select", {}, first, ...index.asks.map((text) => option(text, text)));
  select.dataset.asks = "";
  select.addEventListener("change", () => {
    input.value = select.value;
    input.focus();
  });
  return node("label", { className: "wide listed" }, "Questions ", select);
}

kit.asking = { makeAsking };
