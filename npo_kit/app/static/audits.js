// The recorded audits: fetched once, and what the grid and the cards show of them.

const { server } = kit.gradio;
const { known } = kit.words;
const { index, state } = kit.state;
const { fetchOnce } = kit.answers;

const KEY = "audits";
const CONTROLS = { original: "original", retained: "retained" }; // runs that are no method's
const ROOM = { before: 0.3, after: 0.12, edge: 6 }; // of a scale: shares of its span, percent
const fetched = new Map();

const fetchAudits = () => fetchOnce(fetched, KEY, () => server.audits({}));

// What the server said, {} where there are none; null while it is not there.
const auditsThere = () => fetched.get(KEY)?.ready ?? null;

// What a card's figure shows of a run; null while it is not there.
const nameOf = ({ run, at }, card) => `${run} ${at} ${card}`;
const fetchDetail = ({ run, at }, card) =>
  fetchOnce(fetched, nameOf({ run, at }, card), () => server.audit({ run, at, card }));
const detailThere = (audit, card) => fetched.get(nameOf(audit, card))?.ready ?? null;

const originalOf = ({ audits }) => audits.find(({ run }) => run === CONTROLS.original);

// The methods of the grid: {method, look, first, others}, the seeds' audits at the checkpoint that
// is chosen. A run whose best checkpoint is its last has one audit.
function methodsOf({ audits }) {
  const hasBest = new Set(audits.filter(({ at }) => at === "best").map(({ run }) => run));
  const there = audits.filter(
    ({ run, at }) =>
      run !== CONTROLS.original
      && at === (state.checkpoint === "best" && hasBest.has(run) ? "best" : "last"),
  );
  return [...new Set(there.map(({ method }) => method))].map((method) => {
    const [first, ...others] = there.filter((audit) => audit.method === method);
    return { method, look: index.styles[method], first, others };
  });
}

// The audit whose card is open, and that card; null where none is.
function openedIn(audits) {
  const card = audits.cards.find(({ name }) => name === state.card);
  const all = [originalOf(audits), ...methodsOf(audits).map(({ first }) => first)];
  const audit = all.find(({ run, detailed }) => run === state.run && detailed);
  return card && audit ? { card, audit } : null;
}

// Where a value of a card lies in its column, in percent from the left, and whether it is beyond
// its ends. Right is more of the facts: from the models that never saw them to the original.
function scaleIn(audits, card) {
  const ends = [originalOf(audits), ...audits.audits].flatMap(({ run, cards }) => {
    const { value, band } = cards[card.name];
    return [...(band ?? []), ...(run === CONTROLS.original ? [value] : [])];
  });
  const all = [...ends, ...audits.points[card.name]].filter(known);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const span = most - least || 1;
  const room = card.more ? [ROOM.before, ROOM.after] : [ROOM.after, ROOM.before];
  const within = least >= 0 && most <= 1 && (card.bounded || !card.more);
  const floor = card.side === "guards" ? 0 : least - room[0] * span; // how little, too, is seen
  const low = within ? Math.max(0, floor) : floor;
  const high = within ? Math.min(1, most + room[1] * span) : most + room[1] * span;
  return (value) => {
    const share = (Math.min(Math.max(value, low), high) - low) / (high - low);
    const at = ROOM.edge + (100 - 2 * ROOM.edge) * (card.more ? share : 1 - share);
    const beyond = value < low ? -1 : value > high ? 1 : 0;
    return { at, beyond: card.more ? beyond : -beyond };
  };
}

// A card's value in words.
function written(value, { bounded, more }) {
  if (!known(value)) return "–";
  const text = value.toFixed(bounded || !more ? 3 : 2);
  return (Number(text) ? text : text.replace("-", "")).replace("-", "−");
}
const rangeOf = ([low, high], card) => `${written(low, card)} to ${written(high, card)}`;

// A checkpoint in words.
const stepWords = ({ run, step }) =>
  run === CONTROLS.original ? "before unlearning" : `step ${step}`;

kit.audits = {
  CONTROLS,
  fetchAudits,
  auditsThere,
  fetchDetail,
  detailThere,
  originalOf,
  methodsOf,
  openedIn,
  scaleIn,
  written,
  rangeOf,
  stepWords,
};
