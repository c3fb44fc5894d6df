// Live lab: asks the server for a pair of runs' events and keeps them as it keeps recorded runs.

const visitor = [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("");
const live = {
  jobs: [], follow: true, polling: false, place: 0, asked: 0, pins: 0, watched: 0,
  get going() { return this.jobs.some((job) => !job.trained); },
  get there() { return this.jobs.some((job) => !job.over); }, // to be asked
  get questions() { return this.jobs.find((job) => job.questions)?.questions ?? index.questions; },
  // What a live or pinned run says: its newest answer, or the evaluation's where one looks back.
  cell(run, place, question) {
    const scored = run.cells[place]?.[question.set]?.[question.index] ?? null;
    const newest = run.live && this.follow ? run.answers[`${question.set} ${question.index}`] : null;
    if (!newest || newest.step <= (run.steps.at(-1) ?? -1)) return scored;
    return [newest.text, ...(scored ?? [null, null, null, null, null, null]).slice(1)];
  },
};
const knobs = {};

function makeLive() {
  const changed = (name) => (value) => change({ [name]: value });
  const select = (name, names) => {
    const made = node("select", {}, ...names.map((each) => option(each, index.styles[each].label)));
    made.addEventListener("change", () => change({ [name]: made.value, ...(name === "la" ? { lra: null } : { lrb: null }) }));
    made.dataset.knob = name;
    return made;
  };
  const log = { low: -6, high: -2, step: 0.001, log: true };
  const made = [
    slider({ id: "lra", label: "Learning rate A", ...log }, changed("lra")),
    slider({ id: "lrb", label: "Learning rate B", ...log }, changed("lrb")),
    slider({ id: "lbeta", label: "β (NPO, DPO, KTO)", low: -2, high: 1, step: 0.001, log: true }, changed("lbeta")),
    slider({ id: "lret", label: "Retain weight", low: 0, high: 10, step: 0.5 }, changed("lret")),
    slider({ id: "lep", label: "Epochs", low: 1, high: 20, step: 1 }, changed("lep")),
  ];
  for (const knob of made) knobs[knob.input.dataset.knob] = knob;
  const pickA = select("la", index.live.methods), pickB = select("lb", index.live.methods);
  const percent = node("select", {}, ...index.live.splits.map((n) => option(n, `${n} %`)));
  percent.addEventListener("change", () => change({ lpart: Number(percent.value) }));
  percent.dataset.knob = "lpart";
  const seed = node("input", { type: "number", min: 0, max: 1e6, step: 1 });
  seed.addEventListener("change", () => change({ lseed: PROPS.lseed.read(seed.value) ?? 0 }));
  seed.dataset.knob = "lseed";
  const labelled = (text, input) => node("label", {}, node("span", { textContent: text }), input);
  $("knobs").replaceChildren(labelled("Method A", pickA), labelled("Method B", pickB), ...made.map((knob) => knob.label),
    ...(index.live.splits.length ? [labelled("Forget", percent)] : []), labelled("Seed", seed));
  $("live-columns").replaceChildren(...["a", "b"].map((side) => answerColumn(`live-${side}`)));
  $("live-lead").textContent = `Unlearns ${index.live.pocket ? "the pocket model" : index.live.model} on the server's machine, task ${index.live.task}: two methods, each in a process of its own. `
    + (index.live.splits.length ? "Forget quality is known for 10 %, where a retained-only model is recorded." : "");
  bindLive();
}

function bindLive() {
  action("start").addEventListener("click", startLive);
  action("stop").addEventListener("click", stopLive);
  action("clear").addEventListener("click", clearLive);
  $("watch").addEventListener("change", () => { live.watched = Number($("watch").value); live.follow = true; watchQuestion(); draw(); });
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); askBoth(); });
  window.addEventListener("pagehide", () => { if (live.there) server.leave({ visitor }); });
}

