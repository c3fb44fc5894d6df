"""Runs that several processes do together: what `test_several.py` has a launcher start.

`python -m torch.distributed.run --nproc-per-node N tests/together.py FOLDER CASE...` writes a file
of each process, `FOLDER/0.pt` and so on.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from conftest import make_model, make_task, make_tokenizer

from npo_kit.errors import KitError
from npo_kit.losses.answers import sequence_logps
from npo_kit.losses.methods import METHODS, Method
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models import distributed
from npo_kit.trainer.checkpoints import Checkpoints
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
FSDP |= {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
CASES = {  # method, rows of a batch, rows of a forward, dtype, options of the model, of the run
    "ga_rt": ("ga_rt", 4, 1, "float64"),  # two forwards in each of two processes
    "npo_rt": ("npo_rt", 3, 1, "float64"),  # two forwards in one, one and an idle one in the other
    "npo_kl": ("npo_kl", 3, 2, "float64", {}, {"gradient_checkpointing": True}),
    "kto_rt": ("kto_rt", 3, 1, "float64"),  # a mean over the batch that no process has
    "dpo_rt": ("dpo_rt", 1, 4, "float64"),  # no row for the second process
    "fp32": ("npo_rt", 4, 4, "float32"),
    "collapse": ("one_breaks", 2, 2, "float64"),  # in the second step, in one process
    "tied": ("npo_rt", 3, 1, "float64", {"tie_word_embeddings": True}),
}
if find_spec("peft"):
    CASES["lora"] = ("npo_kl", 3, 1, "float64", {}, {"lora_rank": 4, "lr": 3e-2})


def one_breaks(forget):
    """Gradient ascent that is infinite on answers of 18 tokens: one row of the task."""
    return torch.where(forget.mask.sum(-1, keepdim=True) == 18, torch.inf, forget.logps)


def spread(forget):
    """One number for a whole batch."""
    return sequence_logps(forget).var(correction=0)


OWN = {"one_breaks": Method(one_breaks), "spread": Method(spread)}


def run_case(
    method: str,
    batch: int,
    micro: int,
    dtype: str,
    model_options: dict | None = None,
    options: dict | None = None,
    checkpoints: Checkpoints | None = None,
    last: int | None = None,
) -> dict:
    """What ten steps on the tiny model are told of, timings aside, and leave; `last` ends early."""
    tokenizer, task = make_tokenizer(), make_task()
    model = make_model(len(tokenizer), **model_options or {}).to(getattr(torch, dtype))
    settings = {
        "epochs": 10 * batch / len(task.forget),
        "lr": 3e-3,
        "warmup_epochs": 1,
        "evaluate_every": None,
        "evaluation": EvaluationConfig(max_new_tokens=4),
    }
    config = UnlearnConfig(
        method=method, batch_size=batch, micro_batch_size=micro, **settings | (options or {})
    )
    told, events = [], []
    progress = lambda *what: told.append(what)  # noqa: E731
    run = unlearn(model, tokenizer, task, config, progress=progress, checkpoints=checkpoints)
    for event in run:
        events.append((type(event).__name__, asdict(replace(event, **_timeless(event)))))
        if isinstance(event, Step) and event.step == last:
            run.close()
    weights = distributed.whole_weights(model)
    return {
        "events": events,
        "progress": told,
        "weights": model.state_dict() if weights is None else weights,
        "held": sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters()),
    }


def _timeless(event) -> dict:
    return {"seconds": 0.0} if hasattr(event, "seconds") else {}


def refusal(*case) -> str:
    """What a run is refused with."""
    try:
        run_case(*case)
    except KitError as error:
        return str(error)
    return ""


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    os.environ |= settings
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def run_named(name: str) -> dict:
    """One case; with " fsdp" at its end, of a model in parts."""
    with environment(FSDP if name.endswith(" fsdp") else {}):
        return run_case(*CASES[name.removesuffix(" fsdp")])


def resumed(folder: Path) -> dict:
    """A run that is left after its sixth step and goes on from the checkpoint after its fourth."""
    case = CASES["ga_rt"]
    run_case(*case, checkpoints=Checkpoints(folder, every=4), last=6)
    return run_case(*case, checkpoints=Checkpoints(folder, every=4, start=4))


def refusals() -> dict[str, str]:
    """What several processes refuse, by what it is."""
    with environment(FSDP | {"FSDP_VERSION": "1"}):
        old = refusal(*CASES["ga_rt"])
    with environment(FSDP):
        lora = refusal(*CASES["ga_rt"], {}, {"lora_rank": 4})
        kept = refusal(*CASES["ga_rt"], None, None, Checkpoints(Path("nowhere")))
    return {
        "one number for a batch": refusal("spread", 4, 4, "float64"),
        "different weights": refusal(*CASES["ga_rt"], {"seed": distributed.rank()}),
        "an older FSDP": old,
        "LoRA in parts": lora,
        "checkpoints in parts": kept,
    }


if __name__ == "__main__":
    METHODS |= OWN
    distributed.join(torch.device("cpu"))
    folder, *names = sys.argv[1:]
    done = {name: run_named(name) for name in names} | {"refusals": refusals()}
    done["resumed"] = resumed(Path(folder, "checkpoints"))
    torch.save(done, f"{folder}/{distributed.rank()}.pt")
    torch.distributed.barrier()  # nobody leaves while another still listens
    os._exit(0)  # threads of gloo may abort a process that is torn down in the usual way
