// Names and levels that several files know.

const VIEWS = {
  compare: "Compare",
  tradeoff: "Trade-off",
  much: "How much",
  audit: "Audit",
  live: "Live lab",
  theory: "Theory",
  about: "About this run",
};
const KEPT = { retain: "retain", real_authors: "real authors", world_facts: "world facts" };
const SETS = { forget: "forget", ...KEPT };
const SIDES = ["a", "b"]; // of a pair: of the trade-off, of a live run
const COLUMNS = [...SIDES, "c"]; // that Compare may have besides the original and the retrained one
const ROWS = { forget: "q", keep: "k" }; // rows of Compare -> the state that names their question
const RETRAINED = "Retrained without the forget rows";
const NULL_NAME = "models that never saw it"; // the forget rows
const LEVELS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01];

// The names in a list of the address.
const listed = (text) => text.split(",").filter(Boolean);

// The row of Compare that a question of a set belongs to.
const rowOf = (set) => (set === "forget" ? "forget" : "keep");

kit.names = {
  VIEWS,
  KEPT,
  SETS,
  SIDES,
  COLUMNS,
  ROWS,
  RETRAINED,
  NULL_NAME,
  LEVELS,
  listed,
  rowOf,
};
