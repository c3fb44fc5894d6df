// A visitor's secrets: the pocket model learns them on the server, two methods unlearn them.

const { server } = kit.gradio;
const { $, action, node } = kit.dom;
const { say, complain, asked } = kit.words;
const { SECRET, index, state } = kit.state;
const { draw } = kit.address;
const { slider } = kit.knobs;
const { Visit } = kit.visit;
const { TOLD } = kit.relearn;

const MODELS = ["untouched", "taught", "ga", "npo_rt"];
const PARTS = ["question", "answer"];
const BUSY = ["waiting", "teaching", "unlearning"];

const secret = {
  // typing; waiting for a process or a place; teaching, taught, unlearning, finished; ended
  phase: "typing",
  rows: [], // as they are taught
  notes: [],
  kept: [], // the questions that judge what a model keeps
  models: {},
  watched: { forget: 0, retain: 0 },
  most: 0, // steps of teaching at most
  taught: 0, // steps that it took
  keeps: true, // whether the taught model still says the answer to a question to keep
  total: 0, // steps of unlearning
  ended: "", // how, in words
  sent: 0, // prompts
  asked: 0, // the number of the prompt that is shown
  prompt: "",
  attack: null, // the relearning attack on the models that have unlearned
  prepared: false,
  stopping: false, // until the server says so
  get begun() {
    return this.phase !== "typing";
  },
  get there() {
    return !["typing", "ended"].includes(this.phase);
  },
  get busy() {
    return BUSY.includes(this.phase);
  },
};

const visit = new Visit({
  there: () => secret.there,
  busy: () =>
    secret.busy
    || secret.attack?.busy
    || (secret.asked && known().some((m) => !m.replies[secret.asked]?.whole)),
  take([events = []]) {
    const { phase } = secret;
    for (const event of events) TAKES[event.event](event);
    if (secret.phase !== phase) complain(""); // it was of what has passed
    if (events.length || visit.place) draw();
  },
  lost(problem) {
    end("The server has put the models away.");
    complain(problem);
    draw();
  },
  back() {},
});
const visitor = visit.name;
secret.visit = visit;

// The models that are there.
const known = () => MODELS.map((name) => secret.models[name]).filter(Boolean);

const newModel = () => ({ step: 0, history: [], texts: {}, replies: {}, broken: null });

// The place in the queue; 0 for one whose turn has come.
const placeOf = () => visit.place;

// Asks the server, once, to have processes ready.
function prepare() {
  if (secret.prepared) return;
  secret.prepared = true;
  server.prepare({});
}

// --- the events ---

// Event -> what it does.
const TAKES = {
  loading() {},
  started({ rows, notes, kept, most }) {
    Object.assign(secret, { rows, notes, kept, most, phase: "teaching" });
    secret.models = { untouched: newModel(), taught: newModel() };
  },
  step({ model, step }) {
    secret.models[model].step = step;
  },
  scores({ model, step, secrets, kept }) {
    secret.models[model].history.push({ step, secrets, kept });
  },
  answer({ model, question: [set, place], step, text }) {
    secret.models[model].texts[set] = { place, step, text };
    secret.watched[set] = place;
  },
  token({ model, number, ...reply }) {
    secret.models[model].replies[number] = reply;
  },
  taught({ step, keeps }) {
    Object.assign(secret, { phase: "taught", taught: step, keeps });
    say(`Taught in ${step} steps`);
  },
  unlearning({ steps, methods }) {
    Object.assign(secret, { phase: "unlearning", total: steps });
    for (const name of methods) secret.models[name] = newModel();
  },
  broken({ model, step }) {
    secret.models[model].broken = step;
  },
  finished() {
    secret.phase = "finished";
    say("Unlearned by both methods");
  },
  failed: ({ reason }) => end(reason),
  stopped: () => end("Stopped: the models are put away."),
};

for (const name of TOLD) TAKES[name] = (event) => secret.attack?.hear(event, "");

function end(how) {
  if (!secret.there) return;
  secret.attack?.end();
  Object.assign(secret, { phase: "ended", ended: how });
  visit.place = 0;
}

