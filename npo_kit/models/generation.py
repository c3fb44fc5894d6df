"""What a model writes: greedy continuations of prompts, or drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from npo_kit.models.batching import in_halves, length_sorted, pad
from npo_kit.models.layouts import is_recurrent

TRIED = 8  # tokens by which it is tried whether a recurrent model can be batched


class _Streamer(BaseStreamer):
    """Tells of each token of one generation; the first call is the prompt's."""

    def __init__(self, told: Callable[[list[int]], None], end_id: int):
        self.told, self.end_id, self.ids = told, end_id, None

    def put(self, value: Tensor) -> None:
        if self.ids is None:
            self.ids = []
        elif (token := int(value.flatten()[0])) != self.end_id:
            self.ids.append(token)
            self.told(list(self.ids))

    def end(self) -> None:
        """Nothing is held back."""


def _settings(end_id: int, max_new_tokens: int, drawn: bool) -> GenerationConfig:
    """Greedy, or drawn from all tokens; whatever a checkpoint's own settings say."""
    settings = GenerationConfig(
        do_sample=drawn,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_id,
        pad_token_id=end_id,
        use_cache=True,
    )
    if drawn:
        settings.top_k = 0
    return settings


@contextmanager
def _randomness(seed: int | None) -> Iterator[None]:
    """Within, torch's random numbers are those of `seed`, if one is given; after it as before."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    end_id: int,
    max_new_tokens: int = 200,
    batch_size: int = 32,
    done: Callable[[int], None] = lambda _: None,
    token: Callable[[list[int]], None] | None = None,
    sample_seed: int | None = None,
) -> list[list[int]]:
    """Continue each prompt greedily, without the end token: token ids in the given order.

    With `sample_seed` not greedy, but drawn from the model's probabilities as they are. `done` is
    told the number of prompts after each batch. For a single prompt `token` is told the ids so far
    after each token.

    Batched, sorted by length, padded on the left; a recurrent model, which would read the padding,
    gets prompts of one length together. The model's own generation settings (sampling, penalties)
    are set aside for the call, and torch's random state is left as it was.
    """
    settings = _settings(end_id, max_new_tokens, drawn=sample_seed is not None)
    module = getattr(model, "module", model)
    kept, module.generation_config = module.generation_config, settings
    result: list[list[int]] = [[] for _ in prompts]

    def continued(lines: list[Sequence[int]]) -> list[list[int]]:
        return _continued(module, lines, settings, _Streamer(token, end_id) if token else None)

    try:
        with _randomness(sample_seed):
            for batch in _batches(module, prompts, batch_size, end_id):
                texts = in_halves(continued, [prompts[number] for number in batch])
                for number, tokens in zip(batch, texts, strict=True):
                    stop = tokens.index(end_id) if end_id in tokens else len(tokens)
                    result[number] = tokens[:stop]
                done(len(batch))
    finally:
        module.generation_config = kept
    return result


def _continued(
    model: PreTrainedModel,
    lines: Sequence[Sequence[int]],
    settings: GenerationConfig,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """New tokens of a batch, the end token and what follows it included."""
    ids = pad(lines, settings.pad_token_id, left=True).to(model.device)
    attention = pad([[1] * len(line) for line in lines], 0, left=True).to(model.device)
    output = model.generate(
        input_ids=ids, attention_mask=attention, generation_config=settings, streamer=streamer
    )
    return output[:, ids.shape[1] :].tolist()


def _batches(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], batch_size: int, end_id: int
) -> list[list[int]]:
    """Numbers of the prompts that are continued together.

    A recurrent model whose texts in a batch differ from those alone, as RWKV's do in transformers,
    gets one prompt at a time: tried on two prompts and a few tokens.
    """
    lengths = [len(prompt) for prompt in prompts]
    batches = length_sorted(lengths, batch_size)
    if not is_recurrent(model):
        return batches
    alike = [
        list(part) for batch in batches for _, part in groupby(batch, key=lambda i: lengths[i])
    ]
    if pair := next((batch[:2] for batch in alike if len(batch) > 1), None):
        brief, lines = _settings(end_id, TRIED, drawn=False), [prompts[i] for i in pair]
        alone = [_continued(model, [line], brief)[0] for line in lines]
        for text, own in zip(_continued(model, lines, brief), alone, strict=True):
            if text[: len(own)] != own:
                return [[number] for batch in batches for number in batch]
    return alike