// Knobs that nobody touched show what the recorded run of the method used.
function settingsOf(side) {
  const method = labMethod(side);
  const recorded = Object.values(runs).find((run) => run.main && run.method === method) ?? {};
  const usual = index.live.pocket ? { lr: recorded.lr ?? 4e-4, beta: recorded.beta ?? 0.5, epochs: 10 } : { lr: 1e-5, beta: 0.1, epochs: 5 };
  return {
    method, lr: state[`lr${side}`] ?? usual.lr, beta: state.lbeta ?? usual.beta, retain: state.lret ?? recorded.retain_weight ?? 1,
    epochs: state.lep ?? usual.epochs, percent: state.lpart ?? 10, takesBeta: /^(npo|dpo|kto)/.test(method), retains: method.includes("_"),
  };
}

function askedOf(side) {
  const s = settingsOf(side);
  return {
    method: s.method, lr: s.lr, epochs: s.epochs, seed: state.lseed, ...(s.takesBeta && { beta: s.beta }),
    ...(s.retains && { retain_weight: s.retain }), ...(index.live.splits.length && { percent: s.percent }),
  };
}

async function startLive() {
  if (live.jobs.length) await clearLive();
  action("start").disabled = true;
  const settings = ["a", "b"].map(askedOf);
  const answer = await asked(server.start({ visitor, runs: settings }));
  if (!answer) { action("start").disabled = false; return; }
  complain("");
  const same = index.live.pocket && index.task === index.live.task && settingsOf("a").percent === 10;
  live.jobs = settings.map((given, number) => ({
    id: `live-${number}`, side: "ab"[number], kind: "unlearn", live: true, foreign: !same, method: given.method, ...given,
    beta: given.beta ?? null, retain_weight: given.retain_weight ?? null, label: `${index.styles[given.method].label} (live)`,
    steps: [], metrics: Object.fromEntries(index.metrics.map((m) => [m, []])), cells: [], answers: {}, weights: [], history: [], replies: {},
    seen: 0, status: "starting", now: 0, trained: false, over: false, main: false, group: `live ${number}`,
  }));
  for (const job of live.jobs) runs[job.id] = job;
  live.follow = true;
  if (same) live.watched = state.q;
  else live.watched = 0;
  say("Live run started");
  draw();
  watchQuestion();
  if (!live.polling) pollLive();
}

function watchQuestion() {
  const question = live.questions[live.watched];
  if (live.there && question) server.watch({ visitor, set: question.set, index: question.index });
}

async function pollLive() {
  live.polling = true;
  const jobs = live.jobs;
  while (live.jobs === jobs && live.there) {
    const answer = await server.poll({ visitor, since: jobs.map((job) => job.seen) });
    if (live.jobs !== jobs) break;
    if (!answer || answer.problem) {
      for (const job of jobs) if (!job.over) Object.assign(job, { over: true, trained: true, status: "lost" });
      complain(answer?.problem ?? "The server does not answer: is it still running?");
      draw();
      break;
    }
    const started = live.place > 0 && answer.place === 0;
    live.place = answer.place;
    answer.events.forEach((events, number) => events.forEach((event) => take(jobs[number], event)));
    if (started) watchQuestion();
    if (answer.place || started || answer.events.some((events) => events.length)) draw();
    // a finished pair only waits for prompts
    await new Promise((done) => { setTimeout(done, live.going || waitingReply() ? 300 : 2000); });
  }
  live.polling = false;
  if (live.jobs !== jobs && live.there) pollLive();
}

const waitingReply = () => live.jobs.some((job) => !job.over && live.asked && !job.replies[live.asked]?.whole);

