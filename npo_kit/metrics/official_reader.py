"""Reads the evaluation logs of other codes into the kit's own `Evaluation`.

Two formats, told apart by their keys, plain or gzipped:

- `eval_log_aggregated.json` of TOFU and of the NPO authors: a log per evaluation set, in it a
  column per score, each a dict index -> value (TOFU) or a list (NPO). Scores are losses in nats
  per token, so log-probs are their negatives. `generated_text` is [prompt, generation, truth].
- `TOFU_EVAL.json` of open-unlearning: an entry per metric, in it `value_by_index`: a record per
  row, for perturbed answers a record of lists. Where only a derived metric is there (truth ratio,
  normalised probability), the rows get it as `truth_ratio` or `normalised_probability`.

Other columns of these files (sums of losses, KL, membership inference) are left alone.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, cast

from npo_kit.errors import KitError
from npo_kit.metrics.scores import text_statistics
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, ScoredRow, read_evaluation
from npo_kit.records.files import Json

TOFU_LOG, OPEN_UNLEARNING_LOG = "eval_log_aggregated.json", "TOFU_EVAL.json"
TOFU_KEYS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
PREFIXES = dict(zip(EVALUATION_SETS, ("forget", "retain", "ra", "wf"), strict=True))
READABLE = (
    f"TOFU's and the NPO authors' {TOFU_LOG} (top-level {', '.join(TOFU_KEYS.values())}) and "
    f"open-unlearning's {OPEN_UNLEARNING_LOG} (top-level forget_truth_ratio, retain_Q_A_Prob, …) "
    "can be read"
)


class LogError(KitError):
    """A log that cannot be read: where, what was seen, what to do."""


def read_official_log(path: str | PathLike) -> Evaluation:
    """The rows of an official log; metrics computed from them reproduce those of its code.

    A set that the log lacks has no rows and an entry in `notes`. Raises `LogError`.
    """
    log = _load(Path(path))
    try:
        return _evaluation(log)
    except LogError as error:
        raise LogError(f"{path}: {error}") from None


def read_reference(path: str | PathLike) -> Evaluation:
    """A retained-only model's evaluation: a file of a run's `evals/`, or an official log.

    Raises `npo_kit.records.run.RunError` for the one, `LogError` for the other.
    """
    if Path(path).name.endswith((".jsonl", ".jsonl.gz")):
        return read_evaluation(Path(path))
    return read_official_log(path)


def _load(path: Path) -> Any:
    if path.is_dir():
        raise LogError(f"{path} is a folder: give the {TOFU_LOG} or {OPEN_UNLEARNING_LOG} in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LogError(f"there is no run, evaluation or log at {path}: check the path") from None
    except OSError as error:
        raise LogError(f"{path} cannot be opened: {error.strerror or error}") from None
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        raise LogError(f"{path} is damaged or no text: fetch the log again") from None
    try:
        return json.loads(text, parse_int=float)  # float: no integer is too long
    except (ValueError, RecursionError):
        start = " ".join(text[:40].split())
        seen = f"starts with {start!r}" if start else "is empty"
        raise LogError(f"{path} is no whole JSON, it {seen}: fetch the log again") from None


def _evaluation(log: Any) -> Evaluation:
    names = list(log) if isinstance(log, dict) else []
    if set(names) & set(TOFU_KEYS.values()):
        evaluation = _from_tofu(log)
    elif set(names) & {name for readers in METRICS.values() for name in readers}:
        evaluation = _from_open_unlearning(log)
    elif "avg_gt_loss" in names:
        raise LogError(f"the log of a single evaluation set: give the {TOFU_LOG} beside it")
    else:
        seen = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        seen = f"a JSON object with {seen}" if names else "no JSON object with keys"
        raise LogError(f"a log of unknown shape, {seen}: {READABLE}")
    if not any(evaluation.rows.values()):
        raise LogError("the log has averages at most, no rows: give the full log, not its summary")
    return evaluation


# Values. Each reader takes a value and its place in the file, which an error names.


def _number(value: Any, where: str, least: float = -math.inf, most: float = math.inf):
    if value is None:
        return None
    if not isinstance(value, float):
        seen = json.dumps(value, ensure_ascii=False)[:40]
        raise LogError(f"{where} is {seen}, where a number belongs: write the log again")
    if value < least or value > most:  # NaN is neither: it stays, for a collapsed model
        raise LogError(f"{where} is {value:g}, outside [{least:g}, {most:g}]: write the log again")
    return float(value)


def _count(value: Any, where: str) -> int | None:
    number = _number(value, where)
    return None if number is None or not number.is_integer() else int(number)


def _logp_of_loss(value: Any, where: str) -> float | None:
    loss = _number(value, where, least=-0.001)  # some round below 0
    return None if loss is None else 0.0 - loss


def _logp_of_probability(value: Any, where: str) -> float | None:
    share = _number(value, where, least=0, most=1.001)
    return math.log(share) if share else (None if share is None else -math.inf)


def _each(read: Callable, value: Any, where: str) -> list[float | None] | None:
    """Read each of a list of values, or a single one."""
    if value is None:
        return None
    return [read(item, where) for item in (value if isinstance(value, list) else [value])]


_share = partial(_number, least=0, most=1)


def _texts(texts: Json, where: str) -> Json:
    """Question, answer and generation, and what the generation's words say by themselves."""
    for text in texts.values():
        if not isinstance(text, str):
            raise LogError(f"{where} is {json.dumps(text)[:40]}, where a text belongs")
    return {**texts, **text_statistics(texts["generation"])}


