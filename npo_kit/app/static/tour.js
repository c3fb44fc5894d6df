// The guided tour: each lesson is a link to the state that shows it.

const { $, $$, button, node } = kit.dom;
const { USUAL, index, state } = kit.state;
const { addressOf, change } = kit.address;

const PAIR = { a: "ga", b: "npo_rt" };

// A title, a sentence or two, and the state that shows it.
const LESSONS = [
  [
    "Memorised",
    "Before unlearning the original recites its training answers word for word. The model "
      + "retrained without the forget rows never saw these authors: it has to make something up, "
      + "and that is what forgetting should look like.",
    { view: "compare", q: 1, step: 0, ...PAIR },
  ],
  [
    "GA collapses",
    "Gradient ascent, 100 steps later, on a question it should still answer: the text is broken. "
      + "It pushed the forget answers down without end, and everything else went with them.",
    { view: "compare", set: "retain", q: 125, step: 100, ...PAIR },
  ],
  [
    "NPO does not",
    "At the same forgetting (the same mean probability of the forget answers, read between two "
      + "evaluations), compare what is left: GA's utility falls as it forgets, NPO with a retain "
      + "term keeps more of it. Move the slider to other levels.",
    { view: "tradeoff", match: "level", level: 6, ...PAIR },
  ],
  [
    "Why: the weight",
    "NPO weights each gradient by W. Once an answer is unlikely, its weight is near 0 and the push "
      + "ends; GA's weight is 1 for ever. So GA drifts linearly, NPO logarithmically.",
    { view: "theory", wb: 0.5 },
  ],
  [
    "The retain term",
    "NPO alone slows down but has nothing to hold on to: at a small β it still loses its utility "
      + "in the end. The retain term (+RT) keeps it, and the test does not tell the model from the "
      + "retrained one. That alone is not yet forgetting: the grey band shows where models that "
      + "never saw these authors lie, and the percentile how many of them lie nearer.",
    { view: "tradeoff", a: "npo", b: "npo_rt", step: 100 },
  ],
];

function makeTour() {
  if (!index.lessons) return;
  const links = LESSONS.map(([title], number) => {
    const link = node("a", { textContent: title, href: lessonAddress(number) });
    link.addEventListener("click", (event) => {
      event.preventDefault();
      goToLesson(number);
    });
    return node("li", {}, link);
  });
  $("lessons").replaceChildren(...links);
}

function lessonAddress(number) {
  const { theme, study, hide } = state;
  return addressOf({ ...USUAL, theme, study, hide, ...LESSONS[number][2], lesson: number + 1 });
}

function goToLesson(number) {
  location.hash = lessonAddress(number);
}

function drawTour() {
  const number = index.lessons ? state.lesson - 1 : -1;
  $("lesson").hidden = number < 0;
  $$("[data-lessons] a").forEach((link, i) => {
    link.ariaCurrent = i === number ? "step" : null;
  });
  if (number < 0) return;
  const following = LESSONS[number + 1];
  const textContent = following ? `Next: ${following[0]}` : "End the tour";
  const press = () => (following ? goToLesson(number + 1) : change({ lesson: 0 }));
  const next = button({ className: "quiet", textContent }, press);
  $("lesson").replaceChildren(LESSONS[number][1], " ", next);
}

kit.tour = { makeTour, drawTour };
