// Words that are not everyday English, with their explanation on hover, focus and touch.

const { $$, node, hued, marked } = kit.dom;
const { index } = kit.state;
const { styleOf } = kit.stands;
const { showCard, hideCard } = kit.card;
const { element } = kit.gradio;

// A word of the glossary, in the words that stand here.
function explained(key, words) {
  const made = node("dfn", { textContent: words ?? index.glossary[key].term, tabIndex: 0 });
  const method = index.live.methods.includes(key) && index.styles[key]; // has its own colour
  return marked(method ? hued(made, method.colour) : made, "term", key);
}

// A text in which words such as {weight|the weight W} are explained, as nodes.
function withWords(text) {
  return text.split(/(\{[^}]*\})/).map((part) => {
    const [, key, words] = part.match(/^\{(\w+)\|([^}]*)\}$/) ?? [];
    return key ? explained(key, words) : part;
  });
}

// A method's name in the head of a column.
const fullName = (run) => styleOf(run).head ?? run.label;

function tell(event) {
  const word = event.target.closest?.("dfn[data-term]");
  if (!word) return;
  const { term, says, source } = index.glossary[word.dataset.term];
  word.setAttribute("aria-describedby", "npo-card");
  const small = source ? [node("p", { className: "small", textContent: source })] : [];
  showCard(
    word,
    node("p", {}, node("b", { textContent: term })),
    node("p", { textContent: says }),
    ...small,
  );
}

function untell(event) {
  if (event.target.closest?.("dfn[data-term]")) hideCard();
}

function makeGlossary() {
  for (const word of $$("dfn[data-term]")) word.tabIndex = 0;
  for (const name of ["mouseover", "focusin", "click"]) element.addEventListener(name, tell);
  for (const name of ["mouseout", "focusout"]) element.addEventListener(name, untell);
}

kit.glossary = { explained, withWords, fullName, makeGlossary };
