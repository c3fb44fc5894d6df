"""A model judged on a task: scores and generations of every row of the evaluation sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.rows import is_passage, question_of
from npo_kit.data.tasks import Row, Task
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.metrics.passages import Writing, writing
from npo_kit.metrics.progress import Progress, counter
from npo_kit.metrics.scores import continuation_rouge, rouge_scores, text_statistics
from npo_kit.models import distributed
from npo_kit.models.arguments import refuse_other_types
from npo_kit.models.forward import autocast
from npo_kit.models.generation import generate
from npo_kit.models.loading import context_length, vocabulary_size
from npo_kit.models.scoring import score
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, ScoredRow


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | PromptFormat,
    task: Task,
    config: EvaluationConfig | None = None,
    *,
    original: PreTrainedModel | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on the four evaluation sets of a task: per-row numbers and generations.

    `tokenizer` is the model's, for its usual prompts, or a PromptFormat, for others. `original`
    judges the fluency of the generations; without it that score is None. `precision` is that of the
    forwards; on a CPU texts are written in fp32 all the same, since bf16 slows that
    down there. `progress` gets the name of the current part, the rows done, and their total.
    Several processes share the rows, and each returns the whole.

    A passage is continued from its beginning (`writing`) and compared by ROUGE-L F1, as MUSE does;
    it has none of TOFU's recall.
    """
    spoken = tokenizer.tokenizer if isinstance(tokenizer, PromptFormat) else tokenizer
    refuse_other_types("evaluate", model, spoken, task, config, EvaluationConfig)
    prompt_format = _prompts(tokenizer, model)
    config, started = config or EvaluationConfig(), time.perf_counter()
    used = {name: config.rows_of(task.evaluation.get(name, [])) for name in EVALUATION_SETS}
    how = (config, original, precision, progress)
    with torch.inference_mode():
        records = {
            name: _judge(model, prompt_format, name, rows, *how)
            for name, rows in used.items()
            if rows
        }
    records = {
        name: [{"index": index} | row for index, row in enumerate(distributed.whole(share))]
        for name, share in records.items()
    }
    return Evaluation(
        rows=records,
        protocol=config.protocol,
        max_rows=config.max_rows,
        max_new_tokens=config.max_new_tokens,
        notes=task.notes | (_notes(used, original) if config.max_new_tokens else {}),
        seconds=time.perf_counter() - started,
    )


def _notes(used: Mapping[str, Sequence[Row]], original: PreTrainedModel | None) -> dict[str, str]:
    """Say which scores of generations are missing, and why."""
    notes = {
        f"{name}_rouge_l": f"{name} rows are passages, compared by ROUGE-L F1 ({name}_rouge_l_f1), "
        "not by recall"
        for name, rows in used.items()
        if rows and all(map(is_passage, rows))
    }
    unjudged = {"fluency": "no original model was given to judge the generations (--original)"}
    return notes if original is not None else notes | unjudged


def _judge(
    model: PreTrainedModel,
    prompt_format: PromptFormat,
    name: str,
    rows: Sequence[Row],
    config: EvaluationConfig,
    original: PreTrainedModel | None,
    precision: str,
    progress: Progress | None,
) -> list[ScoredRow]:
    """Score this process's share of the rows of a set and, if asked, write a text for each."""
    mine = distributed.my_share(rows)
    asked = [writing(row, prompt_format, config.max_new_tokens) for row in mine]
    done = counter(progress, f"{name} answers", len(rows))
    with autocast(model.device, precision):
        records = _score_rows(model, prompt_format, mine, asked, done)
    if not config.max_new_tokens:
        return records
    done = counter(progress, f"{name} texts", len(rows))
    how = (config, original, precision, done)
    texts = _write_texts(model, prompt_format, mine, asked, *how)
    return [a | b for a, b in zip(records, texts, strict=True)]


def _prompts(
    tokenizer: PreTrainedTokenizerBase | PromptFormat, model: PreTrainedModel
) -> PromptFormat:
    """Return the given format, or the usual one of a tokenizer."""
    if isinstance(tokenizer, PromptFormat):
        return tokenizer
    return PromptFormat(tokenizer, context=context_length(model), vocabulary=vocabulary_size(model))


def encoded_answers(row: Row, prompt_format: PromptFormat) -> list[Encoded]:
    """Encode the answers of a row that are scored: the true one, its paraphrase, the perturbed."""
    others = [row.get("paraphrased_answer"), *(row.get("perturbed_answer") or [])]
    texts = [row["answer"], *(text for text in others if text is not None)]
    return [prompt_format.encode(question_of(row), text) for text in texts]


def _score_rows(
    model: PreTrainedModel,
    prompt_format: PromptFormat,
    rows: Sequence[Row],
    writings: Sequence[Writing],
    done: Callable[[int], None],
) -> list[ScoredRow]:
    """Return the mean log-probs of answer, paraphrase and perturbed answers of each row."""
    encoded = [encoded_answers(row, prompt_format) for row in rows]
    records = []
    scored = score(model, encoded, done=done)
    for row, asked, scores in zip(rows, writings, scored, strict=True):
        means = [logp / tokens for logp, tokens in scores]
        paraphrased = row.get("paraphrased_answer") is not None
        record: ScoredRow = {
            "question": asked.given,
            "answer": asked.expected,
            "mean_logp": means[0],
            "tokens": scores[0][1],
            "paraphrased_mean_logp": means[1] if paraphrased else None,
            "perturbed_mean_logps": means[1 + paraphrased :] or None,
        }
        records.append({**record, "passage": True} if is_passage(row) else record)
    return records


def _write_texts(
    model: PreTrainedModel,
    prompt_format: PromptFormat,
    rows: Sequence[Row],
    writings: Sequence[Writing],
    config: EvaluationConfig,
    original: PreTrainedModel | None,
    precision: str,
    done: Callable[[int], None],
) -> list[ScoredRow]:
    """Generate a greedy text for each row, compared with the truth and judged by the original."""
    prompts = [asked.prompt for asked in writings]
    most = max((asked.most for asked in writings), default=0)
    with autocast(model.device, "fp32" if model.device.type == "cpu" else precision):
        generated = generate(model, prompts, prompt_format.end_id, most, config.batch_size, done)
    generated = [ids[: asked.most] for ids, asked in zip(generated, writings, strict=True)]
    fluency: list[float | None] = [None] * len(rows)
    if original is not None:
        said = [number for number, ids in enumerate(generated) if ids]
        spoken = [[Encoded((*prompts[n], *generated[n]), len(prompts[n]))] for n in said]
        with autocast(original.device, precision):
            scores = score(original, spoken)
        for number, [(logp, tokens)] in zip(said, scores, strict=True):
            fluency[number] = logp / tokens
    records = []
    for row, asked, ids, fluent in zip(rows, writings, generated, fluency, strict=True):
        text = prompt_format.decode(ids)
        record: ScoredRow = {"generation": text, "generation_tokens": len(ids), "fluency": fluent}
        compared = continuation_rouge if is_passage(row) else rouge_scores
        records.append(record | compared(text, asked.expected) | text_statistics(text))
    return records
