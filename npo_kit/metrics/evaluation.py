"""A model judged on a task: scores and generations of every row of the evaluation sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.tasks import Row, Task
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.metrics.scores import rouge_scores, text_statistics
from npo_kit.models import distributed
from npo_kit.models.forward import autocast
from npo_kit.models.generation import generate
from npo_kit.models.scoring import score
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, ScoredRow

Progress = Callable[[str, int, int], None]


def evaluate(
    model: PreTrainedModel,
    prompt_format: PromptFormat,
    task: Task,
    config: EvaluationConfig | None = None,
    *,
    original: PreTrainedModel | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on the four evaluation sets of a task: per-row numbers and generations.

    `original` judges the fluency of the generations; without it that score is None. `precision` is
    that of the forwards; on a CPU texts are written in fp32 all the same, since bf16 slows that
    down there. `progress` gets the name of the current part, the rows done, and their total.
    Several processes share the rows, and each returns the whole.
    """
    config, started = config or EvaluationConfig(), time.perf_counter()
    records: dict[str, list[ScoredRow]] = {}
    with torch.inference_mode():
        for name in EVALUATION_SETS:
            if rows := config.rows_of(task.evaluation.get(name, [])):
                mine = distributed.my_share(rows)
                done = _counter(progress, f"{name} answers", len(rows))
                with autocast(model.device, precision):
                    records[name] = _score_rows(model, prompt_format, mine, done)
                if config.max_new_tokens:
                    done = _counter(progress, f"{name} texts", len(rows))
                    texts = _write_texts(
                        model, prompt_format, mine, config, original, precision, done
                    )
                    records[name] = [a | b for a, b in zip(records[name], texts, strict=True)]
    records = {
        name: [{"index": index} | row for index, row in enumerate(distributed.whole(share))]
        for name, share in records.items()
    }
    notes = dict(task.notes)
    if original is None and config.max_new_tokens:
        notes["fluency"] = "no original model was given to judge the generations"
    return Evaluation(
        rows=records,
        protocol=config.protocol,
        max_rows=config.max_rows,
        max_new_tokens=config.max_new_tokens,
        notes=notes,
        seconds=time.perf_counter() - started,
    )


def _counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None]:
    """Return a function that is told how many more are done and reports progress of `what`.

    Other processes are taken to keep pace.
    """
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(what, min(done * distributed.count(), total), total)

    return count


def encoded_answers(row: Row, prompt_format: PromptFormat) -> list[Encoded]:
    """Encode the answers of a row that are scored: the true one, its paraphrase, the perturbed."""
    others = [row.get("paraphrased_answer"), *(row.get("perturbed_answer") or [])]
    texts = [row["answer"], *(text for text in others if text is not None)]
    return [prompt_format.encode(row["question"], text) for text in texts]


def _score_rows(
    model: PreTrainedModel,
    prompt_format: PromptFormat,
    rows: Sequence[Row],
    done: Callable[[int], None],
) -> list[ScoredRow]:
    """Return the mean log-probs of answer, paraphrase and perturbed answers of each row."""
    encoded = [encoded_answers(row, prompt_format) for row in rows]
    records = []
    for row, scores in zip(rows, score(model, encoded, done=done), strict=True):
        means = [logp / tokens for logp, tokens in scores]
        paraphrased = row.get("paraphrased_answer") is not None
        record: ScoredRow = {
            "question": row["question"],
            "answer": row["answer"],
            "mean_logp": means[0],
            "tokens": scores[0][1],
            "paraphrased_mean_logp": means[1] if paraphrased else None,
            "perturbed_mean_logps": means[1 + paraphrased :] or None,
        }
        records.append(record)
    return records


def _write_texts(
    model: PreTrainedModel,
    prompt_format: PromptFormat,
    rows: Sequence[Row],
    config: EvaluationConfig,
    original: PreTrainedModel | None,
    precision: str,
    done: Callable[[int], None],
) -> list[ScoredRow]:
    """Generate a greedy text for each row, compared with the truth and judged by the original."""
    encoded = [prompt_format.encode(row["question"], row["answer"]) for row in rows]
    prompts = [e.ids[: e.prompt_length] for e in encoded]
    with autocast(model.device, "fp32" if model.device.type == "cpu" else precision):
        generated = generate(
            model, prompts, prompt_format.end_id, config.max_new_tokens, config.batch_size, done
        )
    fluency: list[float | None] = [None] * len(rows)
    if original is not None:
        said = [number for number, ids in enumerate(generated) if ids]
        spoken = [[Encoded((*prompts[n], *generated[n]), len(prompts[n]))] for n in said]
        with autocast(original.device, precision):
            scores = score(original, spoken)
        for number, [(logp, tokens)] in zip(said, scores, strict=True):
            fluency[number] = logp / tokens
    records = []
    for row, ids, fluent in zip(rows, generated, fluency, strict=True):
        text = prompt_format.decode(ids)
        record: ScoredRow = {"generation": text, "generation_tokens": len(ids), "fluency": fluent}
        records.append(record | rouge_scores(text, row["answer"]) | text_statistics(text))
    return records
