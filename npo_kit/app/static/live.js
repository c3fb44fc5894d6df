// Live runs: asks the server for their events and keeps them as it keeps recorded runs.

const visitor = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("");
const live = {
  on: false, follow: true, jobs: [],
  total() { return this.on ? Math.max(...this.jobs.map((job) => job.total || 0), 0) : 0; },
  // The latest answer to the question, or that of an evaluation where the viewer went back.
  cell(run, number, question, step) {
    const place = placeOf(run, step);
    const scored = run.cells[place]?.[question.set]?.[question.index];
    const newest = this.follow ? run.answers[number] : null;
    if (newest && newest.step >= (run.steps.at(-1) ?? 0)) {
      return { cell: [newest.text, ...(scored || [null, null, null, null, null]).slice(1)], step: newest.step };
    }
    return scored ? { cell: scored, step: run.steps[place] } : null;
  },
};

function makeKnobs() {
  for (const [id, label, low, high, step, log] of KNOBS) {
    const input = node("input", { type: "range", min: low, max: high, step });
    const out = node("output", {});
    const title = node("span", { textContent: label });
    input.dataset.knob = id;
    input.addEventListener("input", () => { input.dataset.touched = "1"; out.textContent = knobText(input, log); });
    $("knobs").append(node("label", {}, title, input, out));
  }
}

const knob = (id) => $(`knob="${id}"`);
const isLog = (id) => KNOBS.find(([name]) => name === id)[5];
const knobValue = (id) => isLog(id) ? Number((10 ** Number(knob(id).value)).toPrecision(2)) : Number(knob(id).value);
const knobText = (input, log) => log ? Number((10 ** Number(input.value)).toPrecision(2)).toString() : input.value;

// Knobs that nobody touched show what the recorded runs of the two methods used.
function settleKnobs() {
  if (live.on) return;
  const [a, b] = [runs[state.a], runs[state.b]];
  const given = {
    "lr-a": a.lr, "lr-b": b.lr, beta: b.beta ?? a.beta ?? 0.1,
    retain: b.retain_weight ?? a.retain_weight ?? 1, epochs: b.epochs ?? 10,
  };
  for (const [id] of KNOBS) {
    const input = knob(id);
    if (!input.dataset.touched) input.value = isLog(id) ? Math.log10(given[id]) : given[id];
    input.nextSibling.textContent = knobText(input, isLog(id));
  }
  knob("lr-a").previousSibling.textContent = `Learning rate ${a.methodLabel}`;
  knob("lr-b").previousSibling.textContent = `Learning rate ${b.methodLabel}`;
}

function settingsOf(run, side) {
  const settings = { method: run.method, lr: knobValue(`lr-${side}`), epochs: knobValue("epochs") };
  if (run.beta !== null) settings.beta = knobValue("beta");
  if (run.method.includes("_")) settings.retain_weight = knobValue("retain");
  return settings;
}

async function startLive() {
  const chosen = ["a", "b"].map((side) => [side, runs[state[side]]]);
  action("start").disabled = true;
  const answer = await server.start({ visitor, runs: chosen.map(([side, run]) => settingsOf(run, side)) });
  if (answer.problem) { say(answer.problem, true); action("start").disabled = false; return; }
  say("", true);
  live.jobs = chosen.map(([side, run], number) => ({
    id: `live-${number}`, side, kind: "unlearn", live: true, method: run.method, beta: run.beta,
    lr: run.lr, retain_weight: run.retain_weight, methodLabel: run.methodLabel,
    label: `${run.methodLabel} (live)`, steps: [], metrics: Object.fromEntries(index.metrics.map((m) => [m, []])),
    cells: [], answers: {}, seen: 0, status: "starting", now: 0, recorded: run.id,
  }));
  for (const job of live.jobs) runs[job.id] = job;
  Object.assign(live, { on: true, follow: true });
  action("stop").disabled = false;
  action("recorded").hidden = false;
  $("source").textContent = "live"; $("source").classList.add("live");
  say("Live run started");
  watchQuestion();
  change({ a: "live-0", b: "live-1", step: 0 });
  pollLive();
}

function watchQuestion() {
  const { set, index: row } = index.questions[state.q];
  live.watched = state.q;
  server.watch({ visitor, set, index: row, question: state.q });
}

async function pollLive() {
  if (!live.on) return;
  const answer = await server.poll({ visitor, since: live.jobs.map((job) => job.seen) });
  if (!live.on || live.jobs.every((job) => job.over)) return;
  if (answer.problem) {
    for (const job of live.jobs) if (!job.over) Object.assign(job, { over: true, status: "lost" });
    say(answer.problem, true);
    endLive();
    return;
  }
  answer.events.forEach((events, number) => events.forEach((event) => take(live.jobs[number], event)));
  if (answer.events.some((events) => events.length)) {
    if (live.follow) state.step = Math.max(...live.jobs.map((job) => job.now), 0);
    draw();
    drawProgress();
  }
  if (live.jobs.every((job) => job.over)) { endLive(); return; }
  if (live.watched !== state.q) watchQuestion();
  setTimeout(pollLive, 300);
}

function take(job, event) {
  job.seen += 1;
  if (event.event === "started") { job.total = event.steps; job.status = "running"; }
  else if (event.event === "step") { job.now = event.step; job.loss = event.loss; job.weights = event.weights; }
  else if (event.event === "answer") {
    const number = index.questions.findIndex((q) => q.set === event.question[0] && q.index === event.question[1]);
    job.answers[number] = { step: event.step, text: event.text };
  } else if (event.event === "evaluation") {
    job.steps.push(event.step);
    job.cells.push(event.cells);
    for (const name of index.metrics) job.metrics[name].push(event.metrics[name]);
  } else if (event.event !== "loading") {
    job.over = true;
    job.status = event.event === "collapsed" ? `collapsed at step ${event.step}: ${event.reason}`
      : event.event === "failed" ? `failed: ${event.reason}` : event.event;
  }
}

function drawProgress() {
  $("progress").replaceChildren(...live.jobs.map((job) => {
    const weight = job.weights ? `, median weight W ${shown(job.weights.median)}` : "";
    const loss = job.now ? `, loss ${shown(job.loss)}${weight}` : "";
    return node("p", { textContent: `${job.label}: ${job.status}, step ${job.now} of ${job.total ?? "…"}${loss}` });
  }));
}

function endLive() {
  action("start").disabled = false;
  action("stop").disabled = true;
  say(`Live run ended: ${live.jobs.map((job) => job.status).join(", ")}`);
  drawProgress();
}

async function stopLive() {
  action("stop").disabled = true;
  await server.stop({ visitor });
  for (const job of live.jobs) if (!job.over) Object.assign(job, { over: true, status: "stopped" });
  endLive();
}

async function backToRecorded() {
  if (!live.jobs.every((job) => job.over)) await stopLive();
  live.on = false;
  const back = Object.fromEntries(live.jobs.map((job) => [job.side, job.recorded]));
  for (const job of live.jobs) delete runs[job.id];
  $("source").textContent = "recorded"; $("source").classList.remove("live");
  action("recorded").hidden = true;
  $("progress").replaceChildren();
  change({ ...back, step: Math.max(...Object.values(back).flatMap((id) => runs[id].steps)) });
}

function bindLive() {
  action("start").addEventListener("click", async () => {
    if (live.on) await backToRecorded();
    await startLive();
  });
  action("stop").addEventListener("click", stopLive);
  action("recorded").addEventListener("click", backToRecorded);
}
