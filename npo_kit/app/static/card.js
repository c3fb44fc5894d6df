// The card that floats beside a point or a word.

const { $ } = kit.dom;

// Shows `children` in the card, below `anchor` or, where there is no room, above it.
function showCard(anchor, ...children) {
  const card = $("card");
  card.replaceChildren(...children);
  card.hidden = false;
  const at = anchor.getBoundingClientRect();
  const below = at.bottom + 10 + card.offsetHeight <= window.innerHeight;
  const top = below ? at.bottom + 10 : Math.max(0, at.top - 10 - card.offsetHeight);
  const middle = (at.left + at.right - card.offsetWidth) / 2;
  const left = Math.max(8, Math.min(window.innerWidth - card.offsetWidth - 8, middle));
  Object.assign(card.style, { top: `${top}px`, left: `${left}px` });
}

function hideCard() {
  $("card").hidden = true;
}

window.addEventListener("scroll", hideCard, { passive: true });

kit.card = { showCard, hideCard };
