// Live lab: the knobs of the pair, and what both say now.

const SIDES = ["a", "b"];

function makeLive() {
  const { splits, pocket, model, task } = index.live;
  const percents = node("select", {}, ...splits.map((n) => option(n, `${n} %`)));
  const percent = knob("lpart", "Forget", percents, (text) => change({ lpart: Number(text) }));
  const changeSeed = (text) => change({ lseed: PROPS.lseed.read(text) ?? 0 });
  $("knobs").replaceChildren(...SIDES.map(sideKnobs),
    ...(splits.length ? [percent] : []), knob("lseed", "Seed", seedInput(), changeSeed));
  $("live-columns").replaceChildren(...SIDES.map((side) => answerColumn(`live-${side}`)));
  $("live-lead").textContent = `Unlearns ${pocket ? "the pocket model" : model} on the server's `
    + `machine, task ${task}: two runs, each in a process of its own. ${splits.length
      ? "Forget quality is known for 10 %: a model retrained without them is recorded." : ""}`;
  action("start").addEventListener("click", startLive);
  action("stop").addEventListener("click", stopLive);
  action("clear").addEventListener("click", clearLive);
  $("watch").addEventListener("change", () => {
    live.watched = Number($("watch").value);
    watchQuestion();
    draw();
  });
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); askBoth(); });
  for (const event of ["online", "visibilitychange"]) {
    window.addEventListener(event, () => live.wake());
  }
  window.addEventListener("pagehide", () => { if (live.there) leaveForGood(); });
}

function sideKnobs(side) {
  const names = index.live.methods.map((each) => option(each, index.styles[each].label));
  const choose = (name) => change({ [`l${side}`]: name, [`lr${side}`]: null });
  return node("fieldset", { className: "checks knobs" },
    node("legend", { textContent: side.toUpperCase() }),
    knob(`l${side}`, "Method", node("select", {}, ...names), choose),
    slider(`lr${side}`, "Learning rate", -6, -2, { log: true }),
    slider(`lb${side}`, "β", -2, 1, { log: true }),
    slider(`lw${side}`, "Retain weight", 0, 10, { step: 0.5 }),
    slider(`le${side}`, "Epochs", 1, 20, { step: 1 }));
}

// What a side runs: as its knobs say, else as an older link has it for both, else as the recorded
// run of the method.
function settingsOf(side) {
  const method = labMethod(side);
  const recorded = Object.values(runs).find((run) => run.main && run.method === method) ?? {};
  const usual = index.live.pocket
    ? { lr: recorded.lr ?? 4e-4, beta: recorded.beta ?? 0.5, epochs: 10 }
    : { lr: 1e-5, beta: 0.1, epochs: 5 };
  return {
    method, lr: state[`lr${side}`] ?? usual.lr,
    epochs: state[`le${side}`] ?? state.lep ?? usual.epochs,
    ...(/^(npo|dpo|kto)/.test(method) && {
      beta: state[`lb${side}`] ?? state.lbeta ?? usual.beta,
    }),
    ...(method.includes("_") && {
      retain_weight: state[`lw${side}`] ?? state.lret ?? recorded.retain_weight ?? 1,
    }),
  };
}

const askedOf = (side) => ({
  ...sentOf(settingsOf(side)), seed: state.lseed,
  ...(index.live.splits.length && { percent: state.lpart ?? 10 }),
});

// What the server takes: a method's own settings apart.
const sentOf = ({ beta, ...settings }) => ({ ...settings, hyper: known(beta) ? { beta } : {} });

// A side's settings in words, without its method.
const inWords = ({ lr, beta, retain_weight: weight, epochs }) => [
  known(beta) ? `β ${beta}` : "", known(weight) ? `retain weight ${weight}` : "",
  `lr ${lr}`, `${epochs} epoch${epochs === 1 ? "" : "s"}`].filter(Boolean).join(", ");

function drawLive() {
  for (const side of SIDES) {
    const { method, lr, beta, retain_weight: weight, epochs } = settingsOf(side);
    $(`knob="l${side}"`).value = method;
    for (const [name, value] of Object.entries({ lr, lb: beta, lw: weight, le: epochs })) {
      const { input, set } = sliders[`${name}${side}`];
      input.parentElement.hidden = value === undefined; // the method has none
      if (value !== undefined) set(value);
    }
  }
  if (index.live.splits.length) $("knob=\"lpart\"").value = state.lpart ?? 10;
  $("knob=\"lseed\"").value = state.lseed;
  action("start").disabled = live.going;
  action("stop").disabled = !live.going;
  action("clear").disabled = !live.jobs.length;
  action("ask").disabled = !live.there || live.place > 0;
  drawProgress();
  drawLiveColumns();
  drawLiveCharts();
}

