// Compare: a question to forget and one to keep, and what each model answers, side by side.

const { $, node, button, hued, marked, keepFocus } = kit.dom;
const { known, percent, shown } = kit.words;
const { COLUMNS, LEVELS, ROWS } = kit.names;
const { index, runs, state } = kit.state;
const { compared, standOf, styleOf } = kit.stands;
const { badgesOf, brokenHow, showTruth } = kit.text;
const { fetchTexts, hasTexts, cellOf } = kit.answers;
const { SCORES, columnAt, answerParts, fillAnswer } = kit.columns;
const { explained, fullName } = kit.glossary;
const { move } = kit.picker;

const KINDS = { forget: "A question to forget", keep: "A question to keep" };
const METERS = { tells: "still tells it", useful: "still useful" };

const rowsThere = () => Object.keys(ROWS).filter((row) => known(index.opening[row]));

// The runs in their columns: the original, those that are chosen, each once, the retrained one.
function columnRuns() {
  const chosen = COLUMNS.map((side) => [side, runs[state[side]]]);
  const once = chosen.filter(
    ([, run], i) => run && chosen.findIndex(([, other]) => other === run) === i,
  );
  const isPhone = window.matchMedia("(max-width: 700px)").matches; // has room for two
  const original = [["original", runs.original]];
  const all = [
    ...(isPhone ? [...once, ...original] : [...original, ...once]),
    ["retained", runs.retained],
  ];
  return all.filter(([, run]) => run);
}

// --- what is there once ---

function makeStage() {
  const sides = ["original", ...COLUMNS, ...(runs.retained ? ["retained"] : [])];
  const words = node("p", { className: "over small" }, ...overAll());
  $("stage").replaceChildren(...rowsThere().map(askedBox), words, ...sides.map(columnBox));
}

// What the bars are of.
function overAll() {
  const { forget, ...kept } = index.rows;
  const others = Object.values(kept).reduce((sum, n) => sum + n, 0);
  const line = (textContent) => node("span", { textContent });
  const mark = runs.retained ? [line("mark: the model that never saw it")] : [];
  return [line(`of ${forget} questions to forget`), line(`of ${others} others`), ...mark];
}

function askedBox(row) {
  const step = (by, sign, name) =>
    button({ className: "quiet", textContent: sign, ariaLabel: `${name} question to ${row}` }, () =>
      move(row, by),
    );
  const box = node(
    "div",
    { className: `asked ${row}` },
    node(
      "p",
      { className: "kind" },
      node("span", { textContent: KINDS[row] }),
      node("span", { className: "moves" }, step(-1, "‹", "Previous"), step(1, "›", "Next")),
    ),
    marked(node("h2", { className: "question" }), "question", row),
    node("p", { className: "truth small" }, "True answer: ", marked(node("span"), "truth", row)),
  );
  return marked(box, "asked", row);
}

function columnBox(side) {
  const head = node(
    "header",
    {},
    node("h3", {}, ...(side === "retained" ? [explained("retained", "Retrained without it")] : [])),
    node("p", { className: "tag" }),
  );
  const meters = Object.entries(METERS).map(([name, words]) =>
    marked(
      node(
        "div",
        {},
        node("dt", {}, explained(name, words)),
        node("dd", { className: "bar", ariaHidden: "true" }, node("i"), node("b")),
        node("dd", { className: "value" }),
      ),
      "meter",
      name,
    ),
  );
  const column = node(
    "article",
    { className: side === "retained" ? "column dashed" : "column" },
    head,
    ...rowsThere().map(answerBox),
    node("dl", { className: "meters" }, ...meters),
  );
  return marked(column, "column", side);
}

const answerBox = (row) =>
  marked(node("div", { className: `answer ${row}` }, ...answerParts()), "row", row);

// --- what changes ---

function drawCompare() {
  for (const mark of ["leak", "change"]) $(`legend="${mark}"`).hidden = state.mark !== mark;
  $(`legend="scored"`).hidden = !state.scored;
  drawStage();
  const missing = rowsThere()
    .map((row) => state[ROWS[row]])
    .filter((number) => !hasTexts(number));
  if (!missing.length) return;
  Promise.all(missing.map(fetchTexts)).then((there) => {
    if (there.every(Boolean) && state.view === "compare") keepFocus(drawStage);
  });
}

// With the texts that have come; fetches none.
function drawStage() {
  const shownRuns = columnRuns();
  for (const side of ["original", ...COLUMNS, "retained"]) {
    const column = columnAt(side);
    if (column) column.hidden = !shownRuns.some(([each]) => each === side);
  }
  $("stage").style.setProperty("--columns", shownRuns.length);
  for (const row of rowsThere()) drawAsked(row);
  const texts = shownRuns.flatMap(([side, run], i) => {
    columnAt(side).style.setProperty("--at", i + 1);
    return drawColumn(side, run);
  });
  settle(texts);
  $("stage").classList.toggle("scored", Boolean(state.scored));
}

function drawAsked(row) {
  const question = index.questions[state[ROWS[row]]];
  $(`question="${row}"`).textContent = question.question;
  showTruth($(`truth="${row}"`), question);
}

