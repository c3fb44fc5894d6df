// Compare: questions at the left, four models' answers side by side.

const { $, node, option, button, hued, marked, keepFocus } = kit.dom;
const { shown } = kit.words;
const { SETS, SIDES, RETRAINED, LEVELS } = kit.names;
const { index, runs, state } = kit.state;
const { standOf, compared, styleOf } = kit.stands;
const { change } = kit.address;
const { showTruth } = kit.text;
const { fetchTexts, fetchScores, cellOf, scoresOf } = kit.answers;
const { columnAt, answerColumn, fillColumn } = kit.columns;

// --- questions ---

const rougeOfBoth = () => SIDES.map((side) => scoresOf(runs[state[side]], "rouge_l"));

function matching() {
  const find = state.find.toLowerCase();
  const fits = ({ question: { set, question, answer } }) =>
    (state.set === "all" || set === state.set)
    && (!find || `${question} ${answer}`.toLowerCase().includes(find));
  const found = index.questions.map((question, number) => ({ question, number })).filter(fits);
  const [a, b] = rougeOfBoth();
  if (state.sort === "differ" && a && b) {
    const apart = ({ number }) => Math.abs((a[number] ?? 0) - (b[number] ?? 0));
    found.sort((one, other) => apart(other) - apart(one) || one.number - other.number);
  }
  return found;
}

const drawList = () => keepFocus(fillList);

function fillList() {
  const found = matching();
  const rouge = rougeOfBoth().slice(0, compared().length);
  const of = rouge.length > 1 ? " of A and B" : "";
  $("count").textContent =
    `${found.length} of ${index.questions.length} questions; bars: ROUGE-L${of}`;
  $("list").replaceChildren(...found.map((each) => node("li", {}, listButton(each, rouge))));
  const current = $("list").querySelector('[aria-current="true"]');
  const stop = current ?? $("list").querySelector("button");
  if (stop) stop.tabIndex = 0; // the list is one stop of the Tab key; arrows move in it
  if (current) $("list").scrollTop = current.offsetTop - $("list").offsetTop - 60;
}

function listButton({ question, number }, rouge) {
  const bars = rouge.map((of, i) => {
    const bar = hued(node("i"), styleOf(compared()[i]).colour);
    bar.style.setProperty("--full", of?.[number] ?? 0);
    return bar;
  });
  const name = node("span", { textContent: question.question });
  const box = node("span", { className: "bars", ariaHidden: "true" }, ...bars);
  const look = { ariaCurrent: String(number === state.q), tabIndex: -1 };
  return marked(
    button(look, () => change({ q: number }), name, box),
    "number",
    number,
  );
}

function move(by) {
  const found = matching().map(({ number }) => number);
  const at = found.indexOf(state.q);
  if (found.length) change({ q: found[at < 0 ? 0 : (at + by + found.length) % found.length] });
}

function moveInList(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const found = matching();
  const end = { Home: found[0], End: found.at(-1) }[event.key];
  if (!by && !end) return;
  event.preventDefault();
  if (by) move(by);
  else change({ q: end.number });
  $("list").querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
}

// --- columns ---

function drawCompare() {
  const question = index.questions[state.q];
  for (const name of ["set", "sort", "mark"]) $(name).value = state[name];
  if (document.activeElement !== $("search")) $("search").value = state.find;
  drawList();
  $("question").textContent = question.question;
  showTruth($("truth"), question);
  for (const mark of ["leak", "change"]) $(`legend="${mark}"`).hidden = state.mark !== mark;
  $('legend="leak"').classList.toggle("keep", question.set !== "forget");
  drawColumns(question);
  const number = state.q;
  fetchTexts(number).then((there) => {
    if (there && number === state.q && state.view === "compare") drawColumns(question);
    const found = matching();
    const next = found[found.findIndex((each) => each.number === number) + 1];
    if (there && next) fetchTexts(next.number);
  });
  for (const run of compared()) {
    if (!scoresOf(run, "rouge_l")) fetchScores(run).then((there) => there && drawList());
  }
}

// With the texts that have come; fetches none.
function drawColumns(question) {
  const { original, retained } = runs;
  const before = cellOf(original, question);
  const columns = { original, a: runs[state.a], b: runs[state.b], retained };
  for (const [side, run] of Object.entries(columns)) {
    if (run) drawColumn(side, run, question, side === "original" ? null : before);
  }
  const sides = compared().length; // one run is one column
  columnAt("b").hidden = sides === 1;
  $("columns").style.setProperty("--columns", 1 + sides + (retained ? 1 : 0));
}

function drawColumn(side, run, question, before) {
  const title = { original: "Original", retained: RETRAINED }[side] ?? run.label;
  const colour = side === "retained" ? "var(--ink)" : styleOf(run).colour;
  const tag = [sourceOf(run), placeOf(run, side)];
  fillColumn(columnAt(side), { title, colour, tag }, cellOf(run, question), question, before);
}

function sourceOf(run) {
  if (!run.pinned && !run.live) return "recorded";
  return node("b", { textContent: run.pinned ? "live, pinned" : "live" });
}

function placeOf(run, side) {
  if (side === "original") return " · before unlearning";
  if (side === "retained") {
    return index.questions[state.q].set === "forget" ? " · never saw it" : "";
  }
  if (run.steps.length === 0) return " · step –";
  const { place, reached } = standOf(run);
  const step = ` · step ${run.steps[place]}`;
  if (state.match === "step") return step;
  const p = shown(run.metrics.forget_probability[place]);
  const how = reached ? ", nearest" : `: ${LEVELS[state.level]} not reached`;
  return `${step} · P(forget) ${p}${how}`;
}

function makeCompare() {
  const sides = ["original", ...SIDES, ...(runs.retained ? ["retained"] : [])];
  $("columns").replaceChildren(...sides.map((side) => answerColumn(side, side === "retained")));
  const sets = Object.entries({ all: "all", ...SETS });
  $("set").replaceChildren(...sets.map(([value, name]) => option(value, name)));
  $("list").addEventListener("keydown", moveInList);
  $("search").addEventListener("input", () => change({ find: $("search").value }));
}

kit.compare = { makeCompare, drawCompare, move };
