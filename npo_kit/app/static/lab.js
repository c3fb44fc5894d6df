// Live lab: the knobs of the pair, and what both say now.

const { $, node, option, action, button, marked } = kit.dom;
const { copy, known, shown } = kit.words;
const { SETS, SIDES } = kit.names;
const { PROPS, BOTH, index, runs, state, liveName } = kit.state;
const { change } = kit.address;
const { knob, seedInput, slider, sliders } = kit.knobs;
const { badgesOf, showLeak, showTruth } = kit.text;
const { liveCell } = kit.answers;
const { columnAt, answerColumn, fillColumn, fillBadges } = kit.columns;
const { live, makeLive, startLive, pin, download } = kit.live;
const { drawLiveCharts } = kit.labcharts;
const { makeSecret, prepare } = kit.secret;
const { drawSecret } = kit.secretview;
const { makeAgains, drawAgains } = kit.again;

function makeLab() {
  const { splits, pocket, model, task } = index.live;
  const percents = node("select", {}, ...splits.map((n) => option(n, `${n} %`)));
  const percent = knob("lpart", "Forget", percents, (text) => change({ lpart: Number(text) }));
  const changeSeed = (text) => change({ lseed: PROPS.lseed.read(text) ?? 0 });
  const few = [option("", `first ${index.live.few} of each set`), option("all", "all: slower")];
  const rows = knob("lrows", "Rows on the way", node("select", {}, ...few), (text) =>
    change({ lrows: text }),
  );
  const ofBoth = [...(splits.length ? [percent] : []), rows];
  const seed = knob("lseed", "Seed", seedInput(), changeSeed);
  $("knobs").replaceChildren(...SIDES.map(sideKnobs), ...ofBoth, seed);
  $("live-columns").replaceChildren(...SIDES.map((side) => answerColumn(`live-${side}`)));
  const quality = "Forget quality is known for 10 %: a model retrained without them is recorded.";
  $("live-lead").textContent =
    `Unlearns ${pocket ? "the pocket model" : model} on the server's `
    + `machine, task ${task}: two runs, each in a process of its own. `
    + (splits.length ? quality : "")
    + (pocket ? " When both have finished, you can teach them half of it again." : "");
  makeSecret();
  makeAgains();
  action("start").addEventListener("click", () => startLive(SIDES.map(askedOf)));
  makeLive();
}

// The method of a live run: as chosen in the lab, else as in Compare.
function labMethod(side) {
  const { method } = runs[state[side]];
  const usual = { a: "ga", b: "npo_rt" }[side];
  return state[`l${side}`] || (index.live.methods.includes(method) ? method : usual);
}

function sideKnobs(side) {
  const names = index.live.methods.map((each) => option(each, index.styles[each].label));
  const choose = (name) => change({ [`l${side}`]: name, [`lr${side}`]: null });
  return node(
    "fieldset",
    { className: "checks knobs" },
    node("legend", { textContent: side.toUpperCase() }),
    knob(`l${side}`, "Method", node("select", {}, ...names), choose),
    ...Object.entries(allControls()).map(([name, about]) => slider(liveName(name, side), about)),
  );
}

// The options of all methods but the seed, which both sides share.
function allControls() {
  const { seed, ...others } = Object.assign({}, ...Object.values(index.live.controls));
  return others;
}

// Whether this study's runs began with the model that live runs unlearn.
const beganAlike = () => index.live.pocket && index.plan?.original === "pocket";

// Runs the recorded pair on show again, so that its last checkpoints can be asked anything.
function runAgain() {
  const settings = { view: "live", lpart: null, lseed: runs[state.b].seed ?? 0 };
  for (const side of SIDES) {
    const run = runs[state[side]];
    settings[`l${side}`] = run.method;
    for (const name of Object.keys(allControls()))
      settings[liveName(name, side)] = run[name] ?? null;
  }
  change(settings);
  startLive(SIDES.map(askedOf));
}

