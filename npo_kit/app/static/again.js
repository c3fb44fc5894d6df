// The relearning attacks of the live lab: on a visitor's secrets, and on the pair.

const { $ } = kit.dom;
const { index } = kit.state;
const { live } = kit.live;
const { secret } = kit.secret;
const { nameOf } = kit.secretchart;
const { NEVER, makeAgain, drawAgain } = kit.againview;

function makeAgains() {
  makeAgain("secret", secret);
  makeAgain("pair", live);
}

function drawAgains() {
  drawSecretAgain();
  drawPairAgain();
}

// The relearning attack on the pair, once it has finished.
function drawPairAgain() {
  const { jobs, attack } = live;
  const finished = jobs.length > 0 && !live.going;
  $('again="pair"').hidden = !attack && !(finished && live.there && index.live.pocket);
  const attacked = jobs.filter(({ id, over }) => !over || attack?.models[id]);
  const models = attacked.map(({ id, look }) => ({
    key: id,
    name: look.short ?? look.label,
    look,
  }));
  models.push({ key: "control", name: "never saw it", look: NEVER });
  const control = jobs.some((job) => job.control);
  const lead = control
    ? "Copies of both models, and of one that never saw the forgotten authors, learn half of these "
      + "authors again. Then all are asked about the other half."
    : "For this, forget 10 %: a model that never saw the authors is there for no other share.";
  const ready = finished && live.there && control;
  drawAgain("pair", live, { models, before: "original", lead, ready });
}

// The relearning attack on both models that unlearned.
function drawSecretAgain() {
  const { phase, rows, attack } = secret;
  $('again="secret"').hidden = phase !== "finished" && !attack;
  const unlearned = ["ga", "npo_rt"].map((name) => ({
    key: name,
    name: nameOf(name),
    look: index.styles[name],
  }));
  const models = [...unlearned, { key: "untouched", name: "untouched", look: NEVER }];
  const lead =
    rows.length > 1
      ? "Copies of both models, and of the untouched one, learn half of your secrets again. Then "
        + "all are asked the other half."
      : "To try to bring secrets back, start over with two or more: half of them are taught again, "
        + "and the rest are asked.";
  const ready = phase === "finished" && rows.length > 1;
  drawAgain("secret", secret, { models, before: "taught", lead, ready });
}

kit.again = { makeAgains, drawAgains };
