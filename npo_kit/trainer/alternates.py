"""Alternate answers drawn from the original model, as AltPO trains on (arXiv 2409.13474)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import Row, is_passage
from npo_kit.data.tasks import Task
from npo_kit.errors import KitError
from npo_kit.metrics.progress import Progress, counter
from npo_kit.models import distributed
from npo_kit.models.generation import generate

ROUNDS = 3  # of draws for the rows that have too few
BATCH = 256  # texts drawn together


def with_alternates(
    model: PreTrainedModel,
    prompts: PromptFormat,
    task: Task,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Task:
    """Return a task whose forget rows have `alternates`: answers drawn from the model as it is.

    They are `count` for each row, drawn by seed from its unchanged probabilities (temperature 1),
    up to twice as long as the longest true answer. A draw that is the true answer or empty is drawn
    again, ROUNDS times in all; a row may then have fewer. Rows that have some already keep them, so
    that a task is drawn for once and used, or saved, as often as one likes. One model, seed and
    machine give the same texts. A model in parts (FSDP) cannot be drawn from. Raises KitError for
    passages without alternates.
    """
    rows = task.forget
    refuse_bare_passages(rows, "alternates")
    model.eval()  # dropout off
    drawn: list[list[str]] = [list(row.get("alternates") or ()) for row in rows]
    wanted = [0 if texts else count for texts in drawn]
    answers = prompts.encode_all(rows)
    longest = 2 * max(encoded.answer_length for encoded in answers)
    for number in range(ROUNDS):
        asked = [i for i, left in enumerate(wanted) for _ in range(left)]
        lines = [answers[i].ids[: answers[i].prompt_length] for i in asked]
        told = counter(progress, f"alternates, draw {number + 1}", len(lines))
        drawing = (model, lines, prompts.end_id, longest, BATCH, told)
        said = generate(*drawing, sample_seed=ROUNDS * seed + number)
        for i, ids in zip(asked, distributed.gather(said)[0], strict=True):
            text = prompts.decode(ids)
            if text.strip() not in ("", rows[i]["answer"].strip()):
                drawn[i].append(text)
                wanted[i] -= 1
    pairs = zip(rows, drawn, strict=True)
    found = [row | {"alternates": texts} if texts else row for row, texts in pairs]
    return replace(task, forget=found)


def refuse_bare_passages(rows: Sequence[Row], own: str) -> None:
    """Raise KitError for passages without their `own` alternates: they ask nothing to refuse."""
    bare = [row for row in rows if is_passage(row) and not row.get(own)]
    if bare:
        raise KitError(
            f"this method trains on other answers, such as refusals, and {len(bare)} of "
            f"{len(rows)} rows are passages, which ask nothing (the first: "
            f"{bare[0]['answer'][:40]!r}): give each its own `{own}`, or take a method "
            "that needs none, such as npo"
        )


def alternate_rows(rows: Sequence[Row], refused: list[Row], count: int) -> list[Row]:
    """Return `count` rounds of the rows with an alternate answer each, a row's own in turn.

    `refused` are the rows with the refusals that stand where a row has none; with a count of 0 they
    stand everywhere.
    """
    own = [[row | {"answer": text} for text in row.get("alternates") or ()] for row in rows]
    turns = [each or [refusal] for each, refusal in zip(own, refused, strict=True)]
    rounds = [turn[k % len(turn)] for k in range(count) for turn in turns]
    return rounds or refused
