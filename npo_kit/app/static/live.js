// The live pair: asks the server for two runs and keeps their events as it keeps recorded runs.

const { server } = kit.gradio;
const { $, action } = kit.dom;
const { say, complain, asked, save } = kit.words;
const { index, runs, state } = kit.state;
const { draw, change } = kit.address;
const { Visit } = kit.visit;
const { TOLD } = kit.relearn;

const live = {
  jobs: [],
  stopping: false, // until the server says so: what starts meanwhile would be ended with it
  sent: 0, // prompts
  asked: 0, // the number of the prompt that is shown
  prompt: "",
  pins: 0,
  watched: 0, // the number of the question whose answers are shown
  attack: null, // the relearning attack on the finished pair
  // In the queue; 0: its turn has come.
  get place() {
    return visit.place;
  },
  get going() {
    return this.jobs.some((job) => !job.trained);
  },
  // Whether it can be asked.
  get there() {
    return this.jobs.some((job) => !job.over);
  },
  get questions() {
    return this.jobs.find((job) => job.questions)?.questions ?? index.questions;
  },
};

const visit = new Visit({
  there: () => live.there,
  // A finished pair only waits for prompts.
  busy: () =>
    live.going
    || live.attack?.busy
    || (live.asked && live.jobs.some((j) => !j.over && !j.replies[live.asked]?.whole)),
  take(events, began) {
    events.forEach((each, number) => {
      for (const event of each) TAKES[event.event](live.jobs[number], event);
    });
    if (began) watchQuestion();
    if (visit.place || began || events.some((each) => each.length)) draw();
  },
  lost(problem) {
    endLive("lost");
    complain(problem);
    draw();
  },
  back: watchQuestion,
});
const visitor = visit.name;
live.visit = visit;

// Starts a pair with the settings of side A and side B.
async function startLive(settings) {
  if (live.jobs.length) await clearLive();
  action("start").disabled = true;
  const answer = await asked(server.start({ visitor, runs: settings }));
  if (!answer) {
    action("start").disabled = false;
    return;
  }
  complain("");
  const { pocket, task } = index.live;
  const same = pocket && index.task === task && (state.lpart ?? 10) === 10;
  const pair = settings.map(({ hyper, ...given }) => ({ ...given, ...hyper }));
  const looks = looksOf(pair);
  live.jobs = pair.map((given, number) => jobOf(given, number, looks[number], !same));
  visit.begin(live.jobs.length);
  for (const job of live.jobs) runs[job.id] = job;
  live.watched = same ? state.q : 0;
  say("Live run started");
  draw();
  watchQuestion();
  visit.keepPolling();
}

// A run that has said nothing yet; `foreign` where its questions are not this study's.
function jobOf(given, number, look, foreign) {
  const id = { id: `live-${number}`, group: `live ${number}`, label: `${look.label} (live)`, look };
  const kind = { kind: "unlearn", live: true, foreign };
  // Its evaluations of all rows, as of a recorded run; `way` has those of a few rows as well.
  const evaluated = { ...noEvaluations(), way: noEvaluations() };
  const said = { history: [], answers: {}, replies: {} };
  const stands = { status: "starting", now: 0, trained: false, over: false };
  const unset = { beta: null, retain_weight: null };
  return { ...unset, ...given, ...id, ...kind, ...evaluated, ...said, ...stands };
}

function noEvaluations() {
  const metrics = Object.fromEntries(index.metrics.map((name) => [name, []]));
  return { steps: [], cells: [], weights: [], metrics };
}

// How the pair is called and drawn; two runs of one method differ in name, dash and marker, and
// have a `short` name for where there is little room.
function looksOf([a, b]) {
  const look = (given) => index.styles[given.method];
  if (a.method !== b.method) return [look(a), look(b)];
  const { lr, epochs, seed, ...own } = index.live.controls[a.method];
  const apart = [...Object.keys(own), "lr", "epochs"].filter((name) => a[name] !== b[name]);
  const looked = (given, side) => {
    const told = apart.map((name) => `${own[name]?.label.toLowerCase() ?? name} ${given[name]}`);
    const words = told.length ? told : [side];
    return { ...look(given), label: [look(given).label, ...words].join(" "), short: words[0] };
  };
  const marker = look(b).marker === "s" ? "o" : "s";
  return [looked(a, "A"), { ...looked(b, "B"), dash: "2 5", marker }];
}