def _by_index(column: Any, where: str) -> dict[int, Any]:
    """A column's values by the number of their row; it comes as a list or a dict."""
    if isinstance(column, list):
        return dict(enumerate(column))
    if not isinstance(column, dict):
        raise LogError(f"{where} is neither a list nor a dict of rows: write the log again")
    odd = [index for index in column if not re.fullmatch("[0-9]{1,9}", index)]
    if odd:
        raise LogError(f"{where} has a row {odd[0][:40]!r}, not an index: write the log again")
    return {int(index): value for index, value in column.items()}


def _align(columns: dict[str, dict[int, Any]], where: str) -> list[int]:
    """The rows' numbers in order, which every column must share."""
    names = list(columns)
    for name in names[1:]:
        first, other = columns[names[0]], columns[name]
        if len(first) != len(other):
            counts = f"{where}{names[0]} has {len(first)} rows and {name} has {len(other)}"
            raise LogError(f"{counts}: the log is cut short or mixed, write it again")
        if first.keys() != other.keys():
            odd = min(first.keys() ^ other.keys())
            raise LogError(f"{where}{names[0]} and {name} differ in row {odd}: write the log again")
    return sorted(columns[names[0]]) if names else []


# TOFU and the NPO authors

TOFU_COLUMNS: dict[str, tuple[str, Callable]] = {
    "avg_gt_loss": ("mean_logp", _logp_of_loss),
    "num_token_gt": ("tokens", _count),
    "avg_paraphrased_loss": ("paraphrased_mean_logp", _logp_of_loss),
    "average_perturb_loss": ("perturbed_mean_logps", partial(_each, _logp_of_loss)),
    "rougeL_recall": ("rouge_l_recall", _share),
    "rouge1_recall": ("rouge_1_recall", _share),
}


def _from_tofu(log: dict) -> Evaluation:
    rows, notes = {}, {}
    for set_name, key in TOFU_KEYS.items():
        if key not in log:
            notes[set_name] = f"the log has no {key}"
        elif not isinstance(log[key], dict):
            raise LogError(f"{key} is no JSON object of columns: write the log again")
        rows[set_name] = _tofu_rows(log[key], f"{key}, ") if key in log else []
    return Evaluation(rows=rows, protocol="tofu", source=TOFU_LOG, notes=notes)


