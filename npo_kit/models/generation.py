"""What a model writes: greedy continuations of prompts, or drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from npo_kit.data.prompts import length_sorted
from npo_kit.models.batching import in_halves, pad


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
    """Greedy continuation of each prompt, without the end token: token ids in the given order.

    With `sample_seed` not greedy, but drawn from the model's probabilities as they are. `done` is
    told the number of prompts after each batch. For a single prompt `token` is told the ids so far
    after each token.

    Batched, sorted by length, padded on the left. The model's own generation settings (sampling,
    penalties) are set aside for the call, and torch's random state is left as it was.
    """
    settings = _settings(end_id, max_new_tokens, drawn=sample_seed is not None)
    module = getattr(model, "module", model)
    kept, module.generation_config = module.generation_config, settings
    result: list[list[int]] = [[] for _ in prompts]

    def continued(lines: list[Sequence[int]]) -> list[list[int]]:
        ids = pad(lines, end_id, left=True).to(model.device)
        attention = pad([[1] * len(line) for line in lines], 0, left=True).to(model.device)
        output = module.generate(
            input_ids=ids,
            attention_mask=attention,
            generation_config=settings,
            streamer=_Streamer(token, end_id) if token else None,
        )
        return output[:, ids.shape[1] :].tolist()

    try:
        with _randomness(sample_seed):
            for batch in length_sorted([len(prompt) for prompt in prompts], batch_size):
                texts = in_halves(continued, [prompts[number] for number in batch])
                for number, tokens in zip(batch, texts, strict=True):
                    stop = tokens.index(end_id) if end_id in tokens else len(tokens)
                    result[number] = tokens[:stop]
                done(len(batch))
    finally:
        module.generation_config = kept
    return result