function drawProgress() {
  const line = (textContent) => node("p", { textContent });
  $("progress").replaceChildren(...(live.place
    ? [line(`Waiting for a place: number ${live.place} in the queue.`)]
    : live.jobs.map(({ label, status, now, total, loss }) => node("div", {},
      line(`${label}: ${status}, step ${now} of ${total ?? "…"}`
        + (now ? `, loss ${shown(loss)}` : "")),
      node("progress", { max: total ?? 1, value: now, ariaLabel: `Steps of ${label}` })))));
}

function drawLiveColumns() {
  const { questions } = live, key = `${questions.length}${questions[0]?.question ?? ""}`;
  if ($("watch").dataset.of !== key) {
    $("watch").replaceChildren(...questions.map((question, number) =>
      option(number, `${SETS[question.set]}: ${question.question}`)));
    $("watch").dataset.of = key;
  }
  if (live.watched >= questions.length) live.watched = 0;
  const question = questions[live.watched];
  $("watch").value = live.watched;
  showTruth($("live-truth"), question);
  for (const [number, side] of SIDES.entries()) {
    const column = $(`column="live-${side}"`), job = live.jobs[number];
    const look = job?.look ?? index.styles[labMethod(side)];
    const scored = job ? live.cell(job, job.steps.length - 1, question) : null;
    const newer = job ? newerAnswer(job, question) : null;
    const first = job ? live.cell(job, 0, question) : null;
    const tag = [...liveTag(job, newer), node("br"), inWords(job ?? settingsOf(side))];
    fillColumn(column, { title: look.label, colour: look.colour, tag },
      newer ? [newer.text, ...(scored ?? []).slice(1, 5)] : scored, question, first);
    column.classList.toggle("stale", Boolean(newer)); // the text is newer than the scores
    const unscored = [newer?.text, ...Array(5).fill(null)];
    if (newer) fillBadges(column, badgesOf(unscored, question, null));
    drawTools(column, job, number);
  }
}

// What a run said to a question since its last evaluation, {step, text}, or null.
function newerAnswer(job, { set, index: row }) {
  const answer = job.answers[`${set} ${row}`];
  return answer && answer.step > (job.steps.at(-1) ?? -1) ? answer : null;
}

function liveTag(job, newer) {
  if (!job) return ["not started"];
  const source = node("b", { textContent: "live" }), scored = job.steps.at(-1);
  if (!newer) return [source, ` · step ${scored ?? "–"}`];
  return [source, ` · text of step ${newer.step}${scored === undefined ? ""
    : `; grey: scores of step ${scored}, the last evaluation`}`];
}

// Under a live column: the reply to the visitor's question, and what to do with the run.
function drawTools(column, job, number) {
  const box = column.querySelector(".tools")
    ?? column.appendChild(node("div", { className: "tools" }));
  const reply = job?.replies[live.asked], disabled = !job?.steps.length;
  const key = JSON.stringify([job?.id, job?.status, job?.command, live.asked, reply, disabled]);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  if (!job) { box.replaceChildren(); return; }
  const tool = (name, textContent, does) => {
    const made = button({ textContent, disabled }, does);
    made.dataset.tool = name;
    return made;
  };
  const recipe = (title, text) => node("details", {}, node("summary", { textContent: title }),
    button({ className: "quiet", textContent: "Copy" }, ({ target }) => copy(text, target)),
    node("pre", { className: "code", textContent: text, tabIndex: 0 }));
  const { command, cell } = job;
  const silent = reply?.whole ? "(says nothing)" : job.over ? "(its run has ended)" : "…";
  const says = reply?.problem || reply?.text || silent;
  const at = reply?.step === undefined ? "" : `, at step ${reply.step}`;
  box.replaceChildren(
    ...(live.asked ? [node("p", { className: "tag", textContent: `To “${live.prompt}”${at}:` }),
      node("p", { className: "text reply", dir: "auto", textContent: says })] : []),
    node("p", { className: "chips" }, tool("pin", "Pin this run", () => pin(job)),
      tool("download", "Download its folder", () => download(number))),
    ...(command ? [recipe("As command", command), recipe("As notebook cell", cell)] : []));
}

// --- charts ---

