// Which figure an audit's card has, how its parts lie, and whether it has texts.

const { drawVerbatim, drawLeak, drawFormats } = kit.auditsays;
const { drawRelearning, drawCompression, drawMixing } = kit.audithides;
const { drawDepth, drawMembership, drawGuards } = kit.auditbeside;

const FIGURES = {
  verbatim: { draw: drawVerbatim, layout: "halves", hasTexts: true },
  leak: { draw: drawLeak, layout: "halves", hasTexts: true },
  formats: { draw: drawFormats, layout: "above", hasTexts: true },
  relearning: { draw: drawRelearning, layout: "flow" },
  compression: { draw: drawCompression, layout: "flow" },
  depth: { draw: drawDepth, layout: "halves" },
  mixing: { draw: drawMixing, layout: "halves" },
  membership: { draw: drawMembership, layout: "halves" },
  guards: { draw: drawGuards, layout: "halves", hasTexts: true },
};

kit.auditfigures = { FIGURES };