function watchQuestion() {
  const question = live.questions[live.watched];
  if (!live.there || !question) return;
  server.watch({ visitor, set: question.set, index: question.index });
}

// --- the events ---

// Event -> what it does to its job.
const TAKES = {
  loading() {},
  started(job, { event, steps, ...about }) {
    Object.assign(job, { total: steps, status: "running", ...about });
  },
  step(job, { step, loss, weights }) {
    Object.assign(job, { now: step, loss });
    job.history.push({ step, weights });
  },
  answer(job, { question, step, text }) {
    job.answers[question.join(" ")] = { step, text };
  },
  token(job, { number, ...reply }) {
    job.replies[number] = reply;
  },
  evaluation(job, { whole, ...evaluation }) {
    addEvaluation(job.way, evaluation);
    if (whole) addEvaluation(job, evaluation);
  },
  finished: (job) => Object.assign(job, { trained: true, status: "finished" }),
  collapsed: (job, { step, reason }) => endJob(job, `collapsed at step ${step}: ${reason}`),
  failed: (job, { reason }) => endJob(job, `failed: ${reason}`),
  stopped: (job) => endJob(job, "stopped"),
};

for (const name of TOLD) TAKES[name] = (job, event) => live.attack?.hear(event, job.id);

function addEvaluation(kept, { step, cells, weights, metrics }) {
  kept.steps.push(step);
  kept.cells.push(cells);
  kept.weights.push(weights);
  for (const name of index.metrics) kept.metrics[name].push(metrics[name]);
}

function endJob(job, how) {
  const status = job.trained && how === "stopped" ? "finished; its model is put away" : how;
  live.attack?.end();
  Object.assign(job, { status, over: true, trained: true });
}

function endLive(how) {
  for (const job of live.jobs) if (!job.over) endJob(job, how);
}

// --- what the visitor does with it ---

async function stopLive() {
  live.stopping = true;
  draw();
  const answer = await asked(server.stop({ visitor }));
  live.stopping = false;
  if (answer) {
    endLive(live.place ? "stopped, out of the queue" : "stopped");
    visit.place = 0;
    complain("");
    say(`Live run ended: ${live.jobs.map((job) => job.status).join(", ")}`);
    visit.wake();
  }
  draw();
}

// Lets go of the pair; what was pinned stays.
async function clearLive() {
  for (const job of live.jobs) delete runs[job.id];
  Object.assign(live, { jobs: [], attack: null });
  visit.place = live.asked = 0;
  await server.leave({ visitor });
  complain("");
  change({});
}

async function askBoth() {
  const prompt = $("prompt").value;
  const number = (live.sent += 1);
  if (!prompt.trim()) {
    complain("There is no question: write one.");
    return;
  }
  if (await asked(server.ask({ visitor, prompt, number }))) {
    Object.assign(live, { asked: number, prompt });
    complain("");
  }
  visit.keepPolling();
  draw();
}

function pin(job) {
  live.pins += 1;
  const id = `pin-${live.pins}`;
  const label = `${job.look.label}, pinned ${live.pins}`;
  const kept = structuredClone({ ...job, way: null, answers: {}, replies: {} });
  runs[id] = { ...kept, id, live: false, pinned: true, group: id, label };
  say(`${label} is kept in the charts`);
  change({});
}

async function download(number) {
  const file = await asked(server.download({ visitor, run: number }));
  if (!file) return;
  const bytes = Uint8Array.from(atob(file.base64), (c) => c.charCodeAt(0));
  save(file.name, bytes, "application/zip");
}

function makeLive() {
  action("stop").addEventListener("click", stopLive);
  action("clear").addEventListener("click", clearLive);
  $("watch").addEventListener("change", () => {
    live.watched = Number($("watch").value);
    watchQuestion();
    draw();
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    askBoth();
  });
}

kit.live = { live, makeLive, startLive, pin, download };
