// Which words of an answer are still the true answer's. Text goes into the page as text only.

function wordsOf(text) {
  return [...text.matchAll(/[\p{L}\p{N}]+/gu)].map((m) => ({
    word: m[0].toLowerCase(), start: m.index, end: m.index + m[0].length,
  }));
}

// Words of the fact that the question does not give away already.
function factWords(question) {
  const asked = new Set(wordsOf(question.question).map((w) => w.word));
  const words = wordsOf(question.fact).map((w) => w.word);
  return new Set(words.filter((w) => !asked.has(w) && (w.length > 2 || /\d/.test(w))));
}

function saysFact(text, question) {
  const plain = (s) => ` ${wordsOf(s).map((w) => w.word).join(" ")} `;
  return plain(text).includes(plain(question.fact));
}

// Places in `said` of a longest common subsequence with `truth`, as ROUGE-L counts it.
function commonWords(said, truth) {
  const long = Array.from({ length: said.length + 1 }, () => new Uint16Array(truth.length + 1));
  for (let i = said.length - 1; i >= 0; i--) {
    for (let j = truth.length - 1; j >= 0; j--) {
      long[i][j] = said[i].word === truth[j].word
        ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
    }
  }
  const places = new Set();
  for (let i = 0, j = 0; i < said.length && j < truth.length;) {
    if (said[i].word === truth[j].word) { places.add(i); i++; j++; }
    else if (long[i + 1][j] >= long[i][j + 1]) i++;
    else j++;
  }
  return places;
}

// Put `text` into `element` with <mark>s for the fact's and the answer's words.
function showMarked(element, text, question) {
  element.replaceChildren();
  const said = wordsOf(text.slice(0, 5000));
  const common = commonWords(said, wordsOf(question.answer));
  const fact = factWords(question);
  let at = 0;
  said.forEach((w, place) => {
    const kind = fact.has(w.word) ? "fact" : common.has(place) ? "echo" : null;
    if (!kind) return;
    element.append(text.slice(at, w.start));
    const mark = document.createElement("mark");
    mark.className = kind;
    mark.textContent = text.slice(w.start, w.end);
    element.append(mark);
    at = w.end;
  });
  element.append(text.slice(at));
}

function showTruth(element, question) {
  const at = question.answer.indexOf(question.fact);
  const bold = document.createElement("b");
  bold.textContent = question.fact;
  element.replaceChildren(
    question.answer.slice(0, at), bold, question.answer.slice(at + question.fact.length),
  );
}

function badgesOf(cell, question) {
  const [text, , , , , repetition] = cell;
  if (!text.trim()) return [["empty", ""]];
  const badges = [];
  if (saysFact(text, question)) badges.push(["says the fact", "leak"]);
  if (repetition >= 0.3) badges.push(["repeats itself", ""]);
  if (/don.t know|not sure|no idea|cannot (say|answer)|can.t (say|answer)|I'm (not|unable)/i.test(text)) {
    badges.push(["refuses", ""]);
  }
  return badges;
}

function shown(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) < 10 ** -digits || Math.abs(value) >= 1e4)) {
    return value.toExponential(1).replace("e-", "e−");
  }
  return value.toFixed(digits).replace("-", "−");
}
