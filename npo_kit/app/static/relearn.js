// A relearning attack: copies of models that have unlearned are taught half of it again, and asked
// the other half.

const { server } = kit.gradio;
const { asked, complain } = kit.words;
const { draw } = kit.address;

// What an attack has told so far; `going` are the processes that still teach.
class Attack {
  constructor() {
    Object.assign(this, { ordered: true, going: new Set(), whole: true, problem: "" });
    this.about = null; // the lesson: what is taught and asked, and what levels are compared with
    this.models = {}; // name -> {step, levels: [step, nats] each, texts: before, after}
    this.watched = 0; // the number of the question whose answers are shown
  }

  get busy() {
    return this.ordered || this.going.size > 0;
  }

  // Whether it came to its end.
  get done() {
    return !this.busy && this.whole && this.about !== null;
  }

  // Takes an event of a process, whose own model is called `own` here.
  hear(event, own) {
    HEARS[event.event](this, event, own);
  }

  // The processes are gone.
  end() {
    if (this.busy) this.whole = false;
    this.ordered = false;
    this.going.clear();
  }
}

// Event -> what it does to an attack.
const HEARS = {
  relearning(attack, _, own) {
    attack.ordered = false;
    attack.going.add(own);
  },
  lesson(attack, { event, ...about }) {
    attack.about = about;
  },
  relearn({ models }, { model, step, level, texts }, own) {
    const name = model === "own" ? own : model;
    models[name] ??= { step: 0, levels: [], texts: [] };
    models[name].step = step;
    if (level !== undefined) models[name].levels.push([step, level]);
    if (texts) models[name].texts.push(texts);
  },
  relearned(attack, { whole, problem }, own) {
    attack.going.delete(own);
    attack.whole &&= whole;
    if (problem) attack.problem = problem;
  },
};
const TOLD = Object.keys(HEARS);

// Attacks the models of a visitor: `owner` has the visit, and keeps the attack.
async function relearn(owner) {
  const before = owner.attack;
  owner.attack = new Attack();
  draw();
  if (await asked(server.relearn({ visitor: owner.visit.name }))) {
    complain("");
    owner.visit.keepPolling();
  } else {
    owner.attack = before;
    draw();
  }
}

const halt = (owner) => asked(server.halt({ visitor: owner.visit.name }));

kit.relearn = { TOLD, relearn, halt };
