// The scrubber: who stands at side A and B, and at which step or level.

const { $, action, hued, option } = kit.dom;
const { say } = kit.words;
const { COLUMNS, LEVELS } = kit.names;
const { runs, state } = kit.state;
const { compared, eligible, levelsReached, standOf, styleOf } = kit.stands;
const { change } = kit.address;

const LEVEL_NAME = "Forget level: mean probability of the forget answers";

let playing = null; // the timer

const scrubs = () => ["compare", "tradeoff", "theory"].includes(state.view);

// The last step of the runs that are compared.
const lastStep = () => Math.max(...compared().flatMap((run) => run.steps), 1);

// How far one step of the scrubber leads.
function stride() {
  const steps = [...new Set(compared().flatMap((run) => run.steps))].sort((x, y) => x - y);
  const gaps = steps.slice(1).map((s, i) => s - steps[i]);
  return gaps.length && gaps.every((gap) => gap === gaps[0]) ? gaps[0] : 1;
}

function drawScrub() {
  if (playing && !scrubs()) play();
  $("scrub").hidden = !scrubs();
  COLUMNS.forEach(drawSide);
  const byStep = state.match === "step";
  const last = lastStep();
  const levels = levelsReached();
  const stepRange = { min: 0, max: last, step: stride(), value: Math.min(state.step, last) };
  const levelRange = { min: levels[0] ?? 0, max: levels.at(-1) ?? 0, step: 1, value: state.level };
  $("match").value = state.match;
  const range = Object.assign($("step"), byStep ? stepRange : levelRange);
  range.disabled = !byStep && !levels.length;
  const words = byStep ? `step ${stepRange.value} of ${last}` : levelWords();
  $("at").textContent = words;
  Object.assign(range, {
    ariaLabel: byStep ? "Unlearning step" : LEVEL_NAME,
    ariaValueText: words,
  });
}

function drawSide(side) {
  const select = $(`side="${side}"`);
  const there = eligible().filter((run) => run.steps.length);
  const key = there.map((run) => run.id + run.label).join();
  if (select.dataset.of !== key) {
    const none = side === "c" ? [option("", "none")] : [];
    select.replaceChildren(...none, ...there.map((run) => option(run.id, run.label)));
    select.dataset.of = key;
  }
  select.value = state[side];
  const place = COLUMNS.indexOf(side);
  select.parentNode.hidden = there.length <= place; // no more columns than runs
  const run = runs[state[side]];
  hued($(`swatch="${side}"`), run ? styleOf(run).colour : "transparent");
}

function levelWords() {
  const short = compared().filter((run) => !standOf(run).reached);
  const names = short.map((run) => run.label).join(", ");
  return `P(forget) = ${LEVELS[state.level]}${names && `: not reached by ${names}`}`;
}

function scrubTo(value) {
  if (state.match === "step") change({ step: Math.max(0, Math.min(lastStep(), value)) });
  else {
    const levels = levelsReached();
    if (levels.length) change({ level: Math.max(levels[0], Math.min(levels.at(-1), value)) });
  }
  say($("at").textContent);
}

function scrubBy(by) {
  const byStep = state.match === "step";
  scrubTo(byStep ? Math.min(state.step, lastStep()) + by * stride() : state.level + by);
}

function atEnd() {
  if (state.match === "step") return state.step >= lastStep();
  return state.level >= (levelsReached().at(-1) ?? 0);
}

// Plays, or ends playing; from where it stands, or from the beginning where it is at its end.
function play() {
  const on = playing === null;
  clearInterval(playing);
  playing = null;
  Object.assign(action("play"), { ariaPressed: String(on), textContent: on ? "Pause" : "Play" });
  if (!on) return;
  if (atEnd()) scrubTo(0);
  playing = setInterval(() => (atEnd() ? play() : scrubBy(1)), 700);
}

function makeScrubber() {
  $("step").addEventListener("input", () => scrubTo(Number($("step").value)));
  action("play").addEventListener("click", play);
}

const PAUSE = 2500; // milliseconds of a first visit before it plays
const CALM = "(prefers-reduced-motion: reduce)";
const VISITED = "npo_kit visited";

// Plays from the beginning, unless the visitor wants nothing to move.
function playFrom(step, after = 0) {
  if (window.matchMedia(CALM).matches || playing !== null) return;
  change({ step });
  setTimeout(() => playing === null && state.step === step && scrubs() && play(), after);
}

// Plays on a browser's first visit.
function playFirst() {
  let visited = true;
  try {
    visited = Boolean(localStorage.getItem(VISITED));
    localStorage.setItem(VISITED, "yes");
  } catch {
    // no storage here: nothing is known of earlier visits, and nothing plays by itself
  }
  if (!visited) playFrom(0, PAUSE);
}

const stopPlaying = () => playing !== null && play();

kit.scrubber = { scrubs, drawScrub, scrubBy, play, playFrom, playFirst, stopPlaying, makeScrubber };
