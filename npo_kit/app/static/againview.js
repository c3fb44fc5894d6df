// What a relearning attack shows: its sentence, the curves, and answers before and after.

const { $, node, option, button, hued, marked } = kit.dom;
const { say, shown } = kit.words;
const { draw } = kit.address;
const { showLeak, showTruth } = kit.text;
const { axesIn, chartAt, drawNamed, roomFor } = kit.plot;
const { bandAt, rangeOf } = kit.auditframe;
const { relearn, halt } = kit.relearn;

const NEVER = { colour: "currentColor", dash: "7 5" }; // the look of the model that never saw it
const BEFORE = { colour: "#7f7f7f", dash: "2 5" }; // of the level before unlearning
const WHEN = ["Before the lesson", "After the lesson"];

// The parts of the attack on the models of `owner`, in the page's place of that name.
function makeAgain(name, owner) {
  const words = "Teach it half again, ask the other half";
  const start = button({ className: "primary", textContent: words }, () => relearn(owner));
  const stop = button({ textContent: "Stop" }, () => halt(owner));
  const choose = node("select");
  choose.addEventListener("change", () => {
    owner.attack.watched = Number(choose.value);
    draw();
  });
  const acts = [marked(start, "start", ""), marked(stop, "stop", ""), node("output")];
  const asks = node("label", { className: "wide" }, "A question of the untaught half ", choose);
  const truth = node("p", { className: "truth" }, "True answer: ", node("span"));
  const figure = node("figure", {}, marked(node("div"), "chart", `again-${name}`));
  figure.append(node("p", { className: "small" }));
  const said = node("div", { className: "said" }, asks, truth, node("div", { className: "turns" }));
  $(`again="${name}"`).replaceChildren(
    node("h2", { textContent: "Is it gone, or only unsaid?" }),
    node("p", { className: "small lead-in" }),
    node("p", { className: "acts" }, ...acts),
    node("progress", { ariaLabel: "Steps of the lesson" }),
    node("p", { className: "told" }),
    said,
    figure,
  );
}

// Draws the attack of `owner`. `models` are those that are taught, each {key, name, look}, the last
// of them the model that never saw it; `before` is the name of the model before unlearning, `lead`
// what there is to know beforehand, and `ready` whether it can start.
function drawAgain(name, { attack }, { models, before, lead, ready }) {
  const box = $(`again="${name}"`);
  const part = (selector) => box.querySelector(selector);
  const busy = Boolean(attack?.busy);
  part(".lead-in").textContent = lead;
  part("[data-start]").hidden = busy || !ready;
  part("[data-stop]").hidden = !busy;
  part("output").textContent = attack ? statusOf(attack) : "";
  part("progress").hidden = !busy;
  const total = models.length * (attack?.about?.steps.at(-1) ?? 1);
  const steps = Object.values(attack?.models ?? {}).reduce((sum, { step }) => sum + step, 0);
  Object.assign(part("progress"), { max: total, value: steps });
  const told = attack?.done ? sentence(attack, models) : "";
  if (told && part(".told").textContent !== told) say(told);
  part(".told").textContent = told;
  const there = models.filter(({ key }) => attack?.models[key]);
  part(".said").hidden = part("figure").hidden = !there.length;
  if (!there.length) return;
  fillTurns(part, attack, models);
  drawCurves(name, attack, there, before);
  part("figure .small").textContent = caption(attack, models.at(-1));
}

function statusOf({ busy, about, whole, problem, models }) {
  if (problem) return problem;
  if (busy && !about) return "Getting ready …";
  if (busy) {
    const now = Math.min(...Object.values(models).map(({ step }) => step), about.steps.at(-1));
    return `Teaching copies: step ${now} of ${about.steps.at(-1)}`;
  }
  return whole ? "" : "Stopped.";
}

// --- what it means ---

// The levels before and after the lesson up to which a model counts as one that never saw it.
function reachOf({ about, models }, { key }) {
  if (about.bands) return about.bands.map(([, high]) => high);
  return endsOf(models[key]).map((level) => level + about.margin);
}

const endsOf = ({ levels }) => [levels[0][1], levels.at(-1)[1]];

const FACTS = "of the untaught facts than a model that never saw them";
const OUTCOMES = {
  kept: (names) =>
    `${names} had kept the untaught facts: after the same lesson they stand above a model that `
    + "never saw them, and before it they did not",
  knew: (names, s) => `${names} know${s} more ${FACTS}, before the lesson and after it`,
  lost: (names) => `${names} knew more ${FACTS} before the lesson, but not after it`,
  none: (names, s) => `${names} know${s} no more ${FACTS}, before the lesson and after it`,
  broke: (names) => `${names} broke while learning`,
};