function take(job, event) {
  job.seen += 1;
  if (event.event === "started") Object.assign(job, { total: event.steps, status: "running", questions: event.questions, command: event.command, cell: event.cell });
  else if (event.event === "step") {
    job.now = event.step; job.loss = event.loss;
    job.history.push({ step: event.step, loss: event.loss, weights: event.weights });
  } else if (event.event === "answer") job.answers[event.question.join(" ")] = { step: event.step, text: event.text };
  else if (event.event === "token") job.replies[event.number] = { text: event.text, whole: event.whole };
  else if (event.event === "evaluation") {
    job.steps.push(event.step);
    job.cells.push(event.cells);
    job.weights.push(event.weights);
    for (const name of index.metrics) job.metrics[name].push(event.metrics[name]);
  } else if (event.event === "finished") Object.assign(job, { trained: true, status: "finished" });
  else if (event.event !== "loading") {
    job.status = job.trained && event.event === "stopped" ? "finished; its model is put away" : event.event === "collapsed" ? `collapsed at step ${event.step}: ${event.reason}`
      : event.event === "failed" ? `failed: ${event.reason}` : event.event;
    Object.assign(job, { over: true, trained: true });
  }
}

async function stopLive() {
  action("stop").disabled = true;
  await asked(server.stop({ visitor }));
  for (const job of live.jobs) if (!job.over) Object.assign(job, { status: job.trained ? "finished; its model is put away" : "stopped", over: true, trained: true });
  say(`Live run ended: ${live.jobs.map((job) => job.status).join(", ")}`);
  draw();
}

// Lets go of the pair; what was pinned stays.
async function clearLive() {
  const jobs = live.jobs;
  live.jobs = [];
  live.place = live.asked = 0;
  for (const job of jobs) delete runs[job.id];
  await server.leave({ visitor });
  complain("");
  change({});
}

async function askBoth() {
  const prompt = $("prompt").value;
  live.asked += 1;
  live.prompt = prompt;
  if (await asked(server.ask({ visitor, prompt, number: live.asked }))) complain("");
  if (!live.polling) pollLive();
  draw();
}

function pin(job) {
  live.pins += 1;
  const id = `pin-${live.pins}`;
  const kept = structuredClone({ ...job, answers: {}, replies: {} });
  runs[id] = { ...kept, id, live: false, pinned: true, group: id, label: `${index.styles[job.method].label}, pinned ${live.pins}` };
  say(`${runs[id].label} is kept in the charts`);
  change({});
}

async function download(number) {
  const file = await asked(server.download({ visitor, run: number }));
  if (!file) return;
  const bytes = Uint8Array.from(atob(file.base64), (c) => c.charCodeAt(0));
  save(file.name, bytes, "application/zip");
}

// --- drawing ---

function drawLive() {
  const [a, b] = ["a", "b"].map(settingsOf);
  for (const [id, value] of [["lra", a.lr], ["lrb", b.lr], ["lbeta", b.takesBeta ? b.beta : a.beta], ["lret", b.retains ? b.retain : a.retain], ["lep", a.epochs]]) knobs[id].set(value);
  for (const [name, value] of [["la", a.method], ["lb", b.method], ["lseed", state.lseed]]) $(`knob="${name}"`).value = value;
  if (index.live.splits.length) $("knob=\"lpart\"").value = a.percent;
  knobs.lra.title.textContent = `Learning rate ${index.styles[a.method].label}`;
  knobs.lrb.title.textContent = `Learning rate ${index.styles[b.method].label}`;
  knobs.lbeta.input.disabled = !a.takesBeta && !b.takesBeta;
  knobs.lret.input.disabled = !a.retains && !b.retains;
  action("start").disabled = live.going;
  action("stop").disabled = !live.going;
  action("clear").disabled = !live.jobs.length;
  action("ask").disabled = !live.there || live.place > 0;
  drawProgress();
  drawLiveColumns();
  drawLiveCharts();
}

function drawProgress() {
  if (live.place) { $("progress").replaceChildren(node("p", { textContent: `Waiting for a place: number ${live.place} in the queue.` })); return; }
  $("progress").replaceChildren(...live.jobs.map((job) => node("div", {},
    node("p", { textContent: `${job.label}: ${job.status}, step ${job.now} of ${job.total ?? "…"}${job.now ? `, loss ${shown(job.loss)}` : ""}` }),
    node("progress", { max: job.total ?? 1, value: job.now, ariaLabel: `Steps of ${job.label}` }))));
}

