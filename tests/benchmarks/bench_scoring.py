"""Scoring all answers of 16 rows of each evaluation set of TOFU with SmolLM2-135M, and packing.

    python tests/benchmarks/bench_scoring.py [--repeats 3]

The kit scores a row's answers as branches of one sequence. The baseline scores one column at a time
(answers, then paraphrases, then each perturbed answer), rows in batches of 16, padded to the
longest, full logits, as TOFU's own code does but for its padding to a fixed length. A training
batch of 32 rows is read packed in lines, and padded. fp32, CPU, in turns; ratios are of medians.
Trees and packing must hold for this model, which is a Llama.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))
from smollm2 import TOFU, find_gguf, what_is_missing

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import load_tofu
from npo_kit.models.forward import can_pack, read_answers
from npo_kit.models.loading import context_length, load_model
from npo_kit.models.scoring import _can_branch, _Tree, score

ROWS = 16
TRAINED = 32  # rows of a training batch, forget and retain


@torch.no_grad()
def one_column_at_a_time(model, rows):
    """Sum of log-probs of each answer of each row."""
    columns = max(map(len, rows))
    scores = [[] for _ in rows]
    for column in range(columns):
        having = [i for i, row in enumerate(rows) if column < len(row)]
        batch = [rows[i][column] for i in having]
        width = max(len(e.ids) for e in batch)
        ids, mask = (torch.zeros(len(batch), width, dtype=torch.long) for _ in range(2))
        labels = torch.full((len(batch), width), -100)
        for i, e in enumerate(batch):
            ids[i, : len(e.ids)] = torch.tensor(e.ids)
            mask[i, : len(e.ids)] = 1
            labels[i, e.prompt_length : len(e.ids)] = torch.tensor(e.ids[e.prompt_length :])
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        nll = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
        )
        for i, value in zip(having, nll.view(len(batch), -1).sum(-1).tolist(), strict=True):
            scores[i].append(-value)
    return scores


def main(repeats):
    model, tokenizer = load_model(find_gguf(), device="cpu")
    prompt_format = PromptFormat(tokenizer, "qa", context_length(model))
    sets = []
    for rows in load_tofu("forget10", source=TOFU).evaluation.values():
        texts = [
            [r["answer"], *filter(None, [r.get("paraphrased_answer")]), *r["perturbed_answer"]]
            for r in rows[:ROWS]
        ]
        sets.append(
            [
                [prompt_format.encode(row["question"], text) for text in answers]
                for row, answers in zip(rows, texts, strict=False)
            ]
        )
    flat = [encoded for rows in sets for answers in rows for encoded in answers[:1]]
    print(f"can_pack: {can_pack(model, flat[:TRAINED])}")
    branches = all(_can_branch(model, rows, list(map(_Tree.of, rows))) for rows in sets)
    print(f"can branch: {branches}")

    @torch.no_grad()
    def read(packed):
        return read_answers(model, flat[:TRAINED], packed=packed).logps.sum(-1).tolist()

    works = {
        "trees": lambda: [[[s for s, _ in row] for row in score(model, rows)] for rows in sets],
        "columns": lambda: [one_column_at_a_time(model, rows) for rows in sets],
        "packed": lambda: [[read(packed=True)]],
        "padded": lambda: [[read(packed=False)]],
    }
    said, seconds = {}, {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            started = time.perf_counter()
            said[name] = [value for rows in work() for row in rows for value in row]
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {repeats} repeats")
    for name, values in seconds.items():
        print(f"{name:8s} median {median[name]:7.3f} s  ({min(values):.3f} to {max(values):.3f})")
    for ours, theirs, wanted in (("trees", "columns", 1.6), ("packed", "padded", 1.0)):
        worst = max(abs(a - b) for a, b in zip(said[ours], said[theirs], strict=True))
        print(f"{ours}: log-probs differ by at most {worst:.1e} nats (at most 1e-3 wanted)")
        ratio = median[theirs] / median[ours]
        print(f"speed: {ratio:.2f} x that of {theirs} (at least {wanted} wanted)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if reason := what_is_missing():
        sys.exit(reason)
    main(options.repeats)
