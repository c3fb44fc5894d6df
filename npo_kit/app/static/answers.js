// What the runs say, and what it scores: fetched once, or from live runs.

const { asked } = kit.words;
const { index, state } = kit.state;
const { standOf } = kit.stands;
const { server } = kit.gradio;

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

const hasTexts = (question) => Boolean(texts.get(question)?.ready);

// What a live or pinned run said and scored at an evaluation.
const liveCell = (run, place, { set, index: row }) => run.cells[place]?.[set]?.[row] ?? null;

// What a run says to a question where it stands, with its scores; null while it is not there.
function cellOf(run, number) {
  const { place } = standOf(run);
  if (run.cells) return liveCell(run, place, index.questions[number]);
  const said = texts.get(number)?.ready;
  const cell = said?.cells[run.id]?.[place];
  return cell ? { ...cell, text: said.strings[cell.text] } : null;
}

// One score of all questions, at the place where the run stands; null while it is not there.
function scoresOf(run, name) {
  const { place } = standOf(run);
  if (!run.cells) return scores.get(run.id)?.ready?.[name][place] ?? null;
  return index.questions.map((question) => liveCell(run, place, question)?.[name] ?? null);
}

kit.answers = { fetchOnce, fetchTexts, hasTexts, fetchScores, liveCell, cellOf, scoresOf };