function drawLiveColumns() {
  const questions = live.questions;
  if ($("watch").dataset.of !== String(questions.length) + (questions[0]?.question ?? "")) {
    $("watch").replaceChildren(...questions.map((question, number) => option(number, `${SETS[question.set]}: ${question.question}`)));
    $("watch").dataset.of = String(questions.length) + (questions[0]?.question ?? "");
  }
  if (live.watched >= questions.length) live.watched = 0;
  const question = questions[live.watched];
  $("watch").value = live.watched;
  showTruth($("live-truth"), question);
  for (const [number, side] of ["a", "b"].entries()) {
    const column = $(`column="live-${side}"`), job = live.jobs[number], method = job?.method ?? labMethod(side);
    column.style.setProperty("--hue", index.styles[method].colour);
    column.querySelector("h3").textContent = index.styles[method].label;
    const first = job?.cells[0]?.[question.set]?.[question.index] ?? null;
    const latest = job ? live.cell(job, job.steps.length - 1, question) : null;
    const newest = job?.answers[`${question.set} ${question.index}`]?.step ?? 0;
    column.querySelector(".tag").replaceChildren(...(job ? [node("b", { textContent: "live" }), newest > (job.steps.at(-1) ?? 0) ? ` · text of step ${newest}, scores of step ${job.steps.at(-1) ?? "–"}` : ` · step ${job.steps.at(-1) ?? "–"}`] : ["not started"]));
    fillAnswer(column, latest, question, first);
    drawTools(column, job, number);
  }
}

// Under a live column: the reply to the visitor's question, and what to do with the run.
function drawTools(column, job, number) {
  let box = column.querySelector(".tools");
  if (!box) {
    box = node("div", { className: "tools" });
    column.append(box);
  }
  const reply = job?.replies[live.asked];
  const key = JSON.stringify([job?.id, job?.status, job?.command, live.asked, reply, job?.steps.length > 0]);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  if (!job) { box.replaceChildren(); return; }
  const button = (name, text, does) => {
    const made = node("button", { type: "button", textContent: text, disabled: !job.steps.length });
    made.dataset.tool = name;
    made.addEventListener("click", does);
    return made;
  };
  const recipe = (title, text) => {
    const take = node("button", { type: "button", className: "quiet", textContent: "Copy" });
    take.addEventListener("click", () => copy(text, take));
    return node("details", {}, node("summary", { textContent: title }), take, node("pre", { className: "code", textContent: text, tabIndex: 0 }));
  };
  const said = live.asked ? [node("p", { className: "tag", textContent: `To “${live.prompt}”:` }),
    node("p", { className: "text reply", dir: "auto", textContent: reply?.text || (reply?.whole ? "(says nothing)" : "…") })] : [];
  box.replaceChildren(...said, node("p", { className: "chips" }, button("pin", "Pin this run", () => pin(job)),
    button("download", "Download its folder", () => download(number))),
  ...(job.command ? [recipe("As command", job.command), recipe("As notebook cell", job.cell)] : []));
}

function drawLiveCharts() {
  const jobs = live.jobs.filter((job) => job.steps.length);
  if (!jobs.length) {
    for (const name of ["tradeoff", "probability", "weights", "histogram"]) emptyChart(chartAt(`live-${name}`), live.going ? "Loading the model …" : "Press Start: this fills as the steps come.");
    $("live-caption").textContent = "";
    return;
  }
  const steps = Math.max(...live.jobs.map((job) => job.total ?? 1));
  const pinned = Object.keys(runs).filter((id) => id.startsWith("pin-"));
  const latest = { ...state };
  Object.assign(state, { match: "step", step: 1e6 }); // the lab shows where the runs are
  drawTradeoffIn(chartAt("live-tradeoff"), { chosen: jobs.map((job) => job.id), behind: [...drawnRuns(), ...pinned], height: 340 }, (id) => { if (runs[id].pinned) say(runs[id].label); });
  Object.assign(state, latest);
  drawProbabilities(jobs, steps);
  drawWeights(jobs, steps);
  drawHistogram(jobs);
  $("live-caption").textContent = `Live, seed ${state.lseed}; faint lines in the first chart are recorded. n = ${jobs[0].cells[0].forget?.length ?? 0} forget and ${jobs[0].cells[0].retain?.length ?? 0} retain rows, evaluated once an epoch. `
    + "W is the weight of a row's gradient against GA's 1: the line is the median of a step's rows, the band their middle half.";
}

