// The story above the views: what this is about, or the lesson of the guided tour.

const { $, button, node } = kit.dom;
const { percent, shown } = kit.words;
const { rowsOf } = kit.stands;
const { USUAL, index, runs, state } = kit.state;
const { addressOf, change, draw } = kit.address;
const { withWords } = kit.glossary;
const { meterValues } = kit.stage;
const { seedsOf } = kit.marks;
const { fetchSplits, splitsThere, methodsOf, rangeWords } = kit.splits;
const { playFrom, stopPlaying } = kit.scrubber;

const PAIR = { a: "ga", b: "npo_rt" };
const AT = 50; // per cent of the authors, in the lesson of the study of several splits

// --- numbers of the recorded studies, in words ---

const last = (id, metric) => runs[id].metrics[metric].at(-1);
const forgot = (id) => shown(last(id, "forget_probability"));
const useful = (id) => percent(meterValues(runs[id], runs[id].steps.length - 1).useful);

// Of the runs that differ from this one by the seed alone, the least and the greatest.
function spreadOf(id, metric, write) {
  const values = seedsOf(runs[id]).map((run) => run.metrics[metric].at(-1));
  values.sort((a, b) => a - b);
  return `${write(values[0])} to ${write(values.at(-1))}`;
}

// What a method keeps at AT per cent, or its p, in the study of several splits.
function atHalf(method, reading, cut, measure) {
  const { cells } = methodsOf(splitsThere(), reading).find((each) => each.method === method);
  return rangeWords(
    cells.find((cell) => cell.percent === AT),
    measure,
    cut,
  );
}

// --- lessons: a headline, what is told, and the state that shows it ---

const LESSONS = [
  {
    title: "It knows them by heart",
    tell: () =>
      "Before unlearning, the {original|original} recites its training answers word for word. The "
      + "model {retained|retrained without them} never saw these authors, so it makes something "
      + "up. That is what forgetting should look like.",
    show: { view: "compare", step: 0, ...PAIR },
  },
  {
    title: "Gradient ascent does not stop",
    tell: () =>
      "{ga|Gradient ascent} (GA) lowers the probability of the answers to forget at every step, "
      + "and nothing tells it when to stop. After 100 steps it has taken everything else along: "
      + `${useful("ga")} of the {utility|utility} is left.`,
    show: { view: "compare", step: 100, ...PAIR },
    plays: true,
  },
  {
    title: "With a retain term, at 10 %, even gradient ascent holds",
    tell: () =>
      "A {rt|retain term} (+RT) rehearses the other authors at every step. GA with it keeps "
      + `${useful("ga_rt")} of the utility, and NPO ${useful("npo_rt")}. But to the model that `
      + "{retained|never saw} the ten their answers have a probability of "
      + `${forgot("retained")}: NPO+RT goes past that, to ${forgot("npo_rt")}, and GA+RT much `
      + `further, to ${forgot("ga_rt")}.`,
    show: { view: "tradeoff", step: 100, a: "ga_rt", b: "npo_rt" },
  },
  {
    title: "At 50 %, after ten passes, gradient ascent has lost nearly all",
    tell: () =>
      splitsThere()?.runs
        ? "Now half of the authors must go, in ten passes. At the last step GA keeps "
          + `${atHalf("ga", "", "last", "kept")} of the utility, GA with a retain term `
          + `${atHalf("ga_rt", "", "last", "kept")}, NPO with a retain term `
          + `${atHalf("npo_rt", "", "last", "kept")}. A high {quality|p} beside a utility of 0 is `
          + "worth nothing: a broken model has one. NPO+RT has p "
          + `${atHalf("npo_rt", "", "last", "p")}.`
        : "…",
    show: { view: "much", cut: "last" },
  },
  {
    title: "But stopped in time, gradient ascent with a retain term is ahead",
    tell: () =>
      splitsThere()?.runs
        ? "The same, with 100 steps everywhere, and each run read where it has first forgotten as "
          + "much as a model that never saw the rows. At 50 % GA+RT keeps "
          + `${atHalf("ga_rt", "steps", "equal", "kept")} there, NPO+RT `
          + `${atHalf("npo_rt", "steps", "equal", "kept")}. What sets NPO+RT `
          + "apart is that it lasts longer: ten passes cost GA+RT nearly everything, as the step "
          + "before shows."
        : "…",
    show: { view: "much", reading: "steps", cut: "equal" },
  },
  {
    title: "Why NPO brakes: the weight W",
    tell: () =>
      "{npo|Negative Preference Optimization} (NPO) multiplies each answer's push by the "
      + "{weight|weight W}. As an answer becomes unlikely, W fades towards 0; for GA it is 1 for "
      + "ever. In a simple model one can prove what follows: GA moves away linearly with the "
      + "steps, NPO only logarithmically. It slows down, but never stops.",
    show: { view: "theory", wb: 0.5 },
  },
  {
    title: "A β too small does not brake",
    tell: () =>
      "{beta|β} says how soon W fades. Without a retain term, NPO with β 0.1 ends with "
      + `${useful("npo")} of the utility, with β 0.5 ${useful("npo-beta0.5")}, with β 1 `
      + `${useful("npo-beta1")}. These answers have a dozen tokens: on longer ones the same β `
      + "brakes sooner.",
    show: { view: "compare", step: 100, a: "npo", b: "npo-beta1" },
  },
  {
    title: "What p means",
    tell: () =>
      "{quality|Forget quality} p asks whether a test tells the model from one that never saw the "
      + `authors. GA, which is broken, has p ${spreadOf("ga", "forget_quality", shown)} over `
      + `${seedsOf(runs.ga).length} seeds; NPO+RT has `
      + `${spreadOf("npo_rt", "forget_quality", shown)}. But {null|models that `
      + `never saw them} (grey) have p ${shown(Math.min(...index.null.p))} or more in 95 % of `
      + "pairs. "
      + "So a p above 0.05 is not yet forgetting: "
      + `${spreadOf("npo_rt", "forget_percentile", percent)} of such models lie nearer to the `
      + "retrained one than NPO+RT does.",
    show: { view: "tradeoff", x: "p", step: 100, ...PAIR },
  },
];

