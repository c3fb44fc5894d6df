// The page: one state, drawn anew after each change. `element`, `server` come from Gradio.

const $ = (name) => element.querySelector(`[data-${name}]`);
const action = (name) => element.querySelector(`[data-action="${name}"]`);
const SETS = { forget: "forget", retain: "retain", real_authors: "real authors", world_facts: "world facts" };
const KNOBS = [
  ["lr-a", "Learning rate", -5, -2.3, 0.001, true], ["lr-b", "Learning rate", -5, -2.3, 0.001, true],
  ["beta", "β (NPO, DPO, KTO)", -2, 1, 0.001, true], ["retain", "Retain weight", 0, 10, 0.5, false],
  ["epochs", "Epochs", 1, 15, 1, false],
];
const state = { q: 0, step: 0, a: "ga", b: "npo_rt", set: "forget", find: "" };
const texts = new Map();  // question -> {ready: what the server said, or null; coming: its promise}
const runs = Object.create(null);
let index = null, playing = null;

function node(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties || {});
  made.append(...children);
  return made;
}

// --- state and address ---

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (name, last) => {
    const value = Number(given.get(name));
    return given.has(name) && Number.isInteger(value) && value >= 0 && value <= last ? value : state[name];
  };
  state.q = whole("q", index.questions.length - 1);
  state.step = whole("step", 1e6);
  for (const side of ["a", "b"]) if (runs[given.get(side)]) state[side] = given.get(side);
  if (Object.hasOwn(SETS, given.get("set")) || given.get("set") === "all") state.set = given.get("set");
  state.find = given.get("find") ?? state.find;
}