function drawProbabilities(jobs, steps) {
  const chart = axesIn(chartAt("live-probability"), {
    label: "Mean probability of the true answers by step", height: 340, right: 130,
    x: { low: 0, high: steps, label: "step" }, y: { low: 0, high: 1, label: "probability per token" },
  });
  const ends = [];
  for (const job of jobs) {
    const look = index.styles[job.method];
    for (const [metric, name, dash] of [["forget_probability", "forget", "none"], ["retain_probability", "retain", "3 4"]]) {
      const end = drawLine(chart, job.steps.map((step, i) => [step, job.metrics[metric][i]]), { ...look, dash });
      if (end) ends.push([end[1], `${look.label}, ${name}`, look.colour]);
    }
  }
  nameEnds(chart, ends);
}

function drawWeights(jobs, steps) {
  const with_ = jobs.filter((job) => job.history.some(({ weights }) => weights));
  if (!with_.length) { emptyChart(chartAt("live-weights"), "These methods do not read the forget answers."); return; }
  const top = Math.max(1.2, ...with_.flatMap((job) => job.history.map(({ weights }) => weights?.q75 ?? 0)));
  const chart = axesIn(chartAt("live-weights"), {
    label: "Gradient weights W by step", height: 340, right: 70,
    x: { low: 0, high: steps, label: "step" }, y: { low: 0, high: top, label: "weight W" },
  });
  const ends = [];
  for (const job of with_) {
    const look = index.styles[job.method], of = job.history.filter(({ weights }) => weights);
    const band = [...of.map(({ step, weights }) => [chart.x(step), chart.y(weights.q75)]), ...of.map(({ step, weights }) => [chart.x(step), chart.y(weights.q25)]).reverse()];
    chart.svg.append(svgNode("polygon", { points: pathOf(band), fill: look.colour, opacity: 0.18 }));
    const end = drawLine(chart, of.map(({ step, weights }) => [step, weights.median]), look);
    if (end) ends.push([end[1], look.label, look.colour]);
  }
  nameEnds(chart, ends);
}

function drawHistogram(jobs) {
  const with_ = jobs.filter((job) => job.weights.at(-1));
  if (!with_.length) { emptyChart(chartAt("live-histogram"), "Known for GA and NPO: the weights of the other methods depend on more than the answers."); return; }
  const bins = 20, counts = with_.map((job) => {
    const of = Array(bins).fill(0);
    for (const w of job.weights.at(-1)) of[Math.min(bins - 1, Math.floor(w / 2 * bins))] += 1;
    return of;
  });
  const chart = axesIn(chartAt("live-histogram"), {
    label: "Histogram of the weights W over the forget rows", height: 340, right: 18,
    x: { low: 0, high: 2, label: "weight W (1: as GA)" }, y: { low: 0, high: Math.max(5, ...counts.flat()), label: "forget rows" },
  });
  with_.forEach((job, k) => {
    const look = index.styles[job.method];
    counts[k].forEach((count, bin) => {
      const share = 0.9 / with_.length, from = chart.x((bin + 0.05 + k * share) / bins * 2), to = chart.x((bin + 0.05 + (k + 1) * share) / bins * 2);
      if (count) chart.svg.append(svgNode("rect", { x: from, y: chart.y(count), width: to - from, height: chart.y(0) - chart.y(count), fill: look.colour }));
    });
    chart.svg.append(svgText(chart.size.width - chart.size.right - 6, chart.size.top + 20 + 20 * k, `${look.label}, step ${job.steps.at(-1)}`, { "text-anchor": "end", "font-weight": 600, class: "named", style: `--hue:${look.colour}` }));
  });
}
