"""Greedy or sampled continuations of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from npo_kit.data.prompts import Encoded
from npo_kit.errors import KitError
from npo_kit.losses.answers import full_precision
from npo_kit.models.batching import in_halves, length_sorted, pad
from npo_kit.models.forward import mean_logps, read_answers
from npo_kit.models.layouts import agrees, is_recurrent
from npo_kit.models.loading import context_length

TRIED = 8  # tokens by which to test whether prompts can be continued together
HALF_TOLERANCE = 0.1  # nats per token in half precision: a wrong layout is further off

Lines = Sequence[Sequence[int]]  # token ids of several prompts
Told = Callable[[list[int]], None] | None  # is called with the ids so far after each token


class _Streamer(BaseStreamer):
    """Reports each token of one generation; transformers' first call holds the prompt."""

    def __init__(self, told: Callable[[list[int]], None], end_id: int):
        self.told, self.end_id = told, end_id
        self.ids: list[int] | None = None

    def put(self, value: Tensor) -> None:
        if self.ids is None:
            self.ids = []
        elif (token := int(value.flatten()[0])) != self.end_id:
            self.ids.append(token)
            self.told(list(self.ids))

    def end(self) -> None:
        """Nothing is held back."""


@dataclass(frozen=True)
class _Way:
    """A way to continue texts: greedily or drawn from all tokens, by transformers or plainly."""

    end_id: int
    max_new_tokens: int
    drawn: bool = False
    plainly: bool = False

    def settings(self, logits: bool = False) -> GenerationConfig:
        """Return the settings for transformers, independent of a checkpoint's own."""
        return GenerationConfig(
            do_sample=self.drawn,
            top_k=0 if self.drawn else None,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=logits,
        )


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Lines,
    end_id: int,
    max_new_tokens: int = 200,
    batch_size: int = 32,
    done: Callable[[int], None] = lambda _: None,
    token: Told = None,
    sample_seed: int | None = None,
) -> list[list[int]]:
    """Continue each prompt greedily: token ids without the end token, in the given order.

    A text ends where the model's context does; a longer prompt raises KitError. With `sample_seed`
    tokens are drawn from the model's unchanged probabilities instead. After each batch `done` gets
    the number of its prompts; for a single prompt, `token` gets the ids so far after each token.

    Prompts share a batch, padded on the left, where a test shows that the model continues them
    together as it does alone. The model's own generation settings (sampling, penalties) do not
    apply, and torch's random state is left as it was.
    """
    module = getattr(model, "module", model)
    way = _Way(end_id, max_new_tokens, drawn=sample_seed is not None)
    result: list[list[int]] = [[] for _ in prompts]
    with torch.random.fork_rng(enabled=way.drawn):
        if sample_seed is not None:
            torch.manual_seed(sample_seed)
        for numbers, chosen in _batches(module, prompts, way, batch_size):
            texts = in_halves(
                partial(_continued, module, way=chosen, token=token),
                [prompts[number] for number in numbers],
            )
            for number, text in zip(numbers, texts, strict=True):
                result[number] = text
            done(len(numbers))
    return result


def _continued(
    model: PreTrainedModel, lines: Lines, way: _Way, token: Told = None
) -> list[list[int]]:
    """Return the texts of a batch, cut before the end token."""
    if way.plainly or not way.max_new_tokens:
        return [_continued_plainly(model, line, way, token) for line in lines]
    texts = _write(model, lines, way, _Streamer(token, way.end_id) if token else None)
    return [text[: text.index(way.end_id)] if way.end_id in text else text for text in texts]


def _continued_plainly(
    model: PreTrainedModel, line: Sequence[int], way: _Way, token: Told
) -> list[int]:
    """Write a text with a plain forward for each token: slow, but correct wherever scores are."""
    text: list[int] = []
    while len(text) < way.max_new_tokens:
        ids = torch.tensor([[*line, *text]], device=model.device)
        logits = full_precision(model(input_ids=ids, use_cache=False).logits[0, -1])
        said = int(logits.softmax(-1).multinomial(1) if way.drawn else logits.argmax())
        if said == way.end_id:
            break
        text.append(said)
        if token:
            token(list(text))
    return text


