// In a file of its own: the answers that a server would give, from the data in the file.

const NOT_HERE = "This file has the recorded study only: for this, start the kit with npo-kit app.";
const OLD = "This browser is too old to unpack the file: open it with one from 2023 or later.";

async function unpacked() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (letter) =>
    letter.charCodeAt(0),
  );
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// A run's cell at a step and a question, as the server has it; null where there is none.
function cellAt({ text, ...scores }, step, question) {
  if (text[step][question] === null) return null;
  const names = Object.entries(scores).map(([name, by]) => [name, by[step][question]]);
  return { text: text[step][question], ...Object.fromEntries(names) };
}

// Every run's answers to a question.
function textsOf({ cells, strings }, question) {
  const stepsOf = (run) => run.text.map((_, step) => cellAt(run, step, question));
  const runs = Object.entries(cells).map(([id, run]) => [id, stepsOf(run)]);
  return { question, strings, cells: Object.fromEntries(runs) };
}

function serverOf(data) {
  const answers = {
    index: ({ study }) =>
      study === 0 ? data.index : { problem: "This file has one study: choose no other." },
    texts: ({ question }) => textsOf(data, question),
    scores: ({ run }) => data.cells[run],
    about: ({ run }) => data.about[run],
    splits: () => data.splits,
    theorem: () => data.theorem,
    audits: () => data.audits,
    audit: ({ run, at, card }) => data.audit[`${run} ${at} ${card}`],
  };
  const missing = () => ({ problem: NOT_HERE });
  const answer = (name) => (asked) => Promise.resolve((answers[name] ?? missing)(asked));
  return new Proxy({}, { get: (_, name) => answer(name) });
}

// Light or dark as the system is, unless the address says which.
function followSystem() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    if (new URLSearchParams(location.hash.slice(1)).has("theme")) return;
    document.body.classList.toggle("dark", dark.matches);
  };
  dark.addEventListener("change", follow);
  follow();
}

// Calls `start(element, server)` once the data is unpacked.
async function opened(start) {
  followSystem();
  const element = document.querySelector("main");
  if (!globalThis.DecompressionStream) {
    element.textContent = OLD;
    return;
  }
  start(element, serverOf(await unpacked()));
}

kit.onefile = { opened };
