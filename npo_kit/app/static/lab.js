// Live lab: the knobs of the pair, and what both say now.

function makeLive() {
  const { methods, splits, pocket, model, task } = index.live;
  const method = (side) => knob(`l${side}`, `Method ${side.toUpperCase()}`,
    node("select", {}, ...methods.map((each) => option(each, index.styles[each].label))),
    (name) => change({ [`l${side}`]: name, [`lr${side}`]: null }));
  const percents = node("select", {}, ...splits.map((n) => option(n, `${n} %`)));
  const percent = knob("lpart", "Forget", percents, (text) => change({ lpart: Number(text) }));
  const changeSeed = (text) => change({ lseed: PROPS.lseed.read(text) ?? 0 });
  $("knobs").replaceChildren(method("a"), method("b"),
    slider("lra", "Learning rate A", -6, -2, { log: true }),
    slider("lrb", "Learning rate B", -6, -2, { log: true }),
    slider("lbeta", "β (NPO, DPO, KTO)", -2, 1, { log: true }),
    slider("lret", "Retain weight", 0, 10, { step: 0.5 }),
    slider("lep", "Epochs", 1, 20, { step: 1 }),
    ...(splits.length ? [percent] : []), knob("lseed", "Seed", seedInput(), changeSeed));
  $("live-columns").replaceChildren(...["a", "b"].map((side) => answerColumn(`live-${side}`)));
  $("live-lead").textContent = `Unlearns ${pocket ? "the pocket model" : model} on the server's `
    + `machine, task ${task}: two methods, each in a process of its own. ${splits.length
      ? "Forget quality is known for 10 %, where a retained-only model is recorded." : ""}`;
  action("start").addEventListener("click", startLive);
  action("stop").addEventListener("click", stopLive);
  action("clear").addEventListener("click", clearLive);
  $("watch").addEventListener("change", () => {
    Object.assign(live, { watched: Number($("watch").value), follow: true });
    watchQuestion();
    draw();
  });
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); askBoth(); });
  window.addEventListener("pagehide", () => { if (live.there) server.leave({ visitor }); });
}

// Knobs that nobody touched show what the recorded run of the method used.
function settingsOf(side) {
  const method = labMethod(side);
  const recorded = Object.values(runs).find((run) => run.main && run.method === method) ?? {};
  const usual = index.live.pocket
    ? { lr: recorded.lr ?? 4e-4, beta: recorded.beta ?? 0.5, epochs: 10 }
    : { lr: 1e-5, beta: 0.1, epochs: 5 };
  return {
    method, percent: state.lpart ?? 10,
    lr: state[`lr${side}`] ?? usual.lr, epochs: state.lep ?? usual.epochs,
    beta: state.lbeta ?? usual.beta, takesBeta: /^(npo|dpo|kto)/.test(method),
    retain: state.lret ?? recorded.retain_weight ?? 1, retains: method.includes("_"),
  };
}

function askedOf(side) {
  const { method, lr, epochs, percent, beta, takesBeta, retain, retains } = settingsOf(side);
  return {
    method, lr, epochs, seed: state.lseed, ...(takesBeta && { beta }),
    ...(retains && { retain_weight: retain }), ...(index.live.splits.length && { percent }),
  };
}