// --- what the visitor does ---

const rowInputs = () => [...$("secret-rows").children];

const typedRows = () =>
  rowInputs().map((row) =>
    Object.fromEntries(PARTS.map((part) => [part, row.querySelector(`.${part}`).value])),
  );

async function teach() {
  const fresh = { models: {}, notes: [], asked: 0, attack: null };
  Object.assign(secret, { ...fresh, phase: "waiting", rows: typedRows() });
  draw();
  const answer = await asked(server.teach({ visitor, rows: secret.rows }));
  if (!answer) {
    secret.phase = "typing";
    draw();
    return;
  }
  complain("");
  visit.begin(1);
  visit.keepPolling();
}

async function unlearn() {
  if (secret.busy) return; // pressed twice
  const { phase, models } = secret;
  const { untouched, taught } = models;
  Object.assign(secret, { phase: "unlearning", total: 0, models: { untouched, taught } });
  draw();
  const names = Object.entries(SECRET);
  const settings = Object.fromEntries(names.map(([name, place]) => [name, state[place]]));
  if (await asked(server.unlearn({ visitor, settings }))) {
    secret.attack = null;
    complain("");
    visit.keepPolling();
  } else if (secret.there) {
    Object.assign(secret, { phase, models });
    draw();
  }
}

async function stop() {
  secret.stopping = true;
  draw();
  const answer = await asked(server.stop({ visitor }));
  secret.stopping = false;
  draw();
  if (!answer) return;
  end("Stopped: the models are put away.");
  complain("");
  visit.wake();
  draw();
}

// Back to typing, with what was typed; the server forgets it.
async function startOver() {
  await server.leave({ visitor });
  Object.assign(secret, {
    phase: "typing",
    models: {},
    notes: [],
    rows: [],
    asked: 0,
    attack: null,
  });
  visit.begin(0);
  complain("");
  draw();
  $("secret-rows").querySelector("input").focus();
}

async function askAll() {
  const prompt = $("secret-prompt").value;
  if (!prompt.trim()) {
    complain("There is no question: write one.");
    return;
  }
  const number = (secret.sent += 1);
  if (await asked(server.ask({ visitor, prompt, number }))) {
    Object.assign(secret, { asked: number, prompt });
    complain("");
  }
  visit.keepPolling();
  draw();
}

// Shows the answers to another secret, or to another question to keep.
function watch(set, place) {
  secret.watched[set] = place;
  if (secret.there) server.watch({ visitor, set, index: place });
  visit.keepPolling();
  draw();
}

// --- the form ---

function addRow({ question = "", answer = "" } = {}) {
  const number = rowInputs().length + 1;
  const { example } = index.secret;
  const input = (part, value) =>
    node("input", {
      className: `line ${part}`,
      value,
      dir: "auto",
      autocomplete: "off",
      ariaLabel: `${part === "question" ? "Question" : "Answer"} ${number}`,
      placeholder: number === 1 ? example[part] : part === "question" ? "A question" : "Its answer",
    });
  const row = node("li", {}, input("question", question), input("answer", answer));
  $("secret-rows").append(row);
  action("more").hidden = rowInputs().length >= index.secret.rows;
  return row;
}

function makeSecret() {
  const { controls, example } = index.secret;
  $("secret-rows").replaceChildren();
  addRow(example);
  action("more").addEventListener("click", () => addRow().querySelector("input").focus());
  $("secret-form").addEventListener("submit", (event) => {
    event.preventDefault();
    teach();
  });
  const actions = { unlearn, halt: stop, over: startOver };
  for (const [name, does] of Object.entries(actions)) action(name).addEventListener("click", does);
  $("secret-ask").addEventListener("submit", (event) => {
    event.preventDefault();
    askAll();
  });
  const knobs = Object.entries(controls).map(([name, about]) => slider(SECRET[name], about));
  $("secret-knobs").replaceChildren(...knobs);
}

kit.secret = { MODELS, secret, known, placeOf, prepare, makeSecret, watch };