function writeAddress() {
  const kept = Object.entries(state).filter(([key, value]) => value !== "" && !String(value).startsWith("live-"));
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

function change(more) {
  Object.assign(state, more);
  writeAddress();
  draw();
}

// --- questions ---

function matching() {
  const find = state.find.toLowerCase();
  return index.questions.map((question, number) => ({ question, number })).filter(({ question }) =>
    (state.set === "all" || question.set === state.set)
    && (!find || `${question.question} ${question.answer}`.toLowerCase().includes(find)));
}

function drawList() {
  const found = matching();
  $("count").textContent = `${found.length} of ${index.questions.length} questions`;
  $("list").replaceChildren(...found.map(({ question, number }) => {
    const button = node("button", { type: "button", textContent: question.question });
    button.setAttribute("aria-current", String(number === state.q));
    button.addEventListener("click", () => change({ q: number }));
    return node("li", {}, button);
  }));
  const current = $("list").querySelector('[aria-current="true"]');
  if (current) $("list").scrollTop = current.offsetTop - $("list").offsetTop - 60;
}

// Fetches once what all runs say to a question; true when it is there.
async function fetchTexts(number) {
  if (!texts.has(number)) texts.set(number, { ready: null, coming: server.texts(number) });
  const entry = texts.get(number);
  const answer = await entry.coming;
  if (answer.problem) { texts.delete(number); say(answer.problem, true); return false; }
  entry.ready = answer;
  return true;
}

function say(text, problem = false) {
  $(problem ? "problem" : "say").textContent = text;
  if (problem) $("problem").hidden = !text;
}

// --- columns ---

function lastStep() {
  return Math.max(...[state.a, state.b].flatMap((id) => runs[id].steps), live.total(), 1);
}

function cellOf(run, question) {
  if (run.live) return live.cell(run, state.q, question, state.step);
  const said = texts.get(state.q)?.ready;
  if (!said) return null;
  const place = placeOf(run, state.step);
  const [string, ...scores] = said.cells[run.id][place];
  return { cell: [said.strings[string], ...scores], step: run.steps[place] };
}

function drawColumns() {
  const question = index.questions[state.q];
  $("question").textContent = question.question;
  showTruth($("truth"), question);
  const before = cellOf(runs.original, question)?.cell;
  const sides = [["original"], ["a", state.a], ["b", state.b], ["retained"]];
  sides.forEach(([side, id]) => drawColumn(side, runs[id || side], question, before));
}

function drawColumn(side, run, question, before) {
  const column = $(`column="${side}"`);
  const look = index.looks[run.method];
  column.style.setProperty("--hue", side === "retained" ? "var(--ink)" : look.colour);
  const found = cellOf(run, question);
  const tag = column.querySelector(".tag");
  tag.replaceChildren(run.live ? node("b", { textContent: "live" }) : "recorded",
    run.kind === "unlearn" ? ` · step ${found ? found.step : "–"}` : side === "retained" ? " · never saw it" : " · before unlearning");
  const text = column.querySelector(".text");
  if (!found) {
    text.className = "text none"; text.textContent = "…";
    column.querySelector(".badges").replaceChildren();
    return;
  }
  text.className = found.cell[0].trim() ? "text" : "text none";
  if (found.cell[0].trim()) showMarked(text, found.cell[0], question);
  else text.textContent = "(says nothing)";
  column.querySelector(".badges").replaceChildren(...badgesOf(found.cell, question).map(([word, kind]) =>
    node("span", { className: `badge ${kind}`, textContent: word })));
  const names = ["P(answer)", "ROUGE-L", "truth ratio", "fluency"];
  column.querySelector(".scores").replaceChildren(...names.flatMap((name, i) => {
    const was = node("dd", { className: "was", textContent: before && side !== "original" ? shown(before[i + 1]) : "" });
    was.title = "of the original";
    return [node("dt", { textContent: name }), node("dd", { textContent: shown(found.cell[i + 1]) }), was];
  }));
}

function makeColumns() {
  const titles = { original: "Original", retained: "Retained-only" };
  for (const side of ["original", "a", "b", "retained"]) {
    const head = titles[side] ? node("h3", { textContent: titles[side] }) : sideSelect(side);
    const column = node("article", { className: side === "retained" ? "column dashed" : "column" }, head,
      node("p", { className: "tag" }), node("p", { className: "text", dir: "auto", tabIndex: 0 }),
      node("div", { className: "badges" }), node("dl", { className: "scores" }));
    column.dataset.column = side;
    $("columns").append(column);
  }
}

function sideSelect(side) {
  const select = node("select", {});
  select.dataset.side = side;
  select.setAttribute("aria-label", `Method ${side.toUpperCase()}`);
  select.addEventListener("change", () => change({ [side]: select.value }));
  return select;
}

function fillSelects() {
  for (const side of ["a", "b"]) {
    const select = $(`side="${side}"`);
    select.replaceChildren(...Object.values(runs).filter((run) => run.kind === "unlearn").map((run) =>
      node("option", { value: run.id, textContent: run.label })));
    select.value = state[side];
  }
}

// --- everything else that is drawn ---

function draw() {
  drawList();
  fillSelects();
  const last = lastStep();
  $("step").max = last;
  $("step").step = live.on ? 1 : stride();
  $("step").value = Math.min(state.step, last);
  $("at").textContent = `step ${Math.min(state.step, last)} of ${last}`;
  $("set").value = state.set;
  if (document.activeElement !== $("search")) $("search").value = state.find;
  const number = state.q;
  fetchTexts(number).then((there) => {
    if (there && number === state.q) drawColumns();
    const next = matching().find((found) => found.number > number);
    if (there && next) fetchTexts(next.number);
  });
  drawColumns();
  drawTradeoff();
  settleKnobs();
}

function stride() {
  const steps = [...new Set([...runs[state.a].steps, ...runs[state.b].steps])].sort((x, y) => x - y);
  const gaps = steps.slice(1).map((s, i) => s - steps[i]);
  return gaps.length && gaps.every((gap) => gap === gaps[0]) ? gaps[0] : 1;
}

function drawTradeoff() {
  const chosen = [state.a, state.b];
  const drawn = Object.values(runs).filter((run) => run.kind === "unlearn" && run.steps.length
    && (run.main || chosen.includes(run.id)));
  drawChart($("chart"), {
    runs: drawn, looks: index.looks, shown: chosen, step: state.step,
    original: runs.original, retained: runs.retained,
  }, (id, step) => change(chosen.includes(id) ? { step } : { step, b: id }));
  const n = index.rows;
  $("caption").textContent = `${live.on ? "Live over recorded. " : "Recorded. "}n = ${n.forget} forget, ${n.retain} retain, `
    + `${n.real_authors} real-author, ${n.world_facts} world-fact rows; one seed a line. Ringed: the current step. `
    + "Shaded: the test cannot tell the model from the retained-only one. Click a point to go there.";
  $("table").replaceChildren(metricsTable(chosen.map((id) => runs[id])));
}

function metricsTable(columns) {
  const names = [["model_utility", "utility"], ["forget_quality", "forget p"], ["forget_ks", "D"], ["forget_probability", "P forget"], ["retain_probability", "P retain"], ["forget_fluency", "fluency"]];
  const row = (cells, kind) => node("tr", {}, ...cells.map((cell) => node(kind, { textContent: cell })));
  return node("table", {}, row(["method", "step", ...names.map(([, name]) => name)], "th"),
    ...columns.flatMap((run) => run.steps.map((step, i) =>
      row([run.label, step, ...names.map(([key]) => shown(run.metrics[key][i]))], "td"))));
}

function play() {
  clearInterval(playing);
  const on = !(action("play").getAttribute("aria-pressed") === "true");
  action("play").setAttribute("aria-pressed", String(on));
  action("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (state.step >= lastStep()) change({ step: 0 });
  playing = setInterval(() => {
    if (state.step >= lastStep()) play();
    else change({ step: Math.min(lastStep(), state.step + stride()) });
  }, 700);
}

function move(by) {
  const found = matching().map(({ number }) => number);
  const at = found.indexOf(state.q);
  if (found.length) change({ q: found[(at + by + found.length) % found.length] });
}

function bindEvents() {
  $("set").addEventListener("change", () => change({ set: $("set").value }));
  $("search").addEventListener("input", () => change({ find: $("search").value }));
  $("step").addEventListener("input", () => { live.follow = false; change({ step: Number($("step").value) }); say($("at").textContent); });
  action("play").addEventListener("click", play);
  action("link").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(location.href); say("Link copied"); action("link").textContent = "Copied"; }
    catch { say(`Copy this address: ${location.href}`, true); }
  });
  const keys = () => {
    $("keys").hidden = !$("keys").hidden;
    action("keys").setAttribute("aria-expanded", String(!$("keys").hidden));
  };
  action("keys").addEventListener("click", keys);
  window.addEventListener("resize", drawTradeoff);
  window.addEventListener("hashchange", () => { readAddress(); draw(); });
  window.addEventListener("keydown", (event) => {
    const slides = event.target.matches('input[type="range"]') && event.key.startsWith("Arrow");
    const types = event.target.matches('input:not([type="range"]), select, textarea');
    if (slides || types || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = (by) => change({ step: Math.max(0, Math.min(lastStep(), state.step + by)) });
    const does = { ArrowRight: () => step(stride()), ArrowLeft: () => step(-stride()), j: () => move(1), k: () => move(-1), p: play, "?": keys }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
}

async function open() {
  index = await server.index();
  if (index.problem) { say(index.problem, true); return; }
  for (const run of index.runs) runs[run.id] = run;
  state.b = runs.npo_rt ? "npo_rt" : Object.values(runs).filter((run) => run.kind === "unlearn").at(-1).id;
  state.a = runs.ga ? "ga" : Object.values(runs).find((run) => run.kind === "unlearn").id;
  state.step = Math.max(...runs[state.b].steps);
  readAddress();
  $("lead").textContent = `${index.title}. Pick a question and move along the steps; ${index.rows.forget} rows are to be forgotten.`;
  const from = index.provenance;
  $("provenance").textContent = `Recorded ${from.date} on ${from.gpus?.length ? from.gpus.join(", ") : from.cpu}, kit at commit ${from.commit || "unknown"}, `
    + `torch ${from.versions.torch}, transformers ${from.versions.transformers}; task ${index.task}.`;
  $("set").append(...[["all", "all"], ...Object.entries(SETS)].map(([value, textContent]) => node("option", { value, textContent })));
  makeColumns();
  makeKnobs();
  bindEvents();
  bindLive();
  writeAddress();
  draw();
}

open();
