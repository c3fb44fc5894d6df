// The live pair: asks the server for two runs and keeps their events as it keeps recorded runs.

const visitor = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("");
const live = {
  jobs: [], follow: true, polling: false, place: 0, asked: 0, pins: 0, watched: 0,
  get going() { return this.jobs.some((job) => !job.trained); },
  get there() { return this.jobs.some((job) => !job.over); }, // to be asked
  get questions() { return this.jobs.find((job) => job.questions)?.questions ?? index.questions; },
  // What a live or pinned run says: its newest answer, or the evaluation's where one looks back.
  cell(run, place, question) {
    const { set, index: row } = question, scored = run.cells[place]?.[set]?.[row] ?? null;
    const newest = run.live && this.follow ? run.answers[`${set} ${row}`] : null;
    if (!newest || newest.step <= (run.steps.at(-1) ?? -1)) return scored;
    return [newest.text, ...(scored ?? Array(6).fill(null)).slice(1)];
  },
};

async function startLive() {
  if (live.jobs.length) await clearLive();
  action("start").disabled = true;
  const settings = ["a", "b"].map(askedOf);
  const answer = await asked(server.start({ visitor, runs: settings }));
  if (!answer) { action("start").disabled = false; return; }
  complain("");
  const { pocket, task } = index.live;
  const same = pocket && index.task === task && settingsOf("a").percent === 10;
  live.jobs = settings.map((given, number) => ({
    ...given, id: `live-${number}`, group: `live ${number}`, kind: "unlearn", live: true,
    foreign: !same, main: false, label: `${index.styles[given.method].label} (live)`,
    beta: given.beta ?? null, retain_weight: given.retain_weight ?? null,
    metrics: Object.fromEntries(index.metrics.map((m) => [m, []])),
    steps: [], cells: [], weights: [], history: [], answers: {}, replies: {},
    seen: 0, status: "starting", now: 0, trained: false, over: false,
  }));
  for (const job of live.jobs) runs[job.id] = job;
  live.follow = true;
  live.watched = same ? state.q : 0;
  say("Live run started");
  draw();
  watchQuestion();
  if (!live.polling) pollLive();
}

function watchQuestion() {
  const question = live.questions[live.watched];
  if (!live.there || !question) return;
  server.watch({ visitor, set: question.set, index: question.index });
}

async function pollLive() {
  live.polling = true;
  const jobs = live.jobs;
  while (live.jobs === jobs && live.there) {
    const answer = await server.poll({ visitor, since: jobs.map((job) => job.seen) });
    if (live.jobs !== jobs) break;
    if (!answer || answer.problem) {
      endLive("lost");
      complain(answer?.problem ?? "The server does not answer: is it still running?");
      draw();
      break;
    }
    const started = live.place > 0 && answer.place === 0;
    live.place = answer.place;
    answer.events.forEach((events, number) => events.forEach((event) => {
      jobs[number].seen += 1;
      TAKES[event.event](jobs[number], event);
    }));
    if (started) watchQuestion();
    if (answer.place || started || answer.events.some((events) => events.length)) draw();
    const owed = live.asked && jobs.some((job) => !job.over && !job.replies[live.asked]?.whole);
    // a finished pair only waits for prompts
    await new Promise((done) => { setTimeout(done, live.going || owed ? 300 : 2000); });
  }
  live.polling = false;
  if (live.jobs !== jobs && live.there) pollLive();
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
  answer(job, { question, step, text }) { job.answers[question.join(" ")] = { step, text }; },
  token(job, { number, text, whole }) { job.replies[number] = { text, whole }; },
  evaluation(job, { step, cells, weights, metrics }) {
    job.steps.push(step);
    job.cells.push(cells);
    job.weights.push(weights);
    for (const name of index.metrics) job.metrics[name].push(metrics[name]);
  },
  finished(job) { Object.assign(job, { trained: true, status: "finished" }); },
  collapsed(job, { step, reason }) { endJob(job, `collapsed at step ${step}: ${reason}`); },
  failed(job, { reason }) { endJob(job, `failed: ${reason}`); },
  stopped(job) { endJob(job, "stopped"); },
};

function endJob(job, how) {
  const status = job.trained && how === "stopped" ? "finished; its model is put away" : how;
  Object.assign(job, { status, over: true, trained: true });
}

function endLive(how) {
  for (const job of live.jobs) if (!job.over) endJob(job, how);
}

async function stopLive() {
  action("stop").disabled = true;
  await asked(server.stop({ visitor }));
  endLive("stopped");
  say(`Live run ended: ${live.jobs.map((job) => job.status).join(", ")}`);
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
  live.asked += 1;
  live.prompt = $("prompt").value;
  const answer = await asked(server.ask({ visitor, prompt: live.prompt, number: live.asked }));
  if (answer) complain("");
  if (!live.polling) pollLive();
  draw();
}

function pin(job) {
  live.pins += 1;
  const id = `pin-${live.pins}`, kept = structuredClone({ ...job, answers: {}, replies: {} });
  const label = `${index.styles[job.method].label}, pinned ${live.pins}`;
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
