// A column with one answer: head, text, badges and scores.

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

function answerColumn(side, dashed) {
  const text = { className: "text", dir: "auto", tabIndex: 0, role: "group", ariaLabel: "Answer" };
  const column = node(
    "article",
    { className: dashed ? "column dashed" : "column" },
    node("h3"),
    node("p", { className: "tag" }),
    node("p", text),
    node("div", { className: "badges" }),
    node("dl", { className: "scores" }),
  );
  return marked(column, "column", side);
}

// Head, text, badges and scores of one answer; `before` is the original's, or null.
function fillColumn(column, { title, colour, tag }, cell, question, before) {
  const part = (name) => column.querySelector(name);
  hued(column, colour);
  part("h3").textContent = title;
  part(".tag").replaceChildren(...tag);
  const text = part(".text");
  const said = cell?.text.trim();
  text.classList.toggle("keep", question.set !== "forget");
  text.classList.toggle("none", !said);
  if (!said) text.textContent = cell ? "(says nothing)" : "…";
  else if (state.mark === "change" && before) showChange(text, cell.text, before.text);
  else if (state.mark === "change") text.textContent = cell.text;
  else showLeak(text, cell, question);
  fillBadges(column, cell ? badgesOf(cell, question, before) : []);
  const names = cell ? Object.keys(SCORES) : [];
  part(".scores").replaceChildren(...names.map((name) => scoreOf(name, cell, before)));
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

function fillBadges(column, badges) {
  const made = badges.map(([textContent, kind]) =>
    node("span", { className: `badge ${kind}`, textContent }),
  );
  column.querySelector(".badges").replaceChildren(...made);
}

kit.columns = { columnAt, answerColumn, fillColumn, fillBadges };
