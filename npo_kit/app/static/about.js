// About this run: provenance, configuration, how to remake it, export, prepared lessons, the tour.

// Each lesson is a link: a title, a sentence, and the state that shows it.
const LESSONS = [
  ["Memorised", "Before unlearning the original recites its training answers word for word. The model retrained without the forget rows never saw these authors: it has to make something up, and that is what forgetting should look like.",
    { view: "compare", q: 1, step: 0, a: "ga", b: "npo_rt" }],
  ["GA collapses", "Gradient ascent, 100 steps later, on a question it should still answer: the text is broken. It pushed the forget answers down without end, and everything else went with them.",
    { view: "compare", set: "retain", q: 125, step: 100, a: "ga", b: "npo_rt" }],
  ["NPO does not", "At the same forgetting (the forget answers' mean probability is 0.3, read between two evaluations), compare what is left: GA's utility falls as it forgets, NPO with a retain term keeps it. Move the slider to other levels.",
    { view: "tradeoff", match: "level", level: 6, a: "ga", b: "npo_rt" }],
  ["Why: the weight", "NPO weights each gradient by W. Once an answer is unlikely, its weight is near 0 and the push ends; GA's weight is 1 for ever. So GA drifts linearly, NPO logarithmically.",
    { view: "theory", wb: 0.5 }],
  ["The retain term", "NPO alone slows down but has nothing to hold on to: at a small β it still loses its utility in the end. The retain term (+RT) keeps it, and the p-value stays above 0.05.",
    { view: "tradeoff", a: "npo", b: "npo_rt", step: 100 }],
];

function makeTour() {
  if (!index.lessons) { $("lessons").closest("nav").hidden = true; return; }
  $("lessons").replaceChildren(...LESSONS.map(([title, , where], number) => {
    const link = node("a", { textContent: title, href: lessonAddress(number, where) });
    link.addEventListener("click", (event) => { event.preventDefault(); goToLesson(number); });
    return node("li", {}, link);
  }));
}

function lessonAddress(number, where) {
  const { theme, study, hide } = state;
  return addressOf({ ...USUAL, theme, study, hide, ...where, lesson: number + 1 });
}

const goToLesson = (number) => { location.hash = lessonAddress(number, LESSONS[number][2]); };

function drawTour() {
  const number = index.lessons ? state.lesson - 1 : -1;
  $("lesson").hidden = number < 0;
  const mark = (link, i) => { link.ariaCurrent = i === number ? "step" : null; };
  element.querySelectorAll("[data-lessons] a").forEach(mark);
  if (number < 0) return;
  const following = LESSONS[number + 1];
  const next = button(
    { className: "quiet", textContent: following ? `Next: ${following[0]}` : "End the tour" },
    () => (following ? goToLesson(number + 1) : change({ lesson: 0 })));
  $("lesson").replaceChildren(LESSONS[number][1], " ", next);
}

// --- the view ---

function makeAbout() {
  const parts = [...Object.entries(VIEWS).slice(1), ["tour", "Guided tour"], ["list", "Question list"]];
  $("hide").append(...parts.map(([part, name]) => {
    const box = node("input", { type: "checkbox" });
    box.dataset.hides = part;
    return node("label", {}, box, name);
  }));
  action("lesson-link").addEventListener("click", () => {
    const hide = [...element.querySelectorAll("[data-hides]")].filter((box) => box.checked).map((box) => box.dataset.hides).join(",");
    const view = listed(hide).includes(lastShown) ? "compare" : lastShown;
    copy(location.href.split("#")[0] + addressOf({ hide, view }), action("lesson-link"));
  });
  action("csv").addEventListener("click", () => save(`${index.name}.csv`, scoresAsCsv(), "text/csv"));
  action("json").addEventListener("click", async () => {
    const found = await asked(server.about({ study: state.study, run: state.b.match(/^(live|pin)-/) ? "original" : state.b }));
    if (found) save(`${state.b}.json`, JSON.stringify(found, null, 1), "application/json");
  });
}

function scoresAsCsv() {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const line = (cells) => cells.map((cell) => quoted(String(cell ?? ""))).join(",");
  const rows = Object.values(runs).filter((run) => !run.live).flatMap((run) => run.steps.map((step, i) =>
    line([run.id, run.method, run.seed, run.lr, run.beta, run.retain_weight, run.pinned ? "live" : "recorded", step, ...index.metrics.map((m) => run.metrics[m][i])])));
  return `${[line(["run", "method", "seed", "lr", "beta", "retain_weight", "source", "step", ...index.metrics]), ...rows].join("\n")}\n`;
}

// {a: {b: 1}} as [["a.b", 1]].
function flat(record, before = "") {
  return Object.entries(record).flatMap(([name, value]) => (value !== null && typeof value === "object" && !Array.isArray(value)
    ? flat(value, `${before}${name}.`) : [[before + name, value]]));
}

function fillCard(box, pairs) {
  box.replaceChildren(...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) =>
    node("div", {}, node("dt", { textContent: name }), node("dd", { textContent: typeof value === "object" ? JSON.stringify(value) : String(value) }))));
}

function drawAbout() {
  const from = index.provenance;
  fillCard($("provenance"), [
    ["Study", index.title], ["Task", index.task], ["Recorded", from.date], ["Machine", from.gpus?.length ? from.gpus.join(", ") : from.cpu],
    ["Kit at commit", from.commit || "unknown"], ["torch", from.versions.torch], ["transformers", from.versions.transformers],
    ["Rows", Object.entries(SETS).map(([set, name]) => `${index.rows[set] ?? 0} ${name}`).join(", ")], ["Runs", index.runs.length],
    ["Chosen by", index.choice], ...(index.published.length ? [["Published points", index.published[0].source]] : []),
  ]);
  $("remake").textContent = index.lessons
    ? "npo-kit pocket --out runs/pocket        # the models, in minutes\nnpo-kit study pocket --out runs/study    # every run of this study\nnpo-kit app runs/study                   # this page on it"
    : "npo-kit table FOLDER     # these scores\nnpo-kit app FOLDER       # this page";
  const run = runs[state.b].live || runs[state.b].pinned ? runs.original : runs[state.b];
  $("about-run").textContent = run.label ?? run.id;
  asked(server.about({ study: state.study, run: run.id })).then((found) => {
    if (found && state.view === "about") fillCard($("config"), [...flat(found.config), ["status", found.status]]);
  });
}