function drawLive() {
  const [a, b] = ["a", "b"].map(settingsOf);
  const beta = b.takesBeta ? b.beta : a.beta, retain = b.retains ? b.retain : a.retain;
  const at = { lra: a.lr, lrb: b.lr, lbeta: beta, lret: retain, lep: a.epochs };
  for (const [id, value] of Object.entries(at)) sliders[id].set(value);
  const chosen = { la: a.method, lb: b.method, lseed: state.lseed };
  if (index.live.splits.length) chosen.lpart = a.percent;
  for (const [id, value] of Object.entries(chosen)) $(`knob="${id}"`).value = value;
  for (const [id, { method }] of [["lra", a], ["lrb", b]]) {
    sliders[id].title.textContent = `Learning rate ${index.styles[method].label}`;
  }
  sliders.lbeta.input.disabled = !a.takesBeta && !b.takesBeta;
  sliders.lret.input.disabled = !a.retains && !b.retains;
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
  for (const [number, side] of ["a", "b"].entries()) {
    const column = $(`column="live-${side}"`), job = live.jobs[number];
    const look = index.styles[job?.method ?? labMethod(side)];
    const latest = job ? live.cell(job, job.steps.length - 1, question) : null;
    const first = job?.cells[0]?.[question.set]?.[question.index] ?? null;
    const head = { title: look.label, colour: look.colour, tag: liveTag(job, question) };
    fillColumn(column, head, latest, question, first);
    drawTools(column, job, number);
  }
}

function liveTag(job, question) {
  if (!job) return ["not started"];
  const newest = job.answers[`${question.set} ${question.index}`]?.step ?? 0;
  const scored = job.steps.at(-1), ahead = newest > (scored ?? 0);
  return [node("b", { textContent: "live" }),
    `${ahead ? ` · text of step ${newest}, scores of` : " ·"} step ${scored ?? "–"}`];
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
  const { command, cell } = job, says = reply?.text || (reply?.whole ? "(says nothing)" : "…");
  box.replaceChildren(
    ...(live.asked ? [node("p", { className: "tag", textContent: `To “${live.prompt}”:` }),
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
  $("live-caption").textContent = `Live, seed ${state.lseed}; faint lines in the first chart are `
    + `recorded. n = ${forget?.length ?? 0} forget and ${retain?.length ?? 0} retain rows, `
    + "evaluated once an epoch. W is the weight of a row's gradient against GA's 1: the line is "
    + "the median of a step's rows, the band their middle half.";
}

function axesBySteps(name, label, right, y) {
  const x = { low: 0, high: Math.max(...live.jobs.map((job) => job.total ?? 1)), label: "step" };
  return axesIn(chartAt(name), { label, height: 340, right, x, y: { low: 0, ...y } });
}

function drawProbabilities(jobs) {
  const chart = axesBySteps("live-probability", "Mean probability of the true answers by step", 130,
    { high: 1, label: "probability per token" });
  drawNamed(chart, jobs.flatMap((job) => {
    const look = index.styles[job.method];
    return [["forget", "none"], ["retain", "3 4"]].map(([set, dash]) => ({
      points: job.steps.map((step, i) => [step, job.metrics[`${set}_probability`][i]]),
      look: { ...look, dash }, name: `${look.label}, ${set}`,
    }));
  }));
}

function drawWeights(jobs) {
  const weighed = jobs.map((job) => ({
    look: index.styles[job.method], of: job.history.filter(({ weights }) => weights),
  })).filter(({ of }) => of.length);
  if (!weighed.length) {
    emptyChart(chartAt("live-weights"), "These methods do not read the forget answers.");
    return;
  }
  const high = Math.max(1.2, ...weighed.flatMap(({ of }) => of.map(({ weights }) => weights.q75)));
  const chart = axesBySteps("live-weights", "Gradient weights W by step", 70,
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
    const look = index.styles[job.method];
    const edge = (bin, n) => chart.x((bin + 0.05 + n * share) / bins * 2);
    counts[k].forEach((count, bin) => {
      if (!count) return;
      const [x, y] = [edge(bin, k), chart.y(count)];
      const box = { x, y, width: edge(bin, k + 1) - x, height: chart.y(0) - y, fill: look.colour };
      chart.svg.append(svgNode("rect", box));
    });
    const words = `${look.label}, step ${job.steps.at(-1)}`, style = `--hue:${look.colour}`;
    chart.svg.append(svgText(width - right - 6, top + 20 + 20 * k, words,
      { "text-anchor": "end", "font-weight": 600, class: "named", style }));
  });
}
