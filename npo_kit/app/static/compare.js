// Compare: questions at the left, four models' answers side by side.

const texts = new Map(); // question -> {ready: what the server said, or null; coming: its promise}
const scores = new Map(); // run -> {ready, coming}: its scores at every question and step

// Fetches once what all runs say to a question; true when it is there.
async function fetchTexts(question) {
  if (!texts.has(question)) texts.set(question, { ready: null, coming: server.texts({ study: state.study, question }) });
  const entry = texts.get(question);
  const answer = await asked(entry.coming);
  if (!answer) { texts.delete(question); return false; }
  entry.ready = answer;
  return true;
}

// Fetches once the scores of a run; true when they are there.
async function fetchScores(run) {
  if (run.cells) return true;
  if (!scores.has(run.id)) scores.set(run.id, { ready: null, coming: server.scores({ study: state.study, run: run.id }) });
  const entry = scores.get(run.id);
  const answer = await asked(entry.coming);
  if (!answer) { scores.delete(run.id); return false; }
  entry.ready = answer;
  return true;
}

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

function drawList() {
  const found = matching();
  const [a, b] = [state.a, state.b].map((id) => scoresOf(runs[id], "rouge_l"));
  $("count").textContent = `${found.length} of ${index.questions.length} questions; bars: ROUGE-L of A and B`;
  $("list").replaceChildren(...found.map(({ question, number }) => {
    const bars = node("span", { className: "bars", ariaHidden: "true" }, ...[["a", a], ["b", b]].map(([side, of]) => {
      const bar = node("i", {});
      bar.style.setProperty("--hue", styleOf(runs[state[side]]).colour);
      bar.style.setProperty("--full", of?.[number] ?? 0);
      return bar;
    }));
    const button = node("button", { type: "button" }, node("span", { textContent: question.question }), bars);
    button.setAttribute("aria-current", String(number === state.q));
    button.addEventListener("click", () => change({ q: number }));
    return node("li", {}, button);
  }));
  const current = $("list").querySelector('[aria-current="true"]');
  if (current) $("list").scrollTop = current.offsetTop - $("list").offsetTop - 60;
}

function move(by) {
  const found = matching().map(({ number }) => number);
  const at = found.indexOf(state.q);
  if (found.length) change({ q: found[(at + by + found.length) % found.length] });
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
  $("legend=\"change\"").hidden = state.mark !== "change";
  const before = cellOf(runs.original, question);
  drawColumn("original", runs.original, question, before);
  drawColumn("a", runs[state.a], question, before);
  drawColumn("b", runs[state.b], question, before);
  if (runs.retained) drawColumn("retained", runs.retained, question, before);
  const number = state.q;
  fetchTexts(number).then((there) => {
    if (there && number === state.q && state.view === "compare") drawFetched();
    const found = matching(), next = found[found.findIndex((each) => each.number === number) + 1];
    if (there && next) fetchTexts(next.number);
  });
  for (const id of [state.a, state.b]) {
    if (!scoresOf(runs[id], "rouge_l")) fetchScores(runs[id]).then((there) => there && drawList());
  }
}

// Once the texts have come; no more fetching.
function drawFetched() {
  const question = index.questions[state.q], before = cellOf(runs.original, question);
  for (const [side, id] of [["original", "original"], ["a", state.a], ["b", state.b], ["retained", "retained"]]) {
    if (runs[id]) drawColumn(side, runs[id], question, before);
  }
}

function tagOf(run, side) {
  const { place, reached } = standOf(run);
  const source = run.pinned ? node("b", { textContent: "live, pinned" }) : run.live ? node("b", { textContent: "live" }) : "recorded";
  if (side === "retained") return [source, " · never saw it"];
  if (side === "original") return [source, " · before unlearning"];
  if (run.steps.length === 0) return [source, " · step –"];
  const p = shown(run.metrics.forget_probability[place]);
  const level = state.match === "level" ? ` · P(forget) ${p}${reached ? "" : ", no lower"}` : "";
  return [source, ` · step ${run.steps[place]}${level}`];
}

function drawColumn(side, run, question, before) {
  const column = $(`column="${side}"`);
  column.style.setProperty("--hue", side === "retained" ? "var(--ink)" : styleOf(run).colour);
  column.querySelector("h3").textContent = side === "original" ? "Original" : side === "retained" ? "Retained-only" : run.label;
  column.querySelector(".tag").replaceChildren(...tagOf(run, side));
  const cell = cellOf(run, question);
  fillAnswer(column, cell, question, side === "original" ? null : before);
}

// Text, badges and scores of one answer; `before` is the original's, or null.
function fillAnswer(column, cell, question, before) {
  const text = column.querySelector(".text");
  if (!cell) {
    text.className = "text none"; text.textContent = "…";
    column.querySelector(".badges").replaceChildren();
    return;
  }
  const said = cell[0].trim();
  text.className = said ? "text" : "text none";
  if (!said) text.textContent = "(says nothing)";
  else if (state.mark === "change" && before) showChange(text, cell[0], before[0]);
  else if (state.mark === "change") text.textContent = cell[0];
  else showLeak(text, cell[0], question);
  column.querySelector(".badges").replaceChildren(...badgesOf(cell, question).map(([word, kind]) =>
    node("span", { className: `badge ${kind}`, textContent: word })));
  const names = ["P(answer)", "ROUGE-L", "truth ratio", "fluency"];
  column.querySelector(".scores").replaceChildren(...names.map((name, i) => node("div", {},
    node("dt", { textContent: name }), node("dd", { textContent: shown(cell[i + 1], 2, 0) }),
    node("dd", { className: "was", title: "of the original", textContent: before ? shown(before[i + 1], 2, 0) : "" }))));
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
  $("columns").style.setProperty("--columns", sides.length);
  $("set").replaceChildren(option("all", "all"), ...Object.entries(SETS).map(([value, name]) => option(value, name)));
  for (const name of ["set", "sort", "mark"]) $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  $("search").addEventListener("input", () => change({ find: $("search").value }));
}
