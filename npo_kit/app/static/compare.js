// Compare: questions at the left, four models' answers side by side.

const texts = new Map(); // question -> {ready: what the server said, or null; coming: its promise}
const scores = new Map(); // run -> {ready, coming}: its scores at every question and step

// Asks the server once for what belongs to `key`; true when it is there.
async function fetchOnce(kept, key, ask) {
  if (!kept.has(key)) kept.set(key, { ready: null, coming: ask() });
  const entry = kept.get(key);
  const answer = await asked(entry.coming);
  if (answer) entry.ready = answer;
  else kept.delete(key);
  return Boolean(answer);
}

// What all runs say to a question, and the scores of a run.
const fetchTexts = (question) =>
  fetchOnce(texts, question, () => server.texts({ study: state.study, question }));
const fetchScores = (run) =>
  fetchOnce(scores, run.id, () => server.scores({ study: state.study, run: run.id }));

// One score of all questions, at the place where the run stands; null while it is not there.
function scoresOf(run, name) {
  const { place } = standOf(run);
  if (run.cells) {
    const column = { probability: 1, rouge_l: 2, truth_ratio: 3 }[name];
    return index.questions.map(({ set, index: row }) => run.cells[place]?.[set]?.[row]?.[column] ?? null);
  }
  return scores.get(run.id)?.ready?.[name][place] ?? null;
}

// --- questions ---

function matching() {
  const find = state.find.toLowerCase();
  const found = index.questions.map((question, number) => ({ question, number })).filter(({ question }) =>
    (state.set === "all" || question.set === state.set)
    && (!find || `${question.question} ${question.answer}`.toLowerCase().includes(find)));
  if (state.sort === "differ") {
    const [a, b] = [state.a, state.b].map((id) => scoresOf(runs[id], "rouge_l"));
    if (a && b) {
      const apart = ({ number }) => Math.abs((a[number] ?? 0) - (b[number] ?? 0));
      found.sort((one, other) => apart(other) - apart(one) || one.number - other.number);
    }
  }
  return found;
}

const drawList = () => keepFocus(fillList);

function fillList() {
  const found = matching();
  const [a, b] = [state.a, state.b].map((id) => scoresOf(runs[id], "rouge_l"));
  const sides = [["a", a], ["b", b]].slice(0, compared().length);
  $("count").textContent = `${found.length} of ${index.questions.length} questions; bars: ROUGE-L${sides.length > 1 ? " of A and B" : ""}`;
  $("list").replaceChildren(...found.map(({ question, number }) => {
    const bars = node("span", { className: "bars", ariaHidden: "true" }, ...sides.map(([side, of]) => {
      const bar = node("i", {});
      bar.style.setProperty("--hue", styleOf(runs[state[side]]).colour);
      bar.style.setProperty("--full", of?.[number] ?? 0);
      return bar;
    }));
    const name = node("span", { textContent: question.question });
    const ariaCurrent = String(number === state.q);
    const made = button({ ariaCurrent, tabIndex: -1 }, () => change({ q: number }), name, bars);
    made.dataset.number = number;
    return node("li", {}, made);
  }));
  const current = $("list").querySelector('[aria-current="true"]');
  const stop = current ?? $("list").querySelector("button");
  if (stop) stop.tabIndex = 0; // the list is one stop of the Tab key; arrows move in it
  if (current) $("list").scrollTop = current.offsetTop - $("list").offsetTop - 60;
}

function move(by) {
  const found = matching().map(({ number }) => number);
  const at = found.indexOf(state.q);
  if (found.length) change({ q: found[at < 0 ? 0 : (at + by + found.length) % found.length] });
}

function moveInList(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key], found = matching();
  const end = { Home: found[0], End: found.at(-1) }[event.key];
  if (!by && !end) return;
  event.preventDefault();
  if (by) move(by);
  else change({ q: end.number });
  $("list").querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
}

// --- columns ---

// What a run says where it stands: [text, scores …], or null while it is not there.
function cellOf(run, question) {
  const { place } = standOf(run);
  if (run.cells) return live.cell(run, place, question);
  const said = texts.get(state.q)?.ready;
  const cell = said?.cells[run.id]?.[place];
  return cell ? [said.strings[cell[0]], ...cell.slice(1)] : null;
}

