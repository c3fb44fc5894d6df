// An answer: its text, badges and scores; and a column of the live lab with one.

const { $, node, hued, marked } = kit.dom;
const { shown } = kit.words;
const { state } = kit.state;
const { badgesOf, showChange, showLeak } = kit.text;

const SCORES = {
  probability: "P(answer)",
  rouge_l: "ROUGE-L",
  truth_ratio: "truth ratio",
  fluency: "fluency",
};

const columnAt = (side) => $(`column="${side}"`);

// The parts of an answer, to be filled by `fillAnswer`.
function answerParts() {
  const text = { className: "text", dir: "auto", tabIndex: 0, role: "group", ariaLabel: "Answer" };
  return [node("p", text), node("p", { className: "badges" }), node("dl", { className: "scores" })];
}

// Text, badges and scores of one answer in `box`; `before` is the original's cell, or null, and
// `names` are those of the scores that are shown.
function fillAnswer(box, cell, question, { before, badges, names }) {
  const text = box.querySelector(".text");
  const said = cell?.text.trim();
  text.classList.toggle("keep", question.set !== "forget");
  text.classList.toggle("none", !said);
  if (!said) text.textContent = cell ? "(says nothing)" : "…";
  else if (state.mark === "change" && before) showChange(text, cell.text, before.text);
  else if (state.mark === "change") text.textContent = cell.text;
  else showLeak(text, cell, question);
  fillBadges(box, badges);
  const shownNames = cell ? names : [];
  box
    .querySelector(".scores")
    .replaceChildren(...shownNames.map((name) => scoreOf(name, cell, before)));
}

function scoreOf(name, cell, before) {
  const was = before ? shown(before[name], 2, 0) : "";
  return node(
    "div",
    {},
    node("dt", { textContent: SCORES[name] }),
    node("dd", { textContent: shown(cell[name], 2, 0) }),
    node("dd", { className: "was", title: "of the original", textContent: was }),
  );
}

function fillBadges(box, badges) {
  const made = badges.map(([textContent, kind]) =>
    node("span", { className: `badge ${kind}`, textContent }),
  );
  box.querySelector(".badges").replaceChildren(...made);
}

// A column of the live lab: head and one answer.
function answerColumn(side) {
  const head = [node("h3"), node("p", { className: "tag" })];
  return marked(
    node("article", { className: "column" }, ...head, ...answerParts()),
    "column",
    side,
  );
}

function fillColumn(column, { title, colour, tag }, cell, question, before) {
  hued(column, colour);
  column.querySelector("h3").textContent = title;
  column.querySelector(".tag").replaceChildren(...tag);
  const badges = cell ? badgesOf(cell, question, before) : [];
  fillAnswer(column, cell, question, { before, badges, names: Object.keys(SCORES) });
}

kit.columns = { SCORES, columnAt, answerParts, fillAnswer, answerColumn, fillColumn, fillBadges };
