// The four models of a visitor's secrets: what each says, and how likely the true answers are.

const { $, action, node, button, hued, marked } = kit.dom;
const { SECRET, index, state } = kit.state;
const { sliders } = kit.knobs;
const { badgesOf } = kit.text;
const { explained } = kit.glossary;
const { MODELS, secret, known, placeOf, watch } = kit.secret;
const { lookOf, nameOf, mean, drawSecretChart } = kit.secretchart;

const HEADS = { untouched: "Untouched", taught: "Taught" };
const headOf = (name) => HEADS[name] ?? index.styles[name].head;
// A probability in three characters.
const short = (p) => (p >= 0.995 ? "1.0" : p.toFixed(2).slice(1));
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const plain = (text) => text.normalize("NFKC").toLowerCase().split(/\s+/u).join(" ").trim();

function drawSecret() {
  const { phase } = secret;
  $("secret").dataset.phase = phase;
  $("secret-form").hidden = secret.begun;
  $("secret-stage").hidden = !secret.begun;
  action("unlearn").hidden = !["taught", "unlearning", "finished"].includes(phase);
  action("unlearn").disabled = secret.busy || Boolean(secret.attack?.busy);
  action("halt").hidden = !secret.busy;
  action("halt").disabled = secret.stopping;
  action("over").hidden = secret.busy;
  action("ask-all").disabled = !secret.there || !secret.models.untouched;
  $("secret-ask").hidden = !known().length;
  for (const place of Object.values(SECRET)) sliders[place].set(state[place]);
  $("secret-status").textContent = statusWords();
  $("secret-outcome").replaceChildren(
    ...outcome().map((words) => node("p", { textContent: words })),
  );
  drawGrid();
  drawSecretChart();
}

// --- in words ---

function statusWords() {
  const { phase, models, most, total, ended } = secret;
  if (placeOf()) return `Waiting for a place: number ${placeOf()} in the queue.`;
  const now = Math.max(...["ga", "npo_rt"].map((name) => models[name]?.step ?? 0));
  return {
    typing: "",
    waiting: "A process is starting …",
    teaching: `Learning: step ${models.taught?.step ?? 0}, ${most} at most`,
    taught: "Taught. Now make it forget.",
    unlearning: `Unlearning: step ${now} of ${total || "…"}`,
    finished: "Both have unlearned. Ask them:",
    ended,
  }[phase];
}

// What has happened, in numbers.
function outcome() {
  const { notes, phase, models, taught, rows, kept } = secret;
  const [first, last] = [models.untouched?.history[0], models.taught?.history.at(-1)];
  const said = [...notes];
  if (first) said.push(...first.secrets.flatMap((p, i) => (p >= 0.5 ? [knownAlready(p, i)] : [])));
  if (["taught", "unlearning", "finished"].includes(phase)) {
    const likely = last.secrets.filter((p) => p >= 0.5).length;
    const learnt = likely === rows.length ? "" : ` Only ${likely} of ${rows.length} reached .50.`;
    said.push(
      `Taught in ${plural(taught, "step")}: probability of the secrets ${fromTo(first, last)}, of `
        + `${kept.length} other questions ${short(first.kept)} → ${short(last.kept)}.${learnt}`,
    );
    if (!secret.keeps) {
      said.push("The taught model says none of the other answers word for word any more.");
    }
    said.push("NPO+RT rehearses other questions while it forgets; GA does not.");
  }
  if (phase === "finished") said.push(...["ga", "npo_rt"].map((name) => forgotten(name, last)));
  return said;
}

const fromTo = (from, to) => `${short(mean(from.secrets))} → ${short(mean(to.secrets))}`;

const knownAlready = (p, i) =>
  `The untouched model gives secret ${i + 1} a probability of ${short(p)} already: it is no secret `
  + "to it.";

function forgotten(name, before) {
  const { history, broken } = secret.models[name];
  const after = history.at(-1);
  const how = broken ? `, broken at step ${broken}` : "";
  return (
    `${nameOf(name)}${how}: probability of the secrets ${fromTo(before, after)}, of other `
    + `questions ${short(before.kept)} → ${short(after.kept)}.`
  );
}

// --- the grid ---

function drawGrid() {
  const key = JSON.stringify([secret.rows, secret.kept.length]);
  const grid = $("quartet");
  grid.hidden = !known().length;
  if (grid.hidden) return;
  if (grid.dataset.of !== key) {
    grid.dataset.of = key;
    grid.replaceChildren(labels(), ...MODELS.map(columnOf));
  }
  fillLabels(grid.firstChild);
  for (const name of MODELS) fillModel(name);
}

const part = (className, properties) => node("p", { className, ...properties });

function labels() {
  const { rows } = secret;
  const choose = (row, i) => {
    const words = [node("b", { textContent: i + 1 }), ` ${row.question}`];
    const made = button({ className: "quiet", dir: "auto" }, () => watch("forget", i), ...words);
    return marked(made, "secretRow", i);
  };
  const next = () => watch("retain", (secret.watched.retain + 1) % secret.kept.length);
  const other = marked(button({ className: "quiet", textContent: "another" }, next), "another", "");
  const question = (which, kind, ...more) =>
    node(
      "div",
      { className: which },
      part("kind", { textContent: kind }),
      part("asks", { dir: "auto" }),
      part("true", { dir: "auto" }),
      ...more,
    );
  return node(
    "article",
    { className: "labels" },
    node("div"),
    question("forget", "A question to forget"),
    question("keep", "A question to keep", other),
    node("div", { className: "choose" }, ...(rows.length > 1 ? rows.map(choose) : [])),
    node("div", { className: "yours" }, part("kind", { textContent: "You ask" }), part("asks")),
  );
}