function drawLiveCharts() {
  const jobs = live.jobs.filter((job) => job.steps.length);
  if (!jobs.length) {
    const text = live.going ? "Loading the model …" : "Press Start: this fills as the steps come.";
    for (const name of ["tradeoff", "probability", "weights", "histogram"]) {
      emptyChart(chartAt(`live-${name}`), text);
    }
    $("live-caption").textContent = "";
    return;
  }
  const pinned = Object.keys(runs).filter((id) => id.startsWith("pin-"));
  const latest = { ...state };
  Object.assign(state, { match: "step", step: 1e6 }); // the lab shows where the runs are
  const drawn = { chosen: jobs.map((job) => job.id), behind: [...drawnRuns(), ...pinned] };
  drawTradeoffIn(chartAt("live-tradeoff"), { ...drawn, height: 340 },
    (id) => { if (runs[id].pinned) say(runs[id].label); });
  Object.assign(state, latest);
  drawProbabilities(jobs);
  drawWeights(jobs);
  drawHistogram(jobs);
  const { forget, retain } = jobs[0].cells[0];
  $("live-caption").textContent = `Live, seed ${jobs[0].seed}; faint lines in the first chart are `
    + `recorded. n = ${forget?.length ?? 0} forget and ${retain?.length ?? 0} retain rows, `
    + "evaluated once an epoch. W is the weight of a row's gradient against GA's 1: the line is "
    + "the median of a step's rows, the band their middle half.";
}

function axesBySteps(name, label, right, y) {
  const x = { low: 0, high: Math.max(...live.jobs.map((job) => job.total ?? 1)), label: "step" };
  return axesIn(chartAt(name), { label, height: 340, right, x, y: { low: 0, ...y } });
}

function drawProbabilities(jobs) {
  const chart = axesBySteps("live-probability", "Mean probability of the true answers by step", 150,
    { high: 1, label: "probability per token" });
  drawNamed(chart, jobs.flatMap((job) => {
    const { look } = job;
    return [["forget", 3], ["retain", 1.2]].map(([set, width]) => ({
      points: job.steps.map((step, i) => [step, job.metrics[`${set}_probability`][i]]),
      look, width, name: `${look.label}, ${set}`,
    }));
  }));
}

function drawWeights(jobs) {
  const weighed = jobs.map((job) => ({
    look: job.look, of: job.history.filter(({ weights }) => weights),
  })).filter(({ of }) => of.length);
  if (!weighed.length) {
    emptyChart(chartAt("live-weights"), "These methods do not read the forget answers.");
    return;
  }
  const high = Math.max(1.2, ...weighed.flatMap(({ of }) => of.map(({ weights }) => weights.q75)));
  const chart = axesBySteps("live-weights", "Gradient weights W by step", 96,
    { high, label: "weight W" });
  for (const { look, of } of weighed) {
    const side = (name) => of.map(({ step, weights }) => [chart.x(step), chart.y(weights[name])]);
    const points = pathOf([...side("q75"), ...side("q25").reverse()]);
    chart.svg.append(svgNode("polygon", { points, fill: look.colour, opacity: 0.18 }));
  }
  drawNamed(chart, weighed.map(({ look, of }) => ({
    points: of.map(({ step, weights }) => [step, weights.median]), look, name: look.label,
  })));
}

function drawHistogram(jobs) {
  const weighed = jobs.filter((job) => job.weights.at(-1));
  if (!weighed.length) {
    emptyChart(chartAt("live-histogram"), "Known for GA and NPO: the weights of the other methods "
      + "depend on more than the answers.");
    return;
  }
  const bins = 20, counts = weighed.map((job) => {
    const of = Array(bins).fill(0);
    for (const w of job.weights.at(-1)) of[Math.min(bins - 1, Math.floor(w / 2 * bins))] += 1;
    return of;
  });
  const chart = axesIn(chartAt("live-histogram"), {
    label: "Histogram of the weights W over the forget rows", height: 340, right: 18,
    x: { low: 0, high: 2, label: "weight W (1: as GA)" },
    y: { low: 0, high: Math.max(5, ...counts.flat()), label: "forget rows" },
  });
  const { width, right, top } = chart.size, share = 0.9 / weighed.length;
  weighed.forEach((job, k) => {
    const { look } = job, twin = k > 0 && look.colour === weighed[0].look.colour;
    const edge = (bin, n) => chart.x((bin + 0.05 + n * share) / bins * 2);
    counts[k].forEach((count, bin) => {
      if (!count) return;
      const [x, y] = [edge(bin, k), chart.y(count)];
      const box = { x, y, width: edge(bin, k + 1) - x, height: chart.y(0) - y, fill: look.colour,
        ...(twin && { "fill-opacity": 0.25, stroke: look.colour }) };
      chart.svg.append(svgNode("rect", box));
    });
    const words = `${look.label}, step ${job.steps.at(-1)}`, style = `--hue:${look.colour}`;
    chart.svg.append(svgText(width - right - 6, top + 20 + 20 * k, words,
      { "text-anchor": "end", "font-weight": 600, class: "named", style }));
  });
}