// Returns the texts of its answers, for `settle`.
function drawColumn(side, run) {
  const column = columnAt(side);
  hued(column, side === "retained" ? "var(--ink)" : styleOf(run).colour);
  if (side !== "retained") {
    column.querySelector("h3").replaceChildren(side === "original" ? "Original" : headOf(run));
  }
  column.querySelector(".tag").replaceChildren(...tagOf(side, run));
  drawMeters(column, run);
  return rowsThere().map((row) => drawAnswer(column, row, side, run));
}

// A run's name at the head of its column: with what sets it apart where two have the same.
function headOf(run) {
  const twins = compared().filter((other) => fullName(other) === fullName(run));
  if (twins.length < 2) return fullName(run);
  const isByBeta = known(run.beta) && new Set(twins.map(({ beta }) => beta)).size === twins.length;
  return isByBeta ? `${fullName(run)}, β ${run.beta}` : run.label;
}

// Under the name: whether it is recorded, with which settings, and at which step.
function tagOf(side, run) {
  const mixed = columnRuns().some(([, each]) => each.pinned || each.live);
  const recorded = mixed ? [" · recorded"] : []; // where all are, the page's head says so
  if (side === "original") return ["before unlearning", ...recorded];
  if (side === "retained") return ["the goal: never saw it", ...recorded];
  const { place, reached } = standOf(run);
  const there = run.steps.length > 0;
  const beta = known(run.beta) && !run.label.includes("β") && `β ${run.beta}`;
  const p = there && shown(run.metrics.forget_probability[place]);
  const how = reached ? "nearest" : `${LEVELS[state.level]} not reached`;
  const level = there && state.match === "level" && `P(forget) ${p}, ${how}`;
  const parts = [run.label, beta, `step ${there ? run.steps[place] : "–"}`, level];
  const live = node("b", { textContent: run.pinned ? "live, pinned" : "live" });
  const source = run.pinned || run.live ? [" · ", live] : recorded;
  return [parts.filter(Boolean).join(" · "), ...source];
}

function drawAnswer(column, row, side, run) {
  const number = state[ROWS[row]];
  const question = index.questions[number];
  const cell = cellOf(run, number);
  const before = side === "original" ? null : cellOf(runs.original, number);
  const box = column.querySelector(`[data-row="${row}"]`);
  const badges = cell ? verdicts(cell, question, row, side, before) : [];
  fillAnswer(box, cell, question, {
    before,
    badges,
    names: state.scored ? Object.keys(SCORES) : [],
  });
  const text = box.querySelector(".text");
  text.classList.toggle("broken", Boolean(cell && brokenHow(cell, question)));
  const was = text.dataset.of;
  text.dataset.of = `${number} ${text.textContent}`;
  const isNew = was?.startsWith(`${number} `) && was !== text.dataset.of;
  if (isNew) text.classList.remove("changed");
  return { text, isNew };
}

// Marks the texts that are longer than their box, and lets those that are new be seen, once. All
// are measured before any is marked: the page is laid out once, and animations begin again.
function settle(texts) {
  const heights = texts.map(({ text }) => [text.scrollHeight, text.clientHeight]);
  texts.forEach(({ text, isNew }, i) => {
    text.classList.toggle("long", heights[i][0] > heights[i][1] + 4);
    if (isNew) text.classList.add("changed");
  });
}

// The badges of an answer, led by the fact: whether it is told, kept or neither.
function verdicts(cell, question, row, side, before) {
  const badges = badgesOf(cell, question, side === "retained" ? null : before);
  const isSaid = badges.some(([, kind]) => kind === "leak" || kind === "good");
  const lacks = row === "forget" ? !isSaid : !badges.length;
  return lacks ? [[saysNot(side, row, before, question), ""], ...badges] : badges;
}

// What an answer without the fact is, in words.
function saysNot(side, row, before, question) {
  if (row === "keep") return "does not say it";
  if (side === "retained") return "never knew it";
  const told = before && badgesOf(before, question, null).some(([, kind]) => kind === "leak");
  return told ? "no longer tells it" : "does not tell it";
}

// What a run still tells and how useful it still is, of all questions, where it stands.
function meterValues({ metrics }, place) {
  const full = runs.original.metrics.model_utility[0];
  const utility = metrics.model_utility[place];
  return {
    tells: metrics.forget_rouge_l[place] ?? null,
    useful: known(utility) && full ? utility / full : null,
  };
}

function drawMeters(column, run) {
  const values = meterValues(run, standOf(run).place);
  const goal = runs.retained && meterValues(runs.retained, 0);
  for (const [name, value] of Object.entries(values)) {
    const meter = column.querySelector(`[data-meter="${name}"]`);
    meter.style.setProperty("--full", Math.min(1, value ?? 0));
    meter.querySelector("b").hidden = name !== "tells" || !known(goal?.tells);
    meter.style.setProperty("--goal", goal?.tells ?? 0);
    meter.querySelector(".value").textContent = known(value) ? percent(value) : "–";
  }
}

kit.stage = { makeStage, drawCompare, meterValues };