// --- without a lesson ---

const TASKS = [
  [/^authors:forget(\d+)$/, (n) => `has learned 100 fictional authors, and ${n} of them must go.`],
  [/^tofu:forget(\d+)$/, (n) => `has learned 200 fictional authors, and ${n} % of them must go.`],
];

function leadWords() {
  const [pattern, tell] = TASKS.find(([each]) => each.test(index.task)) ?? [];
  const about = pattern
    ? tell(Number(index.task.match(pattern)[1]))
    : `must forget ${rowsOf("forget")} answers.`;
  return (
    `{unlearning|Unlearning} takes chosen facts out of a trained model. This one ${about} `
    + "{ga|Gradient ascent (GA)} pushes their answers down and never stops. "
    + "{npo|Negative Preference Optimization (NPO)} pushes less and less as an answer fades, and a "
    + "{rt|retain term} rehearses the rest."
  );
}

// --- the page's part ---

const lessonNow = () => (index.lessons ? LESSONS[state.lesson - 1] : undefined);

function stateOf(number) {
  const { theme, study, hide, present } = state;
  const lesson = number < LESSONS.length ? number + 1 : 0;
  return { ...USUAL, theme, study, hide, present, ...LESSONS[number]?.show, lesson };
}

// To a lesson, by its number from 0; beyond the last the tour ends.
function goToLesson(number) {
  stopPlaying();
  change(stateOf(number));
  if (LESSONS[number]?.plays) playFrom(0);
}

function drawStory() {
  const lesson = lessonNow();
  const isShown = lesson || (state.view === "compare" && !state.present);
  $("story").hidden = !isShown;
  $("story").classList.toggle("taught", Boolean(lesson));
  if (!isShown) return;
  if (lesson?.show.view === "much" && !splitsThere())
    fetchSplits().then((there) => there && draw());
  $("headline").textContent = lesson?.title ?? "Make a language model forget, and stay useful.";
  $("lead").replaceChildren(...withWords(lesson ? lesson.tell() : leadWords()));
  $("lesson").replaceChildren(...(lesson ? lessonSteps() : startOfTour()));
}

function startOfTour() {
  if (!index.lessons) return [];
  return [linkTo(0, `Take the tour in ${LESSONS.length} steps`)];
}

function lessonSteps() {
  const at = state.lesson - 1;
  const dots = LESSONS.map(({ title }, number) => {
    const dot = linkTo(number, String(number + 1));
    dot.ariaCurrent = number === at ? "step" : null;
    dot.title = title;
    return node("li", {}, dot);
  });
  const following = LESSONS[at + 1];
  const textContent = following ? `Next: ${following.title}` : "End the tour";
  const next = button({ className: "primary", textContent }, () => goToLesson(at + 1));
  return [node("ol", {}, ...dots), next];
}

function linkTo(number, textContent) {
  const link = node("a", { textContent, href: addressOf(stateOf(number)) });
  link.addEventListener("click", (event) => {
    event.preventDefault();
    goToLesson(number);
  });
  return link;
}

// On or back in the tour; false where there is none to go to.
function turn(by) {
  const next = state.lesson - 1 + by;
  if (!index.lessons || next < 0 || next >= LESSONS.length) return false;
  goToLesson(next);
  return true;
}

kit.story = { drawStory, turn };
