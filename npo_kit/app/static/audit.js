// The view of the audits: its head, the grid, and the card that is open.

const { $, keepFocus, node } = kit.dom;
const { state } = kit.state;
const { draw } = kit.address;
const { fetchAudits, auditsThere, methodsOf, openedIn } = kit.audits;
const { gridOf } = kit.auditgrid;
const { fetchParts, openedRow } = kit.auditcard;

const WORDS = {
  // of one method, and of several
  remembers: ["still tells it in some way of asking", "still tell it in some way of asking"],
  suppressed: ["no longer says it, but holds it", "no longer say it, but hold it"],
  "retained-like": ["looks like a model that never saw it", "look like models that never saw it"],
  "over-forgotten": [
    "says less than a model that never saw it",
    "say less than models that never saw it",
  ],
  destroyed: [
    "broke and keeps less than half of the rest",
    "broke and keep less than half of the rest",
  ],
  "no verdict": ["has no verdict", "have no verdict"],
};

function drawAudit() {
  const audits = auditsThere();
  $("audit").hidden = !audits?.cards;
  $("audit-none").hidden = Boolean(audits?.cards);
  $("audit-none").textContent = "Loading …";
  if (!audits) {
    fetchAudits().then((there) => {
      if (state.view !== "audit") return;
      if (there) keepFocus(draw);
      else $("audit-none").textContent = "The audits could not be read.";
    });
    return;
  }
  if (!audits.cards) return;
  $("checkpoint").value = state.checkpoint;
  const opened = openedIn(audits);
  $("audit").classList.toggle("opened", Boolean(opened));
  $("audit-failed").hidden = !audits.failed.length;
  $("audit-failed").replaceChildren(
    node("b", { textContent: "A control of this audit failed. " }),
    `${audits.failed.join(" ")} Read the verdicts below with care.`,
  );
  $("audit-lead").replaceChildren(...leadWords(audits));
  $("audit-caption").textContent = captionWords(audits);
  drawGrid(audits, opened);
}

function drawGrid(audits, opened) {
  const row = opened && openedRow(audits, opened);
  $("audit-grid").replaceChildren(gridOf(audits, row));
  if (!row) return;
  row.draw();
  if (row.parts) return;
  fetchParts(audits, opened).then((there) => {
    if (there && state.view === "audit") keepFocus(draw);
  });
}

// What became of each method, in a sentence for each verdict.
function leadWords(audits) {
  const by = new Map();
  for (const { look, first } of methodsOf(audits)) {
    const { state: word } = first.verdict;
    by.set(word, [...(by.get(word) ?? []), look.label]);
  }
  const order = Object.keys(WORDS).filter((word) => by.has(word));
  const sentences = order.map((word) => {
    const names = by.get(word);
    const all =
      names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
    return `${all} ${WORDS[word][Math.min(names.length, 2) - 1]}.`;
  });
  const where =
    state.checkpoint === "best"
      ? "At the rule’s checkpoint, seed 0."
      : "At the last checkpoint, seed 0.";
  return [`${sentences.join(" ")} `, node("span", { className: "small", textContent: where })];
}

function captionWords(audits) {
  const { models } = audits.alarms;
  const rows = audits.rows;
  return (
    `Recorded, pocket models, ${rows} questions of each set. Grey band: 90 % of ${models} `
    + `models that `
    + "never saw the authors; grey line: the original; dot with line: the model, first seed, and "
    + "its "
    + "95 % interval over authors; hollow: other seeds; arrow: beyond the scale. In every column, "
    + "right "
    + "is more of the facts (of those to keep in the last; UDS, which falls, is turned round). "
    + "Verdicts: cards of “says” and “hides”, corrected for their number "
    + "(Holm); the others decide nothing, but a model that keeps less than half counts as "
    + "destroyed."
  );
}

kit.audit = { drawAudit };
