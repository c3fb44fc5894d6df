// The page: tabs, keys and buttons; opens the study that the address names.

const { server } = kit.gradio;
const { $, $$, action, button, keepFocus, marked, node, option } = kit.dom;
const { asked, copy } = kit.words;
const { VIEWS, SIDES, listed } = kit.names;
const { USUAL, declareOptions, index, runs, state } = kit.state;
const { rowsOf } = kit.stands;
const { onChange, draw, given, readAddress, settleState, change } = kit.address;
const { makeCompare, drawCompare, move } = kit.compare;
const { drawTradeoff } = kit.tradeoff;
const { splitsThere } = kit.splits;
const { drawMuch } = kit.much;
const { live } = kit.live;
const { makeLab, drawLive } = kit.lab;
const { makeTheory, drawTheory } = kit.theory;
const { makeTour, drawTour } = kit.tour;
const { noteView, makeAbout, drawAbout } = kit.about;
const { scrubs, drawScrub, scrubBy, play, makeScrubber } = kit.scrubber;

const DRAWS = {
  compare: drawCompare,
  tradeoff: drawTradeoff,
  much: drawMuch,
  live: drawLive,
  theory: drawTheory,
  about: drawAbout,
};

let opened = 0; // the number of the study that is shown

function drawAll() {
  const hidden = listed(state.hide).filter((part) => part !== "compare"); // one view at least
  if (hidden.includes(state.view)) state.view = "compare";
  if (!index.lessons) hidden.push("tour");
  for (const part of $$("[data-part]")) {
    const { part: name, view = state.view } = part.dataset;
    part.hidden = hidden.includes(name) || view !== state.view;
  }
  for (const tab of $$("[role=tab]")) {
    const selected = tab.dataset.tab === state.view;
    tab.hidden = hidden.includes(tab.dataset.tab);
    Object.assign(tab, { ariaSelected: String(selected), tabIndex: selected ? 0 : -1 });
  }
  noteView();
  $("source").textContent = sourceWords();
  $("source").classList.toggle("live", $("source").textContent.startsWith("live"));
  if (state.theme) document.body.classList.toggle("dark", state.theme === "dark");
  drawTour();
  drawScrub();
  drawFooter();
  DRAWS[state.view]();
}

// Where the numbers of the view come from.
function sourceWords() {
  if (state.view === "live") return live.jobs.length ? "live" : "no live run";
  if (state.view === "theory") return "live and recorded";
  if (state.view === "much") return "recorded";
  if (SIDES.map((side) => runs[state[side]]).some((run) => run.live || run.pinned)) {
    return "live beside recorded";
  }
  return live.going ? "recorded; a live run goes on" : "recorded";
}

// --- keys and buttons ---

function toggleKeys() {
  $("keys").hidden = !$("keys").hidden;
  action("keys").ariaExpanded = String(!$("keys").hidden);
}

// What a key does now, by key.
function keysNow() {
  const visible = (view) => !listed(state.hide).includes(view);
  const views = Object.keys(VIEWS).map((view, i) => [
    i + 1,
    visible(view) && (() => change({ view })),
  ]);
  return {
    "?": toggleKeys,
    ...Object.fromEntries(views),
    ...(scrubs() && {
      ArrowRight: () => scrubBy(1),
      ArrowLeft: () => scrubBy(-1),
      p: play,
      m: () => change({ match: state.match === "step" ? "level" : "step" }),
    }),
    ...(state.view === "compare" && {
      j: () => move(1),
      k: () => move(-1),
      d: () => change({ mark: state.mark === "leak" ? "change" : "leak" }),
    }),
  };
}

const ARROWED = 'input[type="range"], [role=tab]'; // what has its own arrow keys
const TYPED = 'input:not([type="range"]):not([type="checkbox"]), select, textarea';

