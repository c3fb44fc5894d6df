// The live pair: asks the server for two runs and keeps their events as it keeps recorded runs.

const { server } = kit.gradio;
const { $, action } = kit.dom;
const { say, complain, asked, save } = kit.words;
const { index, runs, state } = kit.state;
const { draw, change } = kit.address;

const POLL_PATIENCE = 20_000; // milliseconds after which a poll counts as lost

const visitor = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("");
const live = {
  jobs: [],
  polling: false,
  stopping: false, // until the server says so: what starts meanwhile would be ended with it
  place: 0, // in the queue; 0: its turn has come
  sent: 0, // prompts
  asked: 0, // the number of the prompt that is shown
  prompt: "",
  pins: 0,
  watched: 0, // the number of the question whose answers are shown
  wake() {},
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
  for (const job of live.jobs) runs[job.id] = job;
  live.watched = same ? state.q : 0;
  say("Live run started");
  draw();
  watchQuestion();
  keepPolling();
}

// A run that has said nothing yet; `foreign` where its questions are not this study's.
function jobOf(given, number, look, foreign) {
  const id = { id: `live-${number}`, group: `live ${number}`, label: `${look.label} (live)`, look };
  const kind = { kind: "unlearn", live: true, foreign };
  const metrics = Object.fromEntries(index.metrics.map((name) => [name, []]));
  const said = { steps: [], cells: [], weights: [], history: [], answers: {}, replies: {} };
  const stands = { seen: 0, status: "starting", now: 0, trained: false, over: false };
  const unset = { beta: null, retain_weight: null };
  return { ...unset, ...given, ...id, ...kind, metrics, ...said, ...stands };
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

// Waits; `live.wake` ends it early.
const pause = (milliseconds) =>
  new Promise((done) => {
    live.wake = done;
    setTimeout(done, milliseconds);
  });

function keepPolling() {
  if (live.polling) live.wake();
  else pollLive();
}

async function pollLive() {
  live.polling = true;
  const jobs = live.jobs;
  let lost = 0; // polls in a row
  while (live.jobs === jobs && live.there) {
    const late = new Promise((done) => setTimeout(done, POLL_PATIENCE));
    const since = jobs.map((job) => job.seen);
    const answer = await Promise.race([server.poll({ visitor, since }), late]);
    if (live.jobs !== jobs || !live.there) break; // stopped or begun anew meanwhile
    if (!answer) {
      const seconds = Math.min(30, 2 ** lost);
      lost += 1;
      complain(`The connection is lost: trying again in ${seconds} s. The runs go on meanwhile.`);
      await pause(1000 * seconds);
      continue;
    }
    if (lost) {
      complain("");
      say("Connected again");
      watchQuestion();
    }
    lost = 0;
    if (answer.problem) {
      endLive("lost");
      complain(answer.problem);
      draw();
      break;
    }
    takeAnswer(jobs, answer);
    const owed = live.asked && jobs.some((job) => !job.over && !job.replies[live.asked]?.whole);
    await pause(live.going || owed ? 300 : 2000); // a finished pair only waits for prompts
  }
  live.polling = false;
  if (live.jobs !== jobs && live.there) pollLive();
}

function takeAnswer(jobs, answer) {
  const started = live.place > 0 && answer.place === 0;
  live.place = answer.place;
  answer.events.forEach((events, number) => {
    jobs[number].seen += events.length;
    for (const event of events) TAKES[event.event](jobs[number], event);
  });
  if (started) watchQuestion();
  if (answer.place || started || answer.events.some((events) => events.length)) draw();
}

// Event -> what it does to its job.
const TAKES = {
  loading() {},
  started(job, { steps, questions, command, cell }) {
    Object.assign(job, { total: steps, status: "running", questions, command, cell });
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
  evaluation(job, { step, cells, weights, metrics }) {
    job.steps.push(step);
    job.cells.push(cells);
    job.weights.push(weights);
    for (const name of index.metrics) job.metrics[name].push(metrics[name]);
  },
  finished: (job) => Object.assign(job, { trained: true, status: "finished" }),
  collapsed: (job, { step, reason }) => endJob(job, `collapsed at step ${step}: ${reason}`),
  failed: (job, { reason }) => endJob(job, `failed: ${reason}`),
  stopped: (job) => endJob(job, "stopped"),
};

function endJob(job, how) {
  const status = job.trained && how === "stopped" ? "finished; its model is put away" : how;
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
    live.place = 0;
    complain("");
    say(`Live run ended: ${live.jobs.map((job) => job.status).join(", ")}`);
    live.wake();
  }
  draw();
}

// Lets go of the pair; what was pinned stays.
async function clearLive() {
  for (const job of live.jobs) delete runs[job.id];
  live.jobs = [];
  live.place = live.asked = 0;
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
  keepPolling();
  draw();
}

function pin(job) {
  live.pins += 1;
  const id = `pin-${live.pins}`;
  const label = `${job.look.label}, pinned ${live.pins}`;
  const kept = structuredClone({ ...job, answers: {}, replies: {} });
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

// As server.leave, by a request that the browser sends on when the page is gone.
function leaveForGood() {
  if (!live.there) return;
  const { root, api_prefix: prefix, components } = window.gradio_config;
  const asks = { component_id: components[0].id, fn_name: "leave", session_hash: visitor };
  fetch(`${root}${prefix}/component_server/`, {
    method: "POST",
    keepalive: true,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...asks, data: { visitor } }),
  });
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
  for (const event of ["online", "visibilitychange"]) {
    window.addEventListener(event, () => live.wake());
  }
  window.addEventListener("pagehide", leaveForGood);
}

kit.live = { live, makeLive, startLive, pin, download };
