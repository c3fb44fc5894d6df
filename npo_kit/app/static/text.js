// Which words of an answer are still the true answer's, and which differ from the original's.

const { node } = kit.dom;

const LONG = 5000; // characters of an answer that are compared; the rest is shown as it is
const REFUSALS = new RegExp(
  "don.t know|not sure|no idea|cannot (say|answer)|can.t (say|answer)|I'm (not|unable)"
    + "|not aware|no information|unable to",
  "i",
);

function wordsOf(text) {
  return [...text.matchAll(/[\p{L}\p{N}]+/gu)].map(({ 0: word, index: start }) => ({
    word: word.toLowerCase(),
    start,
    end: start + word.length,
  }));
}

// Words of the fact that the question does not give away already.
function factWords({ question, fact }) {
  const given = new Set(wordsOf(question).map((w) => w.word));
  const words = wordsOf(fact).map((w) => w.word);
  return new Set(words.filter((w) => !given.has(w) && (w.length > 2 || /\d/.test(w))));
}

function saysFact(text, { fact }) {
  const plain = (s) =>
    ` ${wordsOf(s)
      .map((w) => w.word)
      .join(" ")} `;
  return fact !== "" && plain(text).includes(plain(fact));
}

// Pairs of places of a longest common subsequence of two lists of words, as ROUGE-L counts it.
function commonPairs(left, right) {
  const long = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  const same = (i, j) => left[i].word === right[j].word;
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      const [below, beside] = [long[i + 1][j], long[i][j + 1]];
      long[i][j] = same(i, j) ? long[i + 1][j + 1] + 1 : Math.max(below, beside);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < left.length && j < right.length;) {
    if (same(i, j)) pairs.push([i++, j++]);
    else if (long[i + 1][j] >= long[i][j + 1]) i++;
    else j++;
  }
  return pairs;
}

// Put a cell's text into `box` with <mark>s for the fact's and the answer's words. In a broken
// answer to a question to keep they show nothing that was kept.
function showLeak(box, cell, question) {
  const { text } = cell;
  if (question.set !== "forget" && brokenHow(cell, question)) {
    box.textContent = text;
    return;
  }
  box.replaceChildren();
  const words = wordsOf(text.slice(0, LONG));
  const common = new Set(commonPairs(words, wordsOf(question.answer)).map(([i]) => i));
  const fact = factWords(question);
  let at = 0;
  words.forEach(({ word, start, end }, place) => {
    const className = fact.has(word) ? "fact" : common.has(place) ? "echo" : null;
    if (!className) return;
    const textContent = text.slice(start, end);
    box.append(text.slice(at, start), node("mark", { className, textContent }));
    at = end;
  });
  box.append(text.slice(at));
}

// Put `text` into `box` with <ins> and <del> against `before`.
function showChange(box, text, before) {
  box.replaceChildren();
  const now = wordsOf(text.slice(0, LONG));
  const then = wordsOf(before.slice(0, LONG));
  const slice = (name, of, words, from, to) =>
    node(name, { textContent: of.slice(words[from].start, words[to - 1].end) });
  let [i, j, at] = [0, 0, 0];
  for (const [nextI, nextJ] of [...commonPairs(now, then), [now.length, then.length]]) {
    if (nextJ > j) {
      const gone = slice("del", before, then, j, nextJ);
      box.append(...(at ? [" ", gone] : [gone, " "]));
    }
    if (nextI > i) {
      box.append(text.slice(at, now[i].start), slice("ins", text, now, i, nextI));
      at = now[nextI - 1].end;
    }
    if (nextI < now.length) {
      box.append(text.slice(at, now[nextI].end));
      at = now[nextI].end;
    }
    [i, j] = [nextI + 1, nextJ + 1];
  }
  box.append(text.slice(at));
}

function showTruth(box, { set, answer, fact }) {
  box.classList.toggle("keep", set !== "forget");
  const at = answer.indexOf(fact);
  if (!answer || at < 0) box.replaceChildren(answer || "–");
  else {
    const bold = node("b", { textContent: fact });
    box.replaceChildren(answer.slice(0, at), bold, answer.slice(at + fact.length));
  }
}

const UNLIKELY = -3; // nats a token under the original: it would hardly have written such a text

// Share of the triples of words that stood before in the same text.
function repetitionOf(words) {
  const triples = words.slice(2).map((_, i) => words.slice(i, i + 3).join(" "));
  return triples.length ? 1 - new Set(triples).size / triples.length : 0;
}

// What is wrong with an answer as a text, or "". One whose scores are not known yet has the text
// only.
function brokenHow({ text, fluency = null, repetition }, question) {
  const words = wordsOf(text).map(({ word }) => word);
  if (!text.trim()) return "says nothing";
  if ((repetition ?? repetitionOf(words)) >= 0.3) return "repeats itself";
  const isTruth = [question.fact, question.answer].some(
    (truth) =>
      truth
      && wordsOf(truth)
        .map(({ word }) => word)
        .join(" ") === words.join(" "),
  );
  if (isTruth || REFUSALS.test(text) || fluency === null) return "";
  return fluency < UNLIKELY ? "unlikely text" : "";
}

// [words, kind] of an answer: "good" or "bad" on rows to keep, "leak" or "bad" on rows to forget,
// "" for what is neither. `before` is the original's cell, null for the original itself.
function badgesOf(cell, question, before) {
  const { text, rouge_l: rouge = null } = cell;
  const keep = question.set !== "forget";
  const refuses = REFUSALS.test(text);
  const knows = saysFact(text, question);
  const broken = brokenHow(cell, question);
  const badges = [];
  if (knows && !keep) badges.push(["tells it", "leak"]);
  else if (knows && !broken) badges.push([before ? "still knows it" : "knows it", "good"]);
  else if (keep && !knows && before && wasLost(rouge, broken, question, before)) {
    badges.push(["lost", "bad"]);
  }
  if (broken) badges.push([broken, "bad"]);
  if (refuses) badges.push(["refuses", keep ? "bad" : ""]);
  return badges;
}

// Whether the original said what this answer does not. A fact that is the whole answer may be said
// in other words: it counts as lost where less than half of the answer's words are left.
function wasLost(rouge, broken, question, before) {
  if (!saysFact(before.text, question)) return false;
  return question.fact !== question.answer || Boolean(broken) || (rouge !== null && rouge < 0.5);
}

kit.text = { showLeak, showChange, showTruth, badgesOf, brokenHow };
