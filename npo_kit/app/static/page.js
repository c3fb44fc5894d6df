// The page: tabs, the scrubber, keys; opens the study that the address names.

let playing = null, lastShown = "compare", opened = 0; // the study that is shown

const draw = () => keepFocus(drawAll);

function drawAll() {
  const hidden = listed(state.hide).filter((part) => part !== "compare"); // there is always one view
  if (hidden.includes(state.view)) state.view = "compare";
  for (const part of element.querySelectorAll("[data-part]")) {
    const view = part.dataset.view;
    part.hidden = hidden.includes(part.dataset.part) || (part.dataset.part === "tour" && !index.lessons) || (view !== undefined && view !== state.view);
  }
  for (const tab of element.querySelectorAll("[role=tab]")) {
    tab.hidden = hidden.includes(tab.dataset.tab);
    tab.setAttribute("aria-selected", String(tab.dataset.tab === state.view));
    tab.tabIndex = tab.dataset.tab === state.view ? 0 : -1;
  }
  if (state.view !== "about") lastShown = state.view;
  if (playing && !scrubs()) play();
  const going = live.going;
  $("source").textContent = state.view === "live" ? (live.jobs.length ? "live" : "no live run") : state.view === "theory" ? "live and recorded"
    : [state.a, state.b].some((id) => runs[id].live || runs[id].pinned) ? "live beside recorded" : going ? "recorded; a live run goes on" : "recorded";
  $("source").classList.toggle("live", $("source").textContent.startsWith("live"));
  if (state.theme) document.body.classList.toggle("dark", state.theme === "dark");
  drawTour();
  drawScrub();
  ({ compare: drawCompare, tradeoff: drawTradeoff, live: drawLive, theory: drawTheory, about: drawAbout })[state.view]();
}

// --- the scrubber ---

const scrubs = () => ["compare", "tradeoff"].includes(state.view);

function drawScrub() {
  $("scrub").hidden = !scrubs();
  for (const side of ["a", "b"]) {
    const select = $(`side="${side}"`);
    const there = Object.values(runs).filter((run) => run.kind === "unlearn" && !run.foreign && run.steps.length);
    const key = there.map((run) => run.id + run.label).join();
    if (select.dataset.of !== key) {
      select.replaceChildren(...there.map((run) => option(run.id, run.label)));
      select.dataset.of = key;
    }
    select.value = state[side];
    select.parentNode.hidden = side === "b" && there.length < 2; // one run is one column
    $(`swatch="${side}"`).style.setProperty("--hue", styleOf(runs[state[side]]).colour);
  }
  const range = $("step"), byStep = state.match === "step", last = lastStep();
  $("match").value = state.match;
  const levels = levelsReached();
  Object.assign(range, byStep ? { min: 0, max: last, step: stride(), value: Math.min(state.step, last) }
    : { min: levels[0] ?? 0, max: levels.at(-1) ?? 0, step: 1, value: state.level });
  range.disabled = !byStep && !levels.length;
  range.setAttribute("aria-label", byStep ? "Unlearning step" : "Forget level: mean probability of the forget answers");
  const words = byStep ? `step ${Math.min(state.step, last)} of ${last}` : levelWords();
  $("at").textContent = words;
  range.setAttribute("aria-valuetext", words);
}

function levelWords() {
  const short = compared().filter((run) => !standOf(run).reached);
  return `P(forget) = ${LEVELS[state.level]}${short.length ? `: not reached by ${short.map((run) => run.label).join(", ")}` : ""}`;
}

function scrubTo(value) {
  if (state.match === "step") change({ step: Math.max(0, Math.min(lastStep(), value)) });
  else {
    const levels = levelsReached();
    if (levels.length) change({ level: Math.max(levels[0], Math.min(levels.at(-1), value)) });
  }
  say($("at").textContent);
}

const scrubBy = (by) => scrubTo(state.match === "step" ? Math.min(state.step, lastStep()) + by * stride() : state.level + by);
const atEnd = () => (state.match === "step" ? state.step >= lastStep() : state.level >= (levelsReached().at(-1) ?? 0));