// Whether the pair on show was recorded with one seed, from the model of live runs.
const canRunAgain = () =>
  beganAlike()
  && runs[state.a].seed === runs[state.b].seed
  && SIDES.every((side) => index.live.methods.includes(runs[state[side]].method))
  && SIDES.every((side) => !runs[state[side]].live && !runs[state[side]].pinned);

// What a side runs: as its knobs say, else as an older link has it for both, else as the recorded
// run of the method, where that began with the live model.
function settingsOf(side) {
  const method = labMethod(side);
  const isRecorded = (run) => beganAlike() && run.main && run.method === method;
  const recorded = Object.values(runs).find(isRecorded) ?? {};
  const { seed, ...options } = index.live.controls[method];
  const valueOf = (name) =>
    state[liveName(name, side)]
    ?? state[BOTH[name]]
    ?? recorded[name]
    ?? index.live.usual[name]
    ?? options[name].usual;
  return {
    method,
    ...Object.fromEntries(Object.keys(options).map((name) => [name, valueOf(name)])),
  };
}

// What the server takes: the options of the method's forget term apart.
function askedOf(side) {
  const { method, lr, retain_weight: weight, epochs, ...hyper } = settingsOf(side);
  const percent = index.live.splits.length && { percent: state.lpart ?? 10 };
  const retain = known(weight) && { retain_weight: weight };
  return {
    method,
    lr,
    ...retain,
    epochs,
    hyper,
    seed: state.lseed,
    quick: !state.lrows,
    ...percent,
  };
}

// A side's settings in words, without its method.
function inWords({ method, ...settings }) {
  const { lr, epochs } = settings;
  const { seed, lr: _, epochs: __, ...options } = index.live.controls[method];
  const words = Object.entries(options).map(([name, { label }]) => [
    label.toLowerCase(),
    settings[name],
  ]);
  const told = words.map((pair) => pair.join(" "));
  return [...told, `lr ${lr}`, `${epochs} epoch${epochs === 1 ? "" : "s"}`].join(", ");
}

function drawLive() {
  prepare();
  drawSecret();
  drawAgains();
  for (const side of SIDES) {
    const settings = settingsOf(side);
    $(`knob="l${side}"`).value = settings.method;
    for (const name of Object.keys(allControls())) {
      const { input, set } = sliders[liveName(name, side)];
      input.parentElement.hidden = !known(settings[name]); // the method has none
      if (known(settings[name])) set(settings[name]);
    }
  }
  $("pair").textContent = SIDES.map(pairWords).join("; ");
  if (index.live.splits.length) $('knob="lpart"').value = state.lpart ?? 10;
  $('knob="lseed"').value = state.lseed;
  $('knob="lrows"').value = state.lrows;
  action("start").disabled = live.going || live.stopping;
  action("stop").disabled = !live.going || live.stopping;
  action("clear").disabled = !live.jobs.length || live.stopping;
  action("ask").disabled = !live.there || live.place > 0;
  drawProgress();
  drawLiveColumns();
  drawLiveCharts();
}

// What a side would run.
function pairWords(side) {
  const settings = settingsOf(side);
  return `${index.styles[settings.method].label}: ${inWords(settings)}`;
}

function drawProgress() {
  const line = (textContent) => node("p", { textContent });
  const barOf = ({ label, status, now, total, loss }) => {
    const step = `${label}: ${status}, step ${now} of ${total ?? "…"}`;
    const bar = { max: total ?? 1, value: now, ariaLabel: `Steps of ${label}` };
    const words = line(step + (now ? `, loss ${shown(loss)}` : ""));
    return node("div", {}, words, node("progress", bar));
  };
  const waits = `Waiting for a place: number ${live.place} in the queue.`;
  $("progress").replaceChildren(...(live.place ? [line(waits)] : live.jobs.map(barOf)));
}

// --- what both say ---

function drawLiveColumns() {
  $("live-stage").hidden = !live.jobs.length;
  const { questions } = live;
  const key = `${questions.length}${questions[0]?.question ?? ""}`;
  if ($("watch").dataset.of !== key) {
    const words = questions.map(({ set, question }) => `${SETS[set]}: ${question}`);
    $("watch").replaceChildren(...words.map((each, number) => option(number, each)));
    $("watch").dataset.of = key;
  }
  if (live.watched >= questions.length) live.watched = 0;
  $("watch").value = live.watched;
  showTruth($("live-truth"), questions[live.watched]);
  SIDES.forEach((side, number) => drawLiveColumn(side, number, questions[live.watched]));
}

