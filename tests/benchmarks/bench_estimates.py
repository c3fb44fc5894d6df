"""Estimates of time and memory against runs: SmolLM2-135M on TOFU rows, on the CPU.

    python tests/benchmarks/bench_estimates.py [--methods npo_rt npo_kl] [--precision fp32]

For each method one run in a process of its own: calibration and estimate first, then the run by
the clock, and its peak of resident memory without the libraries. Wanted: both within 1.5 times.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from bench_training import peak_rss
from smollm2 import TOFU, find_gguf, what_is_missing

from npo_kit.data.tasks import load_tofu
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models.loading import load_model
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.estimates import estimate
from npo_kit.trainer.loop import unlearn


def one_run(method, precision, measure):
    """Print what is estimated, or what the run took: seconds and MiB."""
    torch.set_num_threads(1)
    idle = peak_rss()
    model, tokenizer = load_model(find_gguf(), device="cpu")
    task = load_tofu("forget01@80", source=TOFU)
    config = UnlearnConfig(
        method=method, epochs=0.2, batch_size=4, micro_batch_size=4, prompt="qa",
        precision=precision, evaluate_every=None,
        evaluation=EvaluationConfig(max_rows=1, max_new_tokens=24, batch_size=4),
    )  # fmt: skip
    if measure:
        started = time.perf_counter()
        steps = sum(hasattr(event, "loss") for event in unlearn(model, tokenizer, task, config))
        print(steps, time.perf_counter() - started, peak_rss() - idle)
    else:
        started = time.perf_counter()
        made = estimate(model, tokenizer, task, config)
        print(f"{made}\ncalibrated in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        print(made.steps, made.seconds, made.memory_bytes / 2**20)


def in_a_process(method, precision, *options):
    command = [sys.executable, __file__, "--one", method, "--precision", precision, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(value) for value in done.stdout.split()[-3:]]


def main(methods, precision):
    for method in methods:
        steps, seconds, memory = in_a_process(method, precision)
        made, took, peak = in_a_process(method, precision, "--measure")
        assert steps == made, (steps, made)
        print(f"{method}, {precision}: {steps:.0f} steps")
        print(f"  time {took / seconds:.2f} of the estimate ({took:.1f} s, {seconds:.1f} s)")
        print(f"  memory {peak / memory:.2f} of the estimate ({peak:.0f}, {memory:.0f} MiB)")
        within = all(1 / 1.5 < ratio < 1.5 for ratio in (took / seconds, peak / memory))
        print("  within 1.5 times" if within else "  NOT within 1.5 times", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["npo_rt", "npo_kl"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if reason := what_is_missing():
        sys.exit(reason)
    if options.one:
        one_run(options.one, options.precision, options.measure)
    else:
        main(options.methods, options.precision)
