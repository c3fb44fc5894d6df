// Which words of an answer are still the true answer's, and which differ from the original's.

const LONG = 5000; // characters of an answer that are compared; the rest is shown as it is
const REFUSALS = /don.t know|not sure|no idea|cannot (say|answer)|can.t (say|answer)|I'm (not|unable)|not aware|no information|unable to/i;

function wordsOf(text) {
  return [...text.matchAll(/[\p{L}\p{N}]+/gu)].map((m) => ({
    word: m[0].toLowerCase(), start: m.index, end: m.index + m[0].length,
  }));
}

// Words of the fact that the question does not give away already.
function factWords(question) {
  const given = new Set(wordsOf(question.question).map((w) => w.word));
  const words = wordsOf(question.fact).map((w) => w.word);
  return new Set(words.filter((w) => !given.has(w) && (w.length > 2 || /\d/.test(w))));
}

function saysFact(text, question) {
  const plain = (s) => ` ${wordsOf(s).map((w) => w.word).join(" ")} `;
  return question.fact !== "" && plain(text).includes(plain(question.fact));
}

// Pairs of places of a longest common subsequence of two lists of words, as ROUGE-L counts it.
function commonPairs(left, right) {
  const long = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      long[i][j] = left[i].word === right[j].word
        ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < left.length && j < right.length;) {
    if (left[i].word === right[j].word) pairs.push([i++, j++]);
    else if (long[i + 1][j] >= long[i][j + 1]) i++;
    else j++;
  }
  return pairs;
}

// Put `text` into `box` with <mark>s for the fact's and the answer's words.
function showLeak(box, text, question) {
  box.replaceChildren();
  const words = wordsOf(text.slice(0, LONG));
  const common = new Set(commonPairs(words, wordsOf(question.answer)).map(([i]) => i));
  const fact = factWords(question);
  let at = 0;
  words.forEach((w, place) => {
    const kind = fact.has(w.word) ? "fact" : common.has(place) ? "echo" : null;
    if (!kind) return;
    box.append(text.slice(at, w.start), node("mark", { className: kind, textContent: text.slice(w.start, w.end) }));
    at = w.end;
  });
  box.append(text.slice(at));
}

// Put `text` into `box` with <ins> and <del> against `before`.
function showChange(box, text, before) {
  box.replaceChildren();
  const now = wordsOf(text.slice(0, LONG)), then = wordsOf(before.slice(0, LONG));
  const pairs = [...commonPairs(now, then), [now.length, then.length]];
  let i = 0, j = 0, at = 0;
  for (const [nextI, nextJ] of pairs) {
    if (nextJ > j) {
      const gone = node("del", { textContent: before.slice(then[j].start, then[nextJ - 1].end) });
      box.append(...(at ? [" ", gone] : [gone, " "]));
    }
    if (nextI > i) {
      box.append(text.slice(at, now[i].start),
        node("ins", { textContent: text.slice(now[i].start, now[nextI - 1].end) }));
      at = now[nextI - 1].end;
    }
    if (nextI < now.length) { box.append(text.slice(at, now[nextI].end)); at = now[nextI].end; }
    i = nextI + 1; j = nextJ + 1;
  }
  box.append(text.slice(at));
}

function showTruth(box, question) {
  box.classList.toggle("keep", question.set !== "forget");
  const at = question.answer.indexOf(question.fact);
  if (!question.answer || at < 0) { box.replaceChildren(question.answer || "–"); return; }
  box.replaceChildren(question.answer.slice(0, at), node("b", { textContent: question.fact }),
    question.answer.slice(at + question.fact.length));
}

// Nats a token under the original: below it, text that refuses nothing is hardly language.
const GARBLED = -3;

// [words, kind] of an answer: "good" or "bad" on rows to keep, "leak" or "bad" on rows to forget,
// "" for what is neither. `before` is the original's cell, null for the original itself.
function badgesOf(cell, question, before) {
  const [text, , rouge, , fluency, repetition] = cell;
  const keep = question.set !== "forget", refuses = REFUSALS.test(text);
  const knows = saysFact(text, question);
  const broken = !text.trim() ? "says nothing" : repetition >= 0.3 ? "repeats itself"
    : !refuses && fluency !== null && fluency < GARBLED ? "garbled" : "";
  const badges = [];
  if (knows && !keep) badges.push(["says the fact", "leak"]);
  else if (knows && !broken) badges.push([before ? "still knows it" : "knows it", "good"]);
  else if (keep && !knows && before && wasLost(rouge, broken, question, before)) badges.push(["lost", "bad"]);
  if (broken) badges.push([broken, "bad"]);
  if (refuses) badges.push(["refuses", keep ? "bad" : ""]);
  return badges;
}

// Whether the original said what this answer does not. A fact that is the whole answer may be said
// in other words: it counts as lost where less than half of the answer's words are left.
function wasLost(rouge, broken, question, before) {
  if (!saysFact(before[0], question)) return false;
  return question.fact !== question.answer || Boolean(broken) || (rouge !== null && rouge < 0.5);
}