function bindKeys() {
  window.addEventListener("keydown", (event) => {
    const { target, key } = event;
    const moves = key.startsWith("Arrow") && target.matches(ARROWED);
    if (moves || target.matches(TYPED) || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = keysNow()[key];
    if (!does) return;
    event.preventDefault();
    does();
  });
}

function bindPage() {
  for (const side of SIDES) {
    const select = $(`side="${side}"`);
    select.addEventListener("change", () => change({ [side]: select.value }));
  }
  const chosen = ["match", "set", "sort", "mark", "x", "reading", "cut", "quality", "time"];
  for (const name of chosen) {
    $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  }
  $("study").addEventListener("change", () => {
    location.hash = studyAddress(Number($("study").value));
  });
  action("keys").addEventListener("click", toggleKeys);
  action("link").addEventListener("click", () => copy(location.href, action("link")));
  action("theme").addEventListener("click", () => {
    change({ theme: document.body.classList.contains("dark") ? "light" : "dark" });
  });
  action("reset").addEventListener("click", () => {
    const { study, theme, hide } = state;
    const step = Math.max(...Object.values(runs).flatMap((run) => run.steps));
    change({ ...USUAL, study, theme, hide, step });
  });
  let resized = null;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(draw, 100);
  });
  window.addEventListener("hashchange", followAddress);
}

function followAddress() {
  // Runs, questions and live lab are the study's; until the page is gone the state stays theirs.
  if ((Number(given().get("study")) || 0) !== opened) {
    location.reload();
    return;
  }
  readAddress();
  settleState();
  draw();
}

// A study from its beginning, in the view and with the parts that are shown now.
function studyAddress(study) {
  const { view, theme, hide } = state;
  const kept = Object.entries({ study, view, theme, hide });
  return `#${new URLSearchParams(kept.filter(([name, value]) => value !== USUAL[name]))}`;
}

function makeTabs() {
  $("tabs").replaceChildren(...Object.entries(VIEWS).map(([view, name]) => tabOf(view, name)));
}

function tabOf(view, textContent) {
  const panel = $(`view="${view}"`);
  panel.id = `npo-panel-${view}`;
  const look = { role: "tab", textContent, id: `npo-tab-${view}` };
  const tab = marked(
    button(look, () => change({ view })),
    "tab",
    view,
  );
  tab.setAttribute("aria-controls", panel.id);
  tab.addEventListener("keydown", ({ key }) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!by) return;
    const there = Object.keys(VIEWS).filter((each) => !listed(state.hide).includes(each));
    change({ view: there[(there.indexOf(view) + by + there.length) % there.length] });
    $(`tab="${state.view}"`).focus();
  });
  return tab;
}

function makeHead() {
  const kept = index.questions.some(({ set }) => set !== "forget") ? ", or one to be kept," : "";
  $("lead").textContent =
    `${index.title}. Pick one of ${rowsOf("forget")} questions to be `
    + `forgotten${kept} and move along the steps.`;
  $("notes").replaceChildren(...index.notes.map((textContent) => node("p", { textContent })));
  $("notes").hidden = !index.notes.length;
  $("studies").hidden = index.studies.length < 2;
  $("study").replaceChildren(...index.studies.map((title, number) => option(number, title)));
  $("study").value = state.study;
}

// Where the numbers of the view were recorded: those of How much are of a study of their own.
function drawFooter() {
  const { provenance, task } = state.view === "much" ? (splitsThere() ?? {}) : index;
  $("footer").hidden = !provenance;
  if (!provenance) return;
  const { gpus, cpu, versions, date, commit } = provenance;
  const machine = gpus?.length ? gpus.join(", ") : cpu;
  const packages = Object.entries(versions).filter(([name, v]) => v && name !== "npo_kit");
  const parts = [
    `Recorded ${date || "at an unknown time"}${machine ? ` on ${machine}` : ""}`,
    `kit at commit ${commit || "unknown"}`,
    ...packages.map((each) => each.join(" ")),
  ];
  $("footer").textContent = `${parts.join(", ")}; task ${task}.`;
}

async function open() {
  readAddress();
  let found = await asked(server.index({ study: state.study }));
  if (!found && state.study) {
    state.study = 0;
    found = await asked(server.index({ study: 0 }));
  }
  if (!found) return;
  Object.assign(index, found);
  opened = state.study;
  declareOptions();
  readAddress(); // what it says of these options
  state.study = opened;
  for (const run of index.runs) runs[run.id] = run;
  settleState();
  if (!given().has("step")) state.step = Math.max(...runs[state.b].steps);
  onChange(() => keepFocus(drawAll));
  const parts = [makeHead, makeTabs, makeScrubber];
  const views = [makeCompare, makeLab, makeTheory, makeAbout, makeTour];
  for (const make of [...parts, ...views, bindPage, bindKeys]) make();
  change({});
}

open();