function drawCompare() {
  const question = index.questions[state.q];
  for (const name of ["set", "sort", "mark"]) $(name).value = state[name];
  if (document.activeElement !== $("search")) $("search").value = state.find;
  drawList();
  $("question").textContent = question.question;
  showTruth($("truth"), question);
  $("legend=\"leak\"").hidden = state.mark !== "leak";
  $("legend=\"leak\"").classList.toggle("keep", question.set !== "forget");
  $("legend=\"change\"").hidden = state.mark !== "change";
  drawColumns(question);
  const number = state.q;
  fetchTexts(number).then((there) => {
    if (there && number === state.q && state.view === "compare") drawColumns(question);
    const found = matching(), next = found[found.findIndex((each) => each.number === number) + 1];
    if (there && next) fetchTexts(next.number);
  });
  for (const id of [state.a, state.b]) {
    if (!scoresOf(runs[id], "rouge_l")) fetchScores(runs[id]).then((there) => there && drawList());
  }
}

// With the texts that have come; fetches none.
function drawColumns(question) {
  const before = cellOf(runs.original, question);
  const { original, retained } = runs;
  const columns = { original, a: runs[state.a], b: runs[state.b], retained };
  for (const [side, run] of Object.entries(columns)) {
    if (run) drawColumn(side, run, question, before);
  }
  const one = state.a === state.b; // one run is one column
  $('column="b"').hidden = one;
  $("columns").style.setProperty("--columns", (one ? 2 : 3) + (retained ? 1 : 0));
}

function tagOf(run, side) {
  const { place, reached } = standOf(run);
  const source = run.pinned ? node("b", { textContent: "live, pinned" }) : run.live ? node("b", { textContent: "live" }) : "recorded";
  if (side === "retained") return [source, index.questions[state.q].set === "forget" ? " · never saw it" : ""];
  if (side === "original") return [source, " · before unlearning"];
  if (run.steps.length === 0) return [source, " · step –"];
  const p = shown(run.metrics.forget_probability[place]);
  const level = state.match === "level" ? ` · P(forget) ${p}${reached ? ", nearest" : `: ${LEVELS[state.level]} not reached`}` : "";
  return [source, ` · step ${run.steps[place]}${level}`];
}

function drawColumn(side, run, question, before) {
  const title = { original: "Original", retained: RETRAINED }[side] ?? run.label;
  const colour = side === "retained" ? "var(--ink)" : styleOf(run).colour;
  fillColumn($(`column="${side}"`), { title, colour, tag: tagOf(run, side) },
    cellOf(run, question), question, side === "original" ? null : before);
}

// Head, text, badges and scores of one answer; `before` is the original's, or null.
function fillColumn(column, { title, colour, tag }, cell, question, before) {
  column.style.setProperty("--hue", colour);
  column.querySelector("h3").textContent = title;
  column.querySelector(".tag").replaceChildren(...tag);
  const text = column.querySelector(".text");
  if (!cell) {
    text.className = "text none"; text.textContent = "…";
    for (const part of [".badges", ".scores"]) column.querySelector(part).replaceChildren();
    return;
  }
  const said = cell[0].trim();
  text.className = `text ${question.set === "forget" ? "" : "keep"} ${said ? "" : "none"}`;
  if (!said) text.textContent = "(says nothing)";
  else if (state.mark === "change" && before) showChange(text, cell[0], before[0]);
  else if (state.mark === "change") text.textContent = cell[0];
  else showLeak(text, cell[0], question);
  fillBadges(column, badgesOf(cell, question, before));
  const names = ["P(answer)", "ROUGE-L", "truth ratio", "fluency"];
  column.querySelector(".scores").replaceChildren(...names.map((name, i) => node("div", {},
    node("dt", { textContent: name }), node("dd", { textContent: shown(cell[i + 1], 2, 0) }),
    node("dd", { className: "was", title: "of the original", textContent: before ? shown(before[i + 1], 2, 0) : "" }))));
}

function fillBadges(column, badges) {
  column.querySelector(".badges").replaceChildren(...badges.map(([word, kind]) =>
    node("span", { className: `badge ${kind}`, textContent: word })));
}

function answerColumn(side, dashed) {
  const column = node("article", { className: dashed ? "column dashed" : "column" }, node("h3", {}),
    node("p", { className: "tag" }), node("p", { className: "text", dir: "auto", tabIndex: 0, role: "group", ariaLabel: "Answer" }),
    node("div", { className: "badges" }), node("dl", { className: "scores" }));
  column.dataset.column = side;
  return column;
}

function makeCompare() {
  const sides = ["original", "a", "b", ...(runs.retained ? ["retained"] : [])];
  $("columns").replaceChildren(...sides.map((side) => answerColumn(side, side === "retained")));
  $("set").replaceChildren(option("all", "all"), ...Object.entries(SETS).map(([value, name]) => option(value, name)));
  $("list").addEventListener("keydown", moveInList);
  $("search").addEventListener("input", () => change({ find: $("search").value }));
}