function play() {
  clearInterval(playing);
  playing = null;
  const on = action("play").getAttribute("aria-pressed") !== "true";
  action("play").setAttribute("aria-pressed", String(on));
  action("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (atEnd()) scrubTo(0);
  playing = setInterval(() => (atEnd() ? play() : scrubBy(1)), 700);
}

// --- keys and buttons ---

function toggleKeys() {
  $("keys").hidden = !$("keys").hidden;
  action("keys").setAttribute("aria-expanded", String(!$("keys").hidden));
}

function bindKeys() {
  window.addEventListener("keydown", (event) => {
    const slides = event.target.matches('input[type="range"]') && event.key.startsWith("Arrow");
    const tabbed = event.target.matches("[role=tab]") && event.key.startsWith("Arrow");
    const types = event.target.matches('input:not([type="range"]):not([type="checkbox"]), select, textarea');
    if (slides || tabbed || types || event.ctrlKey || event.metaKey || event.altKey) return;
    const view = Object.keys(VIEWS)[Number(event.key) - 1];
    const does = {
      ...(scrubs() && {
        ArrowRight: () => scrubBy(1), ArrowLeft: () => scrubBy(-1), p: play,
        m: () => change({ match: state.match === "step" ? "level" : "step" }),
      }),
      ...(state.view === "compare" && {
        j: () => move(1), k: () => move(-1), d: () => change({ mark: state.mark === "leak" ? "change" : "leak" }),
      }),
      "?": toggleKeys,
    }[event.key] ?? (view && !listed(state.hide).includes(view) ? () => change({ view }) : null);
    if (does) { event.preventDefault(); does(); }
  });
}

function bindPage() {
  for (const side of ["a", "b"]) $(`side="${side}"`).addEventListener("change", () => change({ [side]: $(`side="${side}"`).value }));
  for (const name of ["match", "set", "sort", "mark", "x", "time"]) {
    $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  }
  $("step").addEventListener("input", () => scrubTo(Number($("step").value)));
  $("study").addEventListener("change", () => { location.hash = studyAddress(Number($("study").value)); });
  action("play").addEventListener("click", play);
  action("keys").addEventListener("click", toggleKeys);
  action("link").addEventListener("click", () => copy(location.href, action("link")));
  action("theme").addEventListener("click", () => change({ theme: document.body.classList.contains("dark") ? "light" : "dark" }));
  action("reset").addEventListener("click", () => {
    const step = Math.max(...Object.values(runs).flatMap((run) => run.steps));
    change({ ...USUAL, study: state.study, theme: state.theme, hide: state.hide, step });
  });
  let resized = null;
  window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(draw, 100); });
  window.addEventListener("hashchange", () => {
    // Runs, questions and live lab are the study's; until the page is gone the state stays theirs.
    const study = Number(new URLSearchParams(location.hash.slice(1)).get("study")) || 0;
    if (study !== opened) { location.reload(); return; }
    readAddress();
    settleState();
    draw();
  });
}

// A study from its beginning, in the view and with the parts that are shown now.
function studyAddress(study) {
  const { view, theme, hide } = state, kept = { study, view, theme, hide };
  return `#${new URLSearchParams(Object.entries(kept).filter(([name, value]) => value !== USUAL[name]))}`;
}

function makeTabs() {
  $("tabs").replaceChildren(...Object.entries(VIEWS).map(([view, textContent]) => {
    const tab = button({ role: "tab", textContent, id: `npo-tab-${view}` }, () => change({ view }));
    tab.dataset.tab = view;
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      const there = Object.keys(VIEWS).filter((each) => !listed(state.hide).includes(each));
      change({ view: there[(there.indexOf(view) + by + there.length) % there.length] });
      element.querySelector("[role=tab][aria-selected=true]").focus();
    });
    const panel = element.querySelector(`[role=tabpanel][data-view="${view}"]`);
    panel.id = `npo-panel-${view}`;
    tab.setAttribute("aria-controls", panel.id);
    return tab;
  }));
}

async function open() {
  readAddress();
  index = await asked(server.index({ study: state.study }));
  if (!index && state.study) {
    state.study = 0;
    index = await asked(server.index({ study: 0 }));
  }
  if (!index) return;
  opened = state.study;
  for (const run of index.runs) runs[run.id] = run;
  const given = new URLSearchParams(location.hash.slice(1));
  settleState();
  if (!given.has("step")) state.step = Math.max(...runs[state.b].steps);
  const kept = index.questions.some(({ set }) => set !== "forget");
  $("lead").textContent = `${index.title}. Pick one of ${rowsOf("forget")} questions to be forgotten${kept ? ", or one to be kept," : ""} and move along the steps.`;
  $("notes").replaceChildren(...index.notes.map((textContent) => node("p", { textContent })));
  $("notes").hidden = !index.notes.length;
  const from = index.provenance, machine = from.gpus?.length ? from.gpus.join(", ") : from.cpu;
  const versions = Object.entries(from.versions).filter(([name, version]) => version && name !== "npo_kit").map((each) => each.join(" "));
  $("footer").textContent = `${[`Recorded ${from.date || "at an unknown time"}${machine ? ` on ${machine}` : ""}`,
    `kit at commit ${from.commit || "unknown"}`, ...versions].join(", ")}; task ${index.task}.`;
  $("studies").hidden = index.studies.length < 2;
  $("study").replaceChildren(...index.studies.map((title, number) => option(number, title)));
  $("study").value = state.study;
  const parts = [makeTabs, makeCompare, makeLive, makeTheory, makeAbout, makeTour];
  for (const make of [...parts, bindPage, bindKeys]) make();
  change({});
}

open();