// What the levels of one model say against those that never saw it.
function outcomeOf(attack, { key }, never) {
  const { levels } = attack.models[key];
  const ends = endsOf({ levels });
  if (levels.length < attack.about.steps.length || ends.includes(null)) return "broke";
  const reach = reachOf(attack, never);
  const [first, last] = ends.map((level, i) => level > reach[i]);
  if (last) return first ? "knew" : "kept";
  return first ? "lost" : "none";
}

// One sentence about all models, those with the same outcome together.
function sentence(attack, models) {
  const outcomes = models.slice(0, -1).map((each) => outcomeOf(attack, each, models.at(-1)));
  const parts = Object.entries(OUTCOMES).flatMap(([outcome, words]) => {
    const alike = models.filter((_, i) => outcomes[i] === outcome);
    const names = alike.map((each) => each.name).join(" and ");
    return alike.length ? [words(names, alike.length > 1 ? "" : "s")] : [];
  });
  return `${parts.join("; ")}.`;
}

function caption({ about, models }, { key, name }) {
  const { taught, tested, steps, bands, margin } = about;
  const against = bands
    ? "Grey bars: 90 % of the models that never saw them, before and after the same lesson; above "
      + "means higher than the bar."
    : `There is one model that never saw them: above means by more than ${margin} nats.`;
  const control = models[key] ? "" : ` ${name} is taught last.`;
  return (
    `Live: copies learn ${facts(taught)} again in ${steps.at(-1)} steps, ${facts(tested)} of the `
    + `other half ${tested === 1 ? "is" : "are"} asked. Higher: it knows them better. `
    + `${against}${control}`
  );
}

const facts = (count) => `${count} fact${count === 1 ? "" : "s"}`;

// --- the curves ---

function drawCurves(name, { about, models }, there, before) {
  const { steps, original, bands } = about;
  const high = steps.at(-1);
  const lines = there.map(({ key, name: title, look }) => ({
    points: models[key].levels,
    look,
    name: title,
    width: 3.5,
  }));
  const flat = { look: BEFORE, name: before, width: 2 };
  lines.push({ ...flat, points: steps.map((step) => [step, original]) });
  const levels = lines.flatMap(({ points }) => points.map(([, level]) => level));
  const y = rangeOf(levels, (bands ?? []).flat());
  const chart = axesIn(chartAt(`again-${name}`), {
    label: `Log-prob of the untaught facts by step of the lesson: ${summary(there, models)}`,
    height: 340,
    fills: false,
    right: roomFor(lines.map((line) => line.name)),
    x: { low: 0, high, ticks: steps.map((s) => [s, String(s)]), label: "steps of the lesson" },
    y: { ...y, high: Math.min(y.high, 0), label: "log-prob a token, nats" },
  });
  if (bands) [0, high].forEach((step, i) => bandAt(chart, chart.x(step), bands[i]));
  drawNamed(chart, lines);
}

// From where to where each model went, in words.
const summary = (there, models) =>
  there
    .map(
      ({ key, name }) =>
        `${name} ${endsOf(models[key])
          .map((v) => shown(v))
          .join(" to ")}`,
    )
    .join(", ");

// --- what they say ---

function fillTurns(part, attack, models) {
  const { questions } = attack.about;
  const choose = part(".said select");
  const key = questions.map(({ question }) => question).join("\n");
  if (choose.dataset.of !== key) {
    choose.dataset.of = key;
    choose.replaceChildren(...questions.map(({ question }, i) => option(i, question)));
  }
  choose.value = attack.watched;
  const question = questions[attack.watched];
  showTruth(part(".said .truth span"), question);
  const texts = models.map(({ key: of }) => attack.models[of]?.texts ?? []);
  const state = JSON.stringify([attack.watched, texts, models.map(({ name }) => name)]);
  const turns = part(".turns");
  if (turns.dataset.state === state) return;
  turns.dataset.state = state;
  turns.replaceChildren(...models.map((model, i) => turnOf(model, texts[i], question, attack)));
}

// What a model says before and after the lesson.
function turnOf({ name, look }, texts, question, { watched }) {
  const said = WHEN.map((when, i) => {
    const box = node("p", { className: "text", dir: "auto" });
    const text = texts[i]?.[watched];
    if (text === undefined) box.textContent = "…";
    else if (text.trim()) showLeak(box, { text }, question);
    else box.textContent = "(says nothing)";
    return node("div", {}, node("p", { className: "when", textContent: when }), box);
  });
  const colour = look.colour === "currentColor" ? "var(--ink)" : look.colour;
  return hued(node("article", {}, node("h3", { textContent: name }), ...said), colour);
}

kit.againview = { NEVER, makeAgain, drawAgain };
