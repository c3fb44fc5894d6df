// About this run: provenance, configuration, how to remake it, export, prepared lessons.

const { server } = kit.gradio;
const { $, $$, action, marked, node } = kit.dom;
const { asked, copy, known, save } = kit.words;
const { VIEWS, SETS, listed } = kit.names;
const { index, runs, state } = kit.state;
const { hiddenParts, rowsOf } = kit.stands;
const { addressOf } = kit.address;
const { runAgain, canRunAgain } = kit.lab;

const HIDEABLE = [
  ...Object.entries(VIEWS).slice(1),
  ["tour", "Guided tour"],
  ["list", "Question list"],
];
const SETTINGS = ["method", "seed", "lr", "beta", "retain_weight"];
const REMAKE_POCKET = `npo-kit pocket --out runs/pocket        # the models, in minutes
npo-kit study pocket --out runs/study    # every run of this study
npo-kit app runs/study                   # this page on it`;
const REMAKE = `npo-kit table FOLDER     # these scores
npo-kit app FOLDER       # this page`;

let lastView = "compare"; // the one before this

// Remembers the view that a prepared lesson shows.
function noteView() {
  if (state.view !== "about") lastView = state.view;
}

function makeAbout() {
  const there = HIDEABLE.filter(([part]) => !hiddenParts().includes(part));
  const boxes = there.map(([part, name]) =>
    node("label", {}, marked(node("input", { type: "checkbox" }), "hides", part), name),
  );
  $("hide").append(...boxes);
  action("lesson-link").addEventListener("click", () => {
    const chosen = $$("[data-hides]").filter((box) => box.checked);
    const hide = chosen.map((box) => box.dataset.hides).join(",");
    const view = listed(hide).includes(lastView) ? "compare" : lastView;
    copy(location.href.split("#")[0] + addressOf({ hide, view }), action("lesson-link"));
  });
  action("csv").addEventListener("click", () => save(`${index.name}.csv`, asCsv(), "text/csv"));
  action("onefile").addEventListener("click", saveOneFile);
  action("again").addEventListener("click", runAgain);
  action("json").addEventListener("click", async () => {
    const found = await asked(server.about({ study: state.study, run: recordedRun().id }));
    if (found) save(`${state.b}.json`, JSON.stringify(found, null, 1), "application/json");
  });
}

async function saveOneFile() {
  const pressed = action("onefile");
  pressed.disabled = true; // it takes some seconds
  const found = await asked(server.onefile({ study: state.study }));
  pressed.disabled = false;
  if (found) save(found.name, found.html, "text/html");
}

// The run at side B, where it is recorded.
const recordedRun = () =>
  runs[state.b].live || runs[state.b].pinned ? runs.original : runs[state.b];

function asCsv() {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const line = (cells) => `${cells.map((cell) => quoted(String(cell ?? ""))).join(",")}\n`;
  const told = Object.values(runs).filter((run) => !run.live);
  const rows = told.flatMap((run) => {
    const about = [run.id, ...SETTINGS.map((name) => run[name]), run.pinned ? "live" : "recorded"];
    const scores = (i) => index.metrics.map((name) => run.metrics[name][i]);
    return run.steps.map((step, i) => [...about, step, ...scores(i)]);
  });
  const head = ["run", ...SETTINGS, "source", "step", ...index.metrics];
  return [head, ...rows].map(line).join("");
}

const isRecord = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// {a: {b: 1}} as [["a.b", 1]].
const flat = (record, before = "") =>
  Object.entries(record).flatMap(([name, value]) =>
    isRecord(value) ? flat(value, `${before}${name}.`) : [[before + name, value]],
  );

function fillCard(box, pairs) {
  const words = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const line = ([name, value]) =>
    node("div", {}, node("dt", { textContent: name }), node("dd", { textContent: words(value) }));
  box.replaceChildren(...pairs.filter(([, value]) => known(value) && value !== "").map(line));
}

function drawAbout() {
  const from = index.provenance;
  fillCard($("provenance"), [
    ["Study", index.title],
    ["Task", index.task],
    ["Recorded", from.date],
    ["Machine", from.gpus?.length ? from.gpus.join(", ") : from.cpu],
    ["Kit at commit", from.versions && (from.commit || "unknown")],
    ["torch", from.versions?.torch],
    ["transformers", from.versions?.transformers],
    [
      "Rows",
      Object.entries(SETS)
        .map(([set, name]) => `${rowsOf(set)} ${name}`)
        .join(", "),
    ],
    ["Runs", index.runs.length],
    ["Chosen by", index.choice],
    ["Published points", index.published[0]?.source],
    ["Not in this file", index.lacks?.join("; ")],
  ]);
  $("remake").textContent = index.lessons ? REMAKE_POCKET : REMAKE;
  action("again").parentElement.hidden = hiddenParts().includes("again") || !canRunAgain();
  const run = recordedRun();
  $("about-run").textContent = run.label;
  asked(server.about({ study: state.study, run: run.id })).then((found) => {
    if (!found || state.view !== "about") return;
    fillCard($("config"), [...flat(found.config), ["status", found.status]]);
  });
}

kit.about = { noteView, makeAbout, drawAbout };