function drawLiveColumn(side, number, question) {
  const column = columnAt(`live-${side}`);
  const job = live.jobs[number];
  const { label: title, colour } = job?.look ?? index.styles[labMethod(side)];
  const place = job ? judged(job, question) : -1;
  const scored = job && liveCell(job.way, place, question);
  const at = job?.way.steps[place];
  const newer = job && newerAnswer(job, question, at);
  const first = job ? liveCell(job.way, 0, question) : null;
  const tag = [...liveTag(job, newer, at), node("br"), inWords(job ?? settingsOf(side))];
  const cell = newer ? { ...scored, text: newer.text } : scored;
  fillColumn(column, { title, colour, tag }, cell, question, first);
  column.classList.toggle("stale", Boolean(newer && scored)); // the text is newer than the scores
  if (!scored) column.querySelector(".scores").replaceChildren();
  if (newer) {
    const unscored = { text: newer.text };
    fillBadges(column, badgesOf(unscored, question, first));
    if (newer.text.trim() && state.mark !== "change") {
      showLeak(column.querySelector(".text"), unscored, question);
    }
  }
  drawTools(column, job, number);
}

// The place of a run's last evaluation that has the question, or -1.
function judged({ way }, { set, index: row }) {
  return way.cells.findLastIndex((cells) => cells[set]?.[row]);
}

// What a run said to a question since it was evaluated at `step`, {step, text}, or null.
function newerAnswer(job, { set, index: row }, step = -1) {
  const answer = job.answers[`${set} ${row}`];
  return answer && answer.step > step ? answer : null;
}

// `scored`: the step of the last evaluation that has the question.
function liveTag(job, newer, scored) {
  if (!job) return ["not started"];
  const source = node("b", { textContent: "live" });
  if (!newer) return [source, ` · step ${scored ?? "–"}`];
  const step = ` · text of step ${newer.step}`;
  if (scored === undefined) return [source, step];
  return [source, `${step}; grey: scores of step ${scored}, its last evaluation`];
}

// Under a live column: the reply to the visitor's question, and what to do with the run.
function drawTools(column, job, number) {
  const box =
    column.querySelector(".tools") ?? column.appendChild(node("div", { className: "tools" }));
  const reply = job?.replies[live.asked];
  const disabled = !job?.way.steps.length;
  const key = JSON.stringify([job?.id, job?.status, job?.command, live.asked, reply, disabled]);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  if (!job) {
    box.replaceChildren();
    return;
  }
  const tool = (name, textContent, does) =>
    marked(button({ textContent, disabled }, does), "tool", name);
  const chips = [
    tool("pin", "Pin this run", () => pin(job)),
    tool("download", "Download its folder", () => download(number)),
  ];
  box.replaceChildren(
    ...(live.asked ? replyOf(job, reply) : []),
    node("p", { className: "chips" }, ...chips),
    ...(job.command
      ? [recipe("As command", job.command), recipe("As notebook cell", job.cell)]
      : []),
  );
}

function replyOf({ over }, reply) {
  const silent = reply?.whole ? "(says nothing)" : over ? "(its run has ended)" : "…";
  const says = reply?.problem || reply?.text || silent;
  const at = reply?.step === undefined ? "" : `, at step ${reply.step}`;
  const to = node("p", { className: "tag", textContent: `To “${live.prompt}”${at}:` });
  return [to, node("p", { className: "text reply", dir: "auto", textContent: says })];
}

function recipe(title, text) {
  const pressed = { className: "quiet", textContent: "Copy" };
  return node(
    "details",
    {},
    node("summary", { textContent: title }),
    button(pressed, ({ target }) => copy(text, target)),
    node("pre", { className: "code", textContent: text, tabIndex: 0 }),
  );
}

kit.lab = { makeLab, drawLive, runAgain, canRunAgain };
