// What models said in an audit, question by question.

const { node, option, marked, hued } = kit.dom;
const { known, shown } = kit.words;
const { index, state } = kit.state;
const { showLeak } = kit.text;
const { change } = kit.address;

const KINDS = {
  leak: {
    set: "forget",
    words: ({ own, original }, i) =>
      `Of ${own.samples} samples tell it: ${own.counts[i]}, of the original's `
      + `${original.counts[i]}; `
      + `so at most ${shown(own.upper[i])} of all do, with 95 % confidence.`,
    said: ({ own, original }, i) => [
      ["original", original.greedy_texts[i], "likeliest answer"],
      ["own", own.greedy_texts[i], "likeliest answer"],
      ["own", own.texts[i].leak, "a sample that tells it"],
      ["own", own.texts[i].other, "a sample that does not"],
    ],
  },
  formats: {
    set: "forget",
    words: ({ original }, i) => {
      const asked = original.questions[formOf(original)][i];
      return known(asked) ? `Asked: ${asked}` : "This form does not fit this question.";
    },
    said: ({ own, original }, i) => [
      ["original", original.forms[formOf(original)].texts[i], "answers"],
      ["own", own.forms[formOf(original)]?.texts[i], "answers"],
    ],
  },
  verbatim: {
    set: "forget",
    words: ({ own, original, retained }, i) =>
      `Log-prob of a token of the fact: ${shown(own.rows[i])}, the original's `
      + `${shown(original.rows[i])}, of models that never saw it `
      + `${retained.rows[i].map((each) => shown(each)).join(" to ")} nats. ES: `
      + `${shown(own.es[i])}, the original's ${shown(original.es[i])}.`,
    said: () => [],
  },
  guards: {
    set: "retain",
    words: () => "",
    said: ({ own, original }, i) => [
      ["original", original.told_texts[i], "answers"],
      ["own", own.told_texts[i], "answers"],
    ],
    also: ({ own, original }, i) => [
      ["original", original.texts[i], "answers"],
      ["own", own.texts[i], "answers"],
    ],
  },
};

const formOf = ({ forms }) => (state.form in forms ? state.form : "plain");

// The study's questions of a set, in the order of the audits' rows.
const questionsOf = (set, rows) =>
  index.questions
    .filter((question) => question.set === set && question.index < rows)
    .sort((one, other) => one.index - other.index);

const probeNow = (questions) => Math.min(state.probe, questions.length - 1);

// A list of questions, and what the models said to the one that is chosen.
function textsOf(context) {
  const { card, own } = context;
  const { set, words, said, also } = KINDS[card.name];
  const rows = own.rows.length;
  return [
    ...part(context, set, rows, words, said),
    ...(also ? part(context, "forget", own.texts.length, () => "", also) : []),
  ];
}

function part(context, set, rows, words, said) {
  const questions = questionsOf(set, rows);
  if (!questions.length) return [];
  const probe = probeNow(questions);
  const question = questions[probe];
  const select = node("select", {
    ariaLabel: `Question to ${set === "forget" ? "forget" : "keep"}`,
  });
  select.append(...questions.map((each, i) => option(i, `${i + 1}. ${each.question}`)));
  select.value = probe;
  select.addEventListener("change", () => change({ probe: Number(select.value) }));
  const about = words(context, probe);
  const told = said(context, probe).filter(([, text]) => known(text));
  const list = told.map(([who, text, what]) => saying(context, who, text, what, question));
  return [
    node(
      "label",
      { className: "asked-of" },
      set === "forget" ? "To forget " : "To keep ",
      marked(select, "probe", set),
    ),
    node("p", { className: "small" }, "True answer: ", node("b", { textContent: question.answer })),
    ...(about ? [node("p", { className: "small", textContent: about })] : []),
    ...(list.length ? [node("dl", { className: "said" }, ...list)] : []),
  ];
}

function saying({ look, name }, who, text, what, question) {
  const own = who === "own";
  const colour = own ? look.colour : index.styles.original.colour;
  const head = node(
    "dt",
    {},
    hued(node("b", { className: "swatch" }), colour),
    `${own ? name : "original"}, ${what}`,
  );
  const box = node("dd", { dir: "auto", className: question.set === "forget" ? "" : "keep" });
  showLeak(box, { text: text || "" }, question);
  if (!text) box.textContent = "(says nothing)";
  return node("div", {}, head, box);
}

kit.audittexts = { textsOf, formOf };