function fillLabels(box) {
  const { watched, rows, kept, prompt } = secret;
  const shown = { forget: rows[watched.forget], keep: kept[watched.retain] };
  for (const [which, { question, answer }] of Object.entries(shown)) {
    box.querySelector(`.${which} .asks`).textContent = question;
    box.querySelector(`.${which} .true`).textContent = `True answer: ${answer}`;
  }
  [...box.querySelectorAll(".choose button")].forEach((each, i) => {
    each.setAttribute("aria-current", String(i === watched.forget));
  });
  box.querySelector(".yours").hidden = !secret.asked;
  box.querySelector(".yours .asks").textContent = prompt;
}

function columnOf(name) {
  const says = (which) =>
    node("div", { className: which }, part("says", { dir: "auto" }), part("verdict"));
  const head = node(
    "div",
    {},
    hued(node("h3", { textContent: headOf(name) }), lookOf(name).colour),
    part("small"),
  );
  const bars = node("div", { className: "gauges" }, ...secret.rows.map(gauge), gauge());
  const made = node(
    "article",
    { className: name === "untouched" ? "model dashed" : "model" },
    head,
    says("forget"),
    says("keep"),
    bars,
    node("div", { className: "yours" }, part("says", { dir: "auto" })),
  );
  const { colour } = lookOf(name);
  return hued(marked(made, "model", name), colour === "currentColor" ? "var(--ink)" : colour);
}

// The bar of a secret, or without one that of the other questions.
function gauge(row, i) {
  const own = secret.rows.length > 1 ? `secret ${i + 1}` : "the secret";
  const of = row ? own : `${secret.kept.length} other answers`;
  return node(
    "div",
    { className: row ? "gauge" : "gauge useful" },
    node("span", {}, explained("probability", "probability"), ` of ${of}`),
    node("i"),
    node("b"),
  );
}

function fillModel(name) {
  const box = $(`model="${name}"`);
  const model = secret.models[name];
  box.querySelector(".small").textContent = stepWords(name, model);
  fillText(box, "forget", model?.texts.forget, secret.rows[secret.watched.forget], name);
  fillText(box, "keep", model?.texts.retain, secret.kept[secret.watched.retain], name);
  const scores = model?.history.at(-1);
  const values = scores ? [...scores.secrets, scores.kept] : [];
  [...box.querySelectorAll(".gauge")].forEach((each, i) => {
    each.style.setProperty("--full", values[i] ?? 0);
    each.querySelector("b").textContent = values.length ? short(values[i]) : "–";
  });
  const reply = model?.replies[secret.asked];
  const asked = box.querySelector(".yours");
  asked.hidden = !secret.asked;
  const silent = reply?.whole ? "(says nothing)" : model ? "…" : "";
  asked.firstChild.textContent = reply?.problem || reply?.text || silent;
}

function stepWords(name, model) {
  const { phase, taught, total } = secret;
  if (name === "untouched") return "never saw it";
  if (!model) return "not yet";
  if (model.broken) return `broken at step ${model.broken}`;
  if (name !== "taught") return `step ${model.step} of ${total}`;
  return phase === "teaching" ? `learning, step ${model.step}` : plural(taught, "step");
}

// A text with the true answer marked where it is said, and what is to be said of it.
function fillText(box, which, said, { answer, question }, name) {
  const [text, verdict] = [".says", ".verdict"].map((each) =>
    box.querySelector(`.${which} ${each}`),
  );
  text.classList.toggle("none", !said?.text);
  if (!said?.text) {
    text.textContent = said ? "(says nothing)" : "";
    verdict.textContent = said ? (which === "forget" ? "does not tell it" : "does not say it") : "";
    verdict.className = "verdict";
    return;
  }
  const tells = plain(said.text).includes(plain(answer));
  const at = said.text.indexOf(answer);
  if (at < 0) text.textContent = said.text;
  else {
    const mark = node("mark", { className: "fact", textContent: answer });
    text.replaceChildren(said.text.slice(0, at), mark, said.text.slice(at + answer.length));
  }
  const about = { set: "retain", question, answer, fact: "" };
  const repeats = badgesOf({ text: said.text }, about, null).some(([w]) => w === "repeats itself");
  const words = { forget: ["tells it", "does not tell it"], keep: ["says it", "does not say it"] };
  const [yes, no] = words[which];
  verdict.textContent = [tells ? yes : no, ...(repeats ? ["repeats itself"] : [])].join(", ");
  const good = which === "keep" ? tells : !tells && name !== "taught";
  const bad = which === "keep" ? !tells : tells && name !== "taught";
  verdict.className = `verdict ${bad || repeats ? "bad" : good ? "good" : ""}`;
}

kit.secretview = { drawSecret };