def _write(
    model: Any,  # one that transformers can generate with
    lines: Lines,
    way: _Way,
    streamer: BaseStreamer | None = None,
    logits: list[Tensor] | None = None,
) -> list[list[int]]:
    """Return the new tokens of a batch; `logits` gets those of each step, (B, V)."""
    ids = pad(lines, way.end_id, left=True).to(model.device)
    attention = pad([[1] * len(line) for line in lines], 0, left=True).to(model.device)
    settings = way.settings(logits is not None)
    kept, model.generation_config = model.generation_config, settings
    try:
        output = model.generate(
            input_ids=ids, attention_mask=attention, generation_config=settings, streamer=streamer
        )
    finally:
        model.generation_config = kept
    if logits is not None:
        logits += output.logits
    return output.sequences[:, ids.shape[1] :].tolist()


# --- which prompts together ---------------------------------------------------------------------


def _batches(
    model: PreTrainedModel, prompts: Lines, way: _Way, batch_size: int
) -> Iterator[tuple[list[int], _Way]]:
    """Yield the numbers of prompts to continue together, with equal room for text, and the way."""
    room = _room(model, prompts, way.max_new_tokens)
    for tokens in sorted(set(room), reverse=True):
        numbers = [number for number, own in enumerate(room) if own == tokens]
        chosen, batches = replace(way, max_new_tokens=tokens), [list(range(len(numbers)))]
        if tokens:
            lines = [prompts[number] for number in numbers]
            batches, chosen = _together(model, lines, chosen, batch_size)
        for batch in batches:
            yield [numbers[place] for place in batch], chosen


def _room(model: PreTrainedModel, prompts: Lines, most: int) -> list[int]:
    """Return the tokens that each text may have: `most`, or what the model's context leaves."""
    context = context_length(model)
    if context is None:
        return [most] * len(prompts)
    longest = max(map(len, prompts), default=0)
    if longest > context:
        raise KitError(
            f"a prompt has {longest} tokens, the model's context holds {context}: shorten it"
        )
    return [min(most, context - len(prompt)) for prompt in prompts]


def _together(
    model: PreTrainedModel, prompts: Lines, way: _Way, batch_size: int
) -> tuple[list[list[int]], _Way]:
    """Choose the largest batches in which a model continues a prompt as it does alone.

    A recurrent model reads the padding, so its batches hold prompts of one length. The last resort
    is a plain forward for each token, because transformers keeps a wrong cache for some models, or
    numbers positions differently than in a forward.
    """
    lengths = [len(prompt) for prompt in prompts]
    batches = length_sorted(lengths, batch_size)
    alone = [[number] for batch in batches for number in batch]
    alike = [
        list(part) for batch in batches for _, part in groupby(batch, key=lambda i: lengths[i])
    ]
    for tried in (alike, alone) if is_recurrent(model) else (batches, alike, alone):
        hardest = max(
            tried, key=lambda b: (lengths[b[0]] > lengths[b[-1]], len(b) > 1, lengths[b[0]])
        )
        pair = [prompts[number] for number in dict.fromkeys((hardest[0], hardest[-1]))]
        if _agree(model, pair, way):
            return tried, way
    return alone, replace(way, plainly=True)


def _agree(model: PreTrainedModel, lines: Lines, way: _Way) -> bool:
    """Test whether the first tokens generated have the log-probs that plain forwards give them."""
    way = replace(way, max_new_tokens=min(TRIED, way.max_new_tokens), drawn=False)
    said: list[Encoded] = []

    def together() -> Tensor:
        logits: list[Tensor] = []
        means = []
        for row, text in enumerate(_write(model, lines, way, logits=logits)):
            text = text[: text.index(way.end_id) + 1] if way.end_id in text else text
            said.append(Encoded((*lines[row], *text), len(lines[row])))
            spoken = torch.stack([step[row] for step in logits[: len(text)]])
            logps = full_precision(spoken).log_softmax(-1)
            means.append(logps.gather(-1, torch.tensor(text, device=logps.device)[:, None]).mean())
        return torch.stack(means)

    def alone() -> Tensor:
        return torch.cat([mean_logps(read_answers(model, [encoded])) for encoded in said])

    kind = "alone" if len(lines) == 1 else "padded" if len(lines[0]) > len(lines[-1]) else "alike"
    return agrees(model, f"texts {kind}", len(lines[0]), together, alone, HALF_TOLERANCE)
