// The state from the address and back, and how it changes.

const { PROPS, USUAL, index, runs, state } = kit.state;
const { ROWS, rowOf } = kit.names;
const { eligible } = kit.stands;

const ALWAYS = ["q", "k", "step", "a", "b"]; // in the address whatever their value

let drawPage = null;

// Everything is drawn anew by `does` from now on.
function onChange(does) {
  drawPage = does;
}

const draw = () => drawPage();

// What the address says, by name.
const given = () => new URLSearchParams(location.hash.slice(1));

function readAddress() {
  const texts = given();
  for (const [name, { usual, read }] of Object.entries(PROPS)) {
    state[name] = (texts.has(name) ? read(texts.get(name)) : undefined) ?? usual;
  }
}

// What the address may not say: runs and questions that this study does not have.
function settleState() {
  const there = eligible();
  const ids = there.map((run) => run.id);
  const usual = (id, otherwise) => (runs[id]?.kind === "unlearn" ? id : otherwise.id);
  if (!ids.includes(state.a)) state.a = usual("ga", there[0]);
  if (!ids.includes(state.b)) state.b = usual("npo_rt", there.at(-1));
  if (!ids.includes(state.c)) state.c = "";
  settleQuestions();
  for (const name of ["la", "lb"]) {
    if (!index.live.methods.includes(state[name])) state[name] = "";
  }
}

// Each row has a question of its kind, where the study has one. An older link has one question.
function settleQuestions() {
  const rowAt = (number) => rowOf(index.questions[number]?.set);
  if (!given().has("k") && state.q in index.questions && rowAt(state.q) === "keep") {
    state.k = state.q;
  }
  for (const [row, name] of Object.entries(ROWS)) {
    const fits = state[name] in index.questions && rowAt(state[name]) === row;
    if (!fits) state[name] = index.opening[row] ?? 0;
  }
}

function addressOf(more = {}) {
  const kept = Object.entries({ ...state, ...more }).filter(([name, value]) => {
    const told = ALWAYS.includes(name) || value !== USUAL[name];
    return told && !/^(live|pin)-/.test(value);
  });
  return `#${new URLSearchParams(kept)}`;
}

// Another view or question is a new place to come back from; every other change is the same place.
function change(more) {
  const { view, q, k } = state;
  Object.assign(state, more);
  settleState();
  const moved = state.view !== view || state.q !== q || state.k !== k;
  history[moved ? "pushState" : "replaceState"](null, "", addressOf());
  draw();
}

kit.address = { onChange, draw, given, readAddress, settleState, addressOf, change };
