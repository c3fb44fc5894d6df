// The list of questions in the settings, and the way from one question to the next.

const { $, node, button, hued, marked, keepFocus } = kit.dom;
const { SIDES, ROWS, rowOf } = kit.names;
const { index, runs, state } = kit.state;
const { compared, styleOf } = kit.stands;
const { change } = kit.address;
const { fetchScores, scoresOf } = kit.answers;

const rougeOfPair = () => SIDES.map((side) => scoresOf(runs[state[side]], "rouge_l"));

// The numbers of the questions that the filters let through, in the order that is chosen.
function matching() {
  const find = state.find.toLowerCase();
  const fits = ({ set, question, answer }) =>
    (state.set === "all" || set === state.set)
    && (!find || `${question} ${answer}`.toLowerCase().includes(find));
  const found = [...index.questions.keys()].filter((number) => fits(index.questions[number]));
  const [a, b] = rougeOfPair();
  if (state.sort === "differ" && a && b) {
    const apart = (number) => Math.abs((a[number] ?? 0) - (b[number] ?? 0));
    found.sort((one, other) => apart(other) - apart(one) || one - other);
  }
  return found;
}

const numbersOf = (row, numbers) =>
  numbers.filter((number) => rowOf(index.questions[number].set) === row);

// The next or previous question of a row: of those found, else of all.
function move(row, by) {
  const found = numbersOf(row, matching());
  const numbers = found.length ? found : numbersOf(row, [...index.questions.keys()]);
  const at = numbers.indexOf(state[ROWS[row]]);
  const next = numbers[at < 0 ? 0 : (at + by + numbers.length) % numbers.length];
  change({ [ROWS[row]]: next });
}

const choose = (number) => change({ [ROWS[rowOf(index.questions[number].set)]]: number });

// Orders the list, and shows the first question of each row where that is a new order.
async function order(sort) {
  const pair = SIDES.map((side) => runs[state[side]]);
  if (sort === "differ") await Promise.all(pair.map(fetchScores));
  state.sort = sort;
  const firsts = Object.entries(ROWS).map(([row, name]) => [name, numbersOf(row, matching())[0]]);
  const there = firsts.filter(([, number]) => number !== undefined);
  change({ sort, ...(sort === "differ" && Object.fromEntries(there)) });
}

// --- the list ---

const drawList = () => keepFocus(fillList);

function fillList() {
  if (!state.panel) return;
  const found = matching();
  const rouge = rougeOfPair().slice(0, compared().length);
  const of = rouge.length > 1 ? " of both methods" : "";
  $("count").textContent =
    `${found.length} of ${index.questions.length} questions; bars: ROUGE-L${of}`;
  $("list").replaceChildren(...found.map((number) => node("li", {}, listButton(number, rouge))));
  const current = $("list").querySelector('[aria-current="true"]');
  const stop = current ?? $("list").querySelector("button");
  if (stop) stop.tabIndex = 0; // the list is one stop of the Tab key; arrows move in it
}

function drawPicker() {
  for (const name of ["set", "sort"]) $(name).value = state[name];
  if (document.activeElement !== $("search")) $("search").value = state.find;
  drawList();
  if (!state.panel) return;
  for (const run of compared()) {
    if (!scoresOf(run, "rouge_l")) fetchScores(run).then((there) => there && drawList());
  }
}

function listButton(number, rouge) {
  const { set, question } = index.questions[number];
  const bars = rouge.map((of, i) => {
    const bar = hued(node("i"), styleOf(compared()[i]).colour);
    bar.style.setProperty("--full", of?.[number] ?? 0);
    return bar;
  });
  const name = node("span", { textContent: question });
  const box = node("span", { className: "bars", ariaHidden: "true" }, ...bars);
  const isShown = state[ROWS[rowOf(set)]] === number;
  const look = { ariaCurrent: String(isShown), tabIndex: -1 };
  return marked(
    button(look, () => choose(number), name, box),
    "number",
    number,
  );
}

function moveInList(event) {
  const stops = [...$("list").querySelectorAll("button")];
  const at = stops.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: stops.length - 1 }[event.key];
  if (to === undefined || !stops.length) return;
  event.preventDefault();
  const next = stops[(to + stops.length) % stops.length];
  choose(Number(next.dataset.number));
  $(`number="${next.dataset.number}"`).focus();
}

kit.picker = { move, order, drawPicker, moveInList };
