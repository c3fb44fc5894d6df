"""A bench of the shipped pocket models and a few of their rows, which the audit's tests share."""

import copy
from functools import lru_cache

import torch

from npo_kit.audit.bench import Bench
from npo_kit.audit.probes import probes_of
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import load_authors
from npo_kit.models.loading import context_length, load_model


@lru_cache
def pocket_bench() -> Bench:
    """Six rows each of four authors to be forgotten and of two to be kept."""
    (original, tokenizer), (retained, _) = (
        load_model(name, device="cpu") for name in ("pocket", "pocket:retained")
    )
    prompts, task = PromptFormat(tokenizer, context=context_length(original)), load_authors()
    forget, _ = probes_of([row for i in range(4) for row in task.forget[12 * i :][:6]], prompts)
    retain, _ = probes_of(task.retain[:6] + task.retain[12:18], prompts)
    return Bench(prompts, task, forget, retain, original, retained)


@lru_cache
def between(share: float = 0.5):
    """A model on the way from the pocket model to the retained-only one."""
    bench = pocket_bench()
    model = copy.deepcopy(bench.original)
    with torch.no_grad():
        for own, other in zip(model.parameters(), bench.retained.parameters(), strict=True):
            own.lerp_(other, share)
    return model


class Untouched:
    """A context after which models' weights and modes and torch's random state are as before."""

    def __init__(self, *models):
        self.models = models

    def __enter__(self):
        self.before, self.random = self._state(), torch.get_rng_state()

    def __exit__(self, kind, *_):
        if kind is None:
            assert torch.equal(self.random, torch.get_rng_state())
            for (own, mode), (before, mode_before) in zip(self._state(), self.before, strict=True):
                assert mode == mode_before
                assert all(torch.equal(own[name], before[name]) for name in before)

    def _state(self):
        return [
            ({n: w.clone() for n, w in model.state_dict().items()}, model.training)
            for model in self.models
        ]
