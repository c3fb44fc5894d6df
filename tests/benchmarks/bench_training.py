"""One NPO+RT step of SmolLM2-135M on 4 + 4 TOFU rows: the kit against two plain loops.

    python tests/benchmarks/bench_training.py [--repeats 5] [--memory]

Baseline a: every sequence padded to 500 tokens, a live reference model, logits everywhere.
Baseline b: padding to the longest, a live reference model, logits everywhere, forget and retain
rows in forwards of their own. All in fp32 on the CPU with the same optimizer, on the same rows, in
turns; the ratio is of medians. `--memory` measures peaks instead, each in a process of its own.
"""

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))
from smollm2 import TOFU, find_gguf, what_is_missing

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import Task, load_tofu
from npo_kit.models.loading import context_length, load_model, save_model
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.loop import unlearn

ROWS, BETA, LR = 4, 0.1, 1e-6  # the rate is tiny so that every repeat does the same work


def batch_of(encoded, width=None):
    """Padded ids, attention mask and labels (-100 where nothing is to be predicted)."""
    width = width or max(len(e.ids) for e in encoded)
    ids, attention, labels = (torch.zeros(len(encoded), width, dtype=torch.long) for _ in range(3))
    labels -= 100
    for i, e in enumerate(encoded):
        ids[i, : len(e.ids)] = torch.tensor(e.ids)
        attention[i, : len(e.ids)] = 1
        labels[i, e.prompt_length : len(e.ids)] = torch.tensor(e.ids[e.prompt_length :])
    return ids, attention, labels


def answer_sums(model, ids, attention, labels):
    """Log-prob of each answer and the number of its tokens, from full logits."""
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    nll = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    return -nll.view(len(ids), -1).sum(-1), (labels[:, 1:] != -100).sum(-1)


class PlainLoop:
    """Both baselines: a frozen reference beside the policy, forget and retain apart."""

    def __init__(self, model, forget, retain, width=None):
        self.model, self.reference = model, copy.deepcopy(model).requires_grad_(False)
        self.forget, self.retain = batch_of(forget, width), batch_of(retain, width)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step(self):
        policy, _ = answer_sums(self.model, *self.forget)
        with torch.no_grad():
            reference, _ = answer_sums(self.reference, *self.forget)
        retain, tokens = answer_sums(self.model, *self.retain)
        loss = 2 / BETA * F.softplus(BETA * (policy - reference)).mean()
        loss = loss - retain.sum() / tokens.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


class Kit:
    """The kit's own loop, event by event."""

    def __init__(self, model, tokenizer, forget, retain, steps):
        task = Task("bench", forget, retain, {})
        config = UnlearnConfig(
            method="npo_rt", epochs=steps, batch_size=ROWS, micro_batch_size=ROWS, lr=LR,
            warmup_epochs=0, prompt="qa", evaluation=None,
        )  # fmt: skip
        self.events = unlearn(model, tokenizer, task, config)

    def step(self):
        return next(self.events).loss


def contestant(name, model, tokenizer, steps):
    """One of the loops, over the same four forget and four retain rows; it trains `model`."""
    task = load_tofu("forget01", source=TOFU)
    forget, retain = task.forget[:ROWS], task.retain[-ROWS:]
    if name == "kit":
        return Kit(model, tokenizer, forget, retain, steps)
    encode = PromptFormat(tokenizer, "qa", context_length(model)).encode_all
    return PlainLoop(model, encode(forget), encode(retain), 500 if name == "a" else None)


def time_steps(repeats):
    model, tokenizer = load_model(find_gguf(), device="cpu")
    made = {
        name: contestant(name, copy.deepcopy(model), tokenizer, repeats + 1)
        for name in ("kit", "b", "a")
    }
    seconds = {name: [] for name in made}
    losses = {name: [] for name in made}
    for repeat in range(repeats + 1):
        for name, loop in made.items():
            started = time.perf_counter()
            losses[name].append(loop.step())
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    for name, values in losses.items():
        assert abs(values[0] - losses["kit"][0]) < 1e-3 * abs(values[0]), (name, values)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {repeats} repeats in turn"
    )
    for name, values in seconds.items():
        print(f"{name:4s} median {median[name]:7.3f} s  ({min(values):.3f} to {max(values):.3f})")
    print(f"speed: {median['a'] / median['kit']:.2f} x baseline a (at least 10 wanted)")
    print(f"speed: {median['b'] / median['kit']:.2f} x baseline b (at least 1.4 wanted)")


def peak_rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB, on Linux


def peak_of(name, folder):
    """Peak resident memory of a process that trains two steps, MiB, without its libraries."""
    idle = peak_rss()
    loop = contestant(name, *load_model(folder, device="cpu"), steps=2)
    loop.step(), loop.step()
    print(peak_rss() - idle)


def measure_memory():
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = load_model(find_gguf(), device="cpu")
        save_model(model, tokenizer, Path(folder) / "model")
        # weights, gradients and AdamW's two moments, which every loop here must hold
        held = 4 * 4 * model.num_parameters() / 2**20
        peaks = {}
        for name in ("kit", "b"):
            command = [sys.executable, __file__, "--peak-of", name, "--model", f"{folder}/model"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[name] = float(done.stdout.split()[-1])
            print(f"{name:4s} peak {peaks[name]:7.0f} MiB", flush=True)
    print(f"weights, gradients and AdamW's state in fp32, in each: {held:.0f} MiB, so the least")
    print(f"ratio is {held / peaks['b']:.2f}")
    print(f"memory: {peaks['kit'] / peaks['b']:.2f} of baseline b (at most 0.65 wanted)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if reason := what_is_missing():
        sys.exit(reason)
    if options.peak_of:
        peak_of(options.peak_of, options.model)
    elif options.memory:
        measure_memory()
    else:
        time_steps(options.repeats)