def _tofu_rows(log: dict, where: str) -> list[ScoredRow]:
    known = [name for name in (*TOFU_COLUMNS, "generated_text") if name in log]
    columns = {name: _by_index(log[name], where + name) for name in known}
    texts = columns.get("generated_text", {})
    rows = []
    for index in _align(columns, where):
        row: Json = {"index": index}
        for name, (key, read) in TOFU_COLUMNS.items():
            # On the real sets "paraphrased" is the answer scored again, in another batch: with
            # rounding of its own, so it is kept, or the log's truth ratio would not come out.
            if name in columns:
                row[key] = read(columns[name][index], f"{where}{name} of row {index}")
        if texts.get(index) is not None:
            here = f"{where}generated_text of row {index}"
            if not isinstance(texts[index], list) or len(texts[index]) != 3:
                raise LogError(f"{here} is not [prompt, generation, truth]: write the log again")
            prompt, generation, truth = texts[index]
            row |= _texts({"question": prompt, "answer": truth, "generation": generation}, here)
        rows.append(cast(ScoredRow, row))
    return rows


# open-unlearning. Each reader takes a row's record of one metric and gives keys of ours.


def _mean_logp(key: str, several: bool = False) -> Callable[[dict, str], Json]:
    def read(record: dict, where: str) -> Json:
        # The loss is the more exact: a probability of a collapsed model underflows.
        field = "avg_loss" if record.get("avg_loss") is not None else "prob"
        one = _logp_of_loss if field == "avg_loss" else _logp_of_probability
        logps = _each(one, record.get(field), f"{where}, {field}")
        if several or logps is None:
            return {key: logps}
        if len(logps) != 1:
            raise LogError(f"{where} holds {len(logps)} answers where one belongs")
        return {key: logps[0]}

    return read


def _derived(key: str, field: str) -> Callable[[dict, str], Json]:
    return lambda record, where: {key: _number(record.get(field), f"{where}, {field}", least=0)}


def _rouge(record: dict, where: str) -> Json:
    names = {"rougeL_recall": "rouge_l_recall", "rouge1_recall": "rouge_1_recall"}
    names |= {"rougeL_f1": "rouge_l_f1"}
    row: Json = {ours: _share(record.get(its), f"{where}, {its}") for its, ours in names.items()}
    if record.get("generation") is not None:
        named = {"question": "input", "answer": "ground_truth", "generation": "generation"}
        row |= _texts({ours: record.get(its) for ours, its in named.items()}, where)
    return row


def _metrics(prefix: str) -> dict[str, Callable[[dict, str], Json]]:
    truth_ratio = _derived("truth_ratio", "score")
    return {
        f"{prefix}_Q_A_Prob": _mean_logp("mean_logp"),
        f"{prefix}_Q_A_PARA_Prob": _mean_logp("paraphrased_mean_logp"),
        f"{prefix}_Q_A_PERT_Prob": _mean_logp("perturbed_mean_logps", several=True),
        f"{prefix}_Q_A_Prob_normalised": _derived("normalised_probability", "prob"),
        f"{prefix}_Truth_Ratio": truth_ratio,
        f"{prefix}_truth_ratio": truth_ratio,
        f"{prefix}_Q_A_ROUGE": _rouge,
    }


METRICS = {set_name: _metrics(prefix) for set_name, prefix in PREFIXES.items()}


def _from_open_unlearning(log: dict) -> Evaluation:
    rows, notes = dict[str, list[ScoredRow]](), {}
    for set_name in EVALUATION_SETS:
        readers, columns = METRICS[set_name], {}
        for name in readers:
            if isinstance(log.get(name), dict) and log[name].get("value_by_index") is not None:
                columns[name] = _by_index(log[name]["value_by_index"], name)
        if not columns:
            prefix = PREFIXES[set_name]
            notes[set_name] = f"the log has no {prefix}_… metric with value_by_index"
        rows[set_name] = []
        for index in _align(columns, ""):
            row: Json = {"index": index}
            for name, column in columns.items():
                record = column[index]
                if record is not None and not isinstance(record, dict):
                    raise LogError(f"{name} of row {index} is no record: write the log again")
                row |= readers[name](record or {}, f"{name} of row {index}")
            rows[set_name].append(cast(ScoredRow, row))
    return Evaluation(rows=rows, protocol="all", source=OPEN_UNLEARNING_LOG, notes=notes)
