// What is told and given away: sentences, numbers, files, the clipboard.

const { $, node } = kit.dom;

function say(text) {
  $("say").textContent = text;
}

function complain(sentence) {
  Object.assign($("problem"), { textContent: sentence, hidden: !sentence });
}

// What the server answers, or null after its problem was shown.
async function asked(answer) {
  const found = await answer;
  if (found && !found.problem) return found;
  complain(found ? found.problem : "The server does not answer: is it still running?");
  return null;
}

const known = (value) => value !== null && value !== undefined;

// A number in words of a few letters; "–" where there is none.
function shown(value, digits = 2, small = 1) {
  if (!known(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 10 ** -digits || Math.abs(value) >= 1e4)) {
    return value.toExponential(small).replace("e-", "e−").replace("e+", "e").replace("-", "−");
  }
  return value.toFixed(digits).replace("-", "−");
}

const percent = (share) => `${(100 * share).toFixed(0)}\u00a0%`;

function save(name, content, type) {
  const href = URL.createObjectURL(new Blob([content], { type }));
  node("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

async function copy(text, pressed) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    complain(`Copy this: ${text}`);
    return;
  }
  const before = pressed.textContent;
  pressed.textContent = "Copied";
  setTimeout(() => {
    pressed.textContent = before;
  }, 1500);
  say("Copied");
}

kit.words = { say, complain, asked, known, shown, percent, save, copy };
