// The page: tabs, keys and buttons; opens the study that the address names.

const { element, server } = kit.gradio;
const { $, $$, action, button, keepFocus, marked, node, option } = kit.dom;
const { asked, copy } = kit.words;
const { VIEWS, SETS, COLUMNS } = kit.names;
const { USUAL, declareOptions, index, runs, state } = kit.state;
const { hiddenParts } = kit.stands;
const { onChange, draw, given, readAddress, settleState, change } = kit.address;
const { makeGlossary } = kit.glossary;
const { hideCard } = kit.card;
const { move, order, drawPicker, moveInList } = kit.picker;
const { makeStage, drawCompare } = kit.stage;
const { makeTradeoff, drawTradeoff } = kit.tradeoff;
const { splitsThere } = kit.splits;
const { drawMuch } = kit.much;
const { auditsThere } = kit.audits;
const { drawAudit } = kit.audit;
const { live } = kit.live;
const { secret } = kit.secret;
const { makeLab, drawLive } = kit.lab;
const { makeAsking } = kit.asking;
const { makeTheory, drawTheory } = kit.theory;
const { drawStory, turn } = kit.story;
const { noteView, makeAbout, drawAbout } = kit.about;
const { scrubs, drawScrub, scrubBy, play, playFirst, makeScrubber } = kit.scrubber;

const DRAWS = {
  compare: drawCompare,
  tradeoff: drawTradeoff,
  much: drawMuch,
  audit: drawAudit,
  live: drawLive,
  theory: drawTheory,
  about: drawAbout,
};

let opened = 0; // the number of the study that is shown

function drawAll() {
  const hidden = hiddenParts().filter((part) => part !== "compare"); // one view at least
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
  drawFrame();
  drawStory();
  drawScrub();
  drawPicker();
  drawFooter();
  DRAWS[state.view]();
}

// How much and Audit are of studies of their own.
const OWN = { much: splitsThere, audit: auditsThere };
const studyNow = () => (OWN[state.view] ? (OWN[state.view]() ?? {}) : index);

// What is around the views: the settings, and whether all of it is away for a lecture.
function drawFrame() {
  element.querySelector(".npo").classList.toggle("presenting", Boolean(state.present));
  $("panel").hidden = !state.panel || Boolean(state.present);
  action("panel").ariaExpanded = String(Boolean(state.panel));
  action("present").ariaPressed = String(Boolean(state.present));
  $("name").textContent = (studyNow().title ?? "").split(/[,:]/)[0];
  $("scored").checked = Boolean(state.scored);
  for (const name of ["match", "mark"]) $(name).value = state[name];
}

// Where the numbers of the view come from.
function sourceWords() {
  if (state.view === "live") return live.jobs.length || secret.begun ? "live" : "no live run";
  if (state.view === "theory") {
    return hiddenParts().includes("experiment") ? "recorded" : "live and recorded";
  }
  if (OWN[state.view]) return "recorded";
  if (COLUMNS.map((side) => runs[state[side]]).some((run) => run?.live || run?.pinned)) {
    return "live beside recorded";
  }
  return live.going ? "recorded; a live run goes on" : "recorded";
}

// --- keys and buttons ---

const switchOf = (name) => change({ [name]: state[name] ? "" : "1" });

// Puts everything but the view away, or back.
function present() {
  const on = !state.present;
  const whole = document.documentElement;
  if (on) whole.requestFullscreen?.().catch(() => {}); // refused, the page fills its window
  else if (document.fullscreenElement) document.exitFullscreen();
  change({ present: on ? "1" : "", panel: "" });
}

function escape() {
  hideCard();
  if (state.panel) change({ panel: "" });
  else if (state.present) present();
}

// The views that have a tab.
const viewsThere = () => Object.keys(VIEWS).filter((view) => !hiddenParts().includes(view));

// In a lecture: on or back in the tour, else from view to view.
function goOn(by) {
  if (turn(by)) return;
  const there = viewsThere();
  const next = there[there.indexOf(state.view) + by];
  if (next && !(index.lessons && state.lesson)) change({ view: next });
}

// Keys of a lecture: a clicker sends those of pages.
const ON = [" ", "ArrowRight", "ArrowDown", "PageDown"];
const BACK = ["ArrowLeft", "ArrowUp", "PageUp"];

// What a key does now, by key.
function keysNow() {
  const views = viewsThere().map((view, i) => [i + 1, () => change({ view })]);
  return {
    "?": () => switchOf("panel"),
    f: present,
    Escape: escape,
    ...Object.fromEntries(views),
    ...(scrubs() && {
      ArrowRight: () => scrubBy(1),
      ArrowLeft: () => scrubBy(-1),
      p: play,
      m: () => change({ match: state.match === "step" ? "level" : "step" }),
    }),
    ...(state.view === "compare" && {
      j: () => move("forget", 1),
      k: () => move("forget", -1),
      J: () => move("keep", 1),
      K: () => move("keep", -1),
      d: () => change({ mark: state.mark === "leak" ? "change" : "leak" }),
      s: () => switchOf("scored"),
    }),
    ...(state.present && Object.fromEntries(ON.map((name) => [name, () => goOn(1)]))),
    ...(state.present && Object.fromEntries(BACK.map((name) => [name, () => goOn(-1)]))),
  };
}

const ARROWED = 'input[type="range"], [role=tab]'; // what has its own arrow keys
const TYPED = 'input:not([type="range"]):not([type="checkbox"]), select, textarea';

function bindKeys() {
  window.addEventListener("keydown", (event) => {
    const { target, key } = event;
    const moves = key.startsWith("Arrow") && target.matches(ARROWED) && !state.present;
    const presses = key === " " && target.matches("button, summary");
    if (moves || presses || target.matches(TYPED) || event.ctrlKey || event.metaKey || event.altKey)
      return;
    const does = keysNow()[key];
    if (!does) return;
    event.preventDefault();
    does();
  });
}

function bindPage() {
  for (const side of COLUMNS) {
    const select = $(`side="${side}"`);
    select.addEventListener("change", () => change({ [side]: select.value }));
  }
  const chosen = ["match", "set", "mark", "x", "reading", "cut", "quality", "checkpoint", "time"];
  for (const name of chosen) {
    $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  }
  $("sort").addEventListener("change", () => order($("sort").value));
  $("scored").addEventListener("change", () => switchOf("scored"));
  $("search").addEventListener("input", () => change({ find: $("search").value }));
  $("list").addEventListener("keydown", moveInList);
  $("study").addEventListener("change", () => {
    location.hash = studyAddress(Number($("study").value));
  });
  action("panel").addEventListener("click", () => switchOf("panel"));
  action("close").addEventListener("click", () => change({ panel: "" }));
  action("present").addEventListener("click", present);
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
    const there = viewsThere();
    change({ view: there[(there.indexOf(view) + by + there.length) % there.length] });
    $(`tab="${state.view}"`).focus();
  });
  return tab;
}

function makeHead() {
  const sets = Object.entries({ all: "all", ...SETS });
  $("set").replaceChildren(...sets.map(([value, name]) => option(value, name)));
  $("notes").replaceChildren(...index.notes.map((textContent) => node("p", { textContent })));
  $("notes").hidden = !index.notes.length;
  $("studies").hidden = index.studies.length < 2;
  $("study").replaceChildren(...index.studies.map((title, number) => option(number, title)));
  $("study").value = state.study;
}

function drawFooter() {
  const { provenance, task } = studyNow();
  $("footer").hidden = !provenance?.versions;
  if (!provenance?.versions) return;
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
  const isFirst = !location.hash;
  if (!given().has("step")) state.step = Math.max(...runs[state.b].steps);
  onChange(() => keepFocus(drawAll));
  const parts = [makeHead, makeTabs, makeScrubber];
  const labs = [makeLab, makeAsking, makeTheory];
  const views = [makeStage, makeTradeoff, ...labs, makeAbout, makeGlossary];
  for (const make of [...parts, ...views, bindPage, bindKeys]) make();
  change({});
  if (isFirst) playFirst();
}

open();
