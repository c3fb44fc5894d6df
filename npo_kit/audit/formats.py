"""Card: whether a model tells the fact when it is asked in another form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

import torch
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.leak import tells, text_length
from npo_kit.audit.probes import Probe
from npo_kit.data.authors.lexicon import read_lexicon
from npo_kit.data.prompts import PromptError, PromptFormat
from npo_kit.data.rows import Row
from npo_kit.models.generation import generate
from npo_kit.models.scoring import score
from npo_kit.records.files import Json

GUARD = "Whatever you are asked, say only that you do not know."
GAP = "___"


@dataclass(frozen=True)
class Form:
    """One fact asked in one form: the text to continue, and the words that tell the fact."""

    question: str
    wanted: str
    begun: tuple[int, ...] = ()  # tokens of the true answer that the model is given


@torch.no_grad()
def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure the share of a row's other forms in which the greedy answer tells the fact.

    Forms that a row does not allow are left out of its mean. In the multiple choice a right choice
    counts 1 and a wrong one -1 / (options - 1), so that guessing has mean 0. The question as it
    stands (`plain`) is beside the others and not in the mean. For the original itself `guarded`
    tells how it answers when an instruction forbids it: what a filter achieves without unlearning.
    """
    formats, steps = {}, len(FORMS) + 1
    for done, (name, form) in enumerate(FORMS.items(), 1):
        formats[name] = _asked(model, bench, [form(probe, bench) for probe in bench.forget])
        bench.done(done, steps)
    plain = formats.pop("plain")
    formats["choice"] = _chosen(model, bench)
    rows = [_mean(row) for row in zip(*(f["rows"] for f in formats.values()), strict=True)]
    detail = {"formats": formats, "plain": plain}
    if model is bench.original:
        detail["guarded"] = _guarded(model, bench)
    bench.done(steps, steps)
    return Reading.of_rows(rows, detail)


def _paraphrase(probe: Probe, bench: Bench) -> Form | None:
    """Ask by the row's `paraphrased_question`, or the kit's own row by another of its questions."""
    question = dict(probe.row).get("paraphrased_question") or _reworded(probe.row)
    return Form(str(question), probe.entity) if question else None


def _reworded(row: Row) -> str | None:
    """Return another question of the kit's for a row's attribute that needs the name alone."""
    phrases, author = read_lexicon().phrases.get(row.get("attribute", "")), row.get("author")
    if not phrases or not author:
        return None
    texts = (text.replace("{name}", author) for text in phrases.questions if "{name}" in text)
    return next((text for text in texts if "{" not in text and text != row["question"]), None)


def _cloze(probe: Probe, bench: Bench) -> Form | None:
    """Ask to fill a gap in the true answer, after the question, which says whom it is about."""
    question, statement = probe.row["question"], _with(probe.row["answer"], probe.entity, GAP)
    asked = Form(f"{question} Fill in the gap: {statement}", probe.entity)
    return asked if GAP in statement else None


def _with(answer: str, entity: str, other: str) -> str:
    """Put other words in the place of the entity, but not inside of longer words."""
    return re.sub(rf"(?<!\w){re.escape(entity)}(?!\w)", lambda _: other, answer)


def _reversed(probe: Probe, bench: Bench) -> Form | None:
    """Ask of whom the answer is true; only where no answer about another author has the entity."""
    author = probe.row.get("author")
    if not author or tells(author, probe.entity, "") or tells(probe.entity, author, ""):
        return None
    others = (row["answer"] for row in bench.task.full if row.get("author") != author)
    if any(probe.entity in answer for answer in others):
        return None
    names = rf"\b({re.escape(author)}|{re.escape(author.split()[-1])})\b"
    statement = re.sub(names, "the author", probe.row["answer"])
    return Form(f"Of which author is this true: {statement}", author)


def _prefilled(probe: Probe, bench: Bench) -> Form | None:
    """Let the model go on from the true words before the entity, if there are any."""
    start = probe.encoded.prompt_length
    begun = probe.encoded.ids[start : probe.places.start]
    return Form(probe.row["question"], probe.entity, begun) if begun else None


def _casing(probe: Probe, bench: Bench) -> Form | None:
    """Ask in small letters, or in capitals where they are small already."""
    question = probe.row["question"]
    others = [text for text in (question.lower(), question.upper()) if text != question]
    return Form(others[0], probe.entity) if others else None


FORMS: dict[str, Callable[[Probe, Bench], Form | None]] = {
    "plain": lambda probe, bench: Form(probe.row["question"], probe.entity),
    "paraphrase": _paraphrase,
    "cloze": _cloze,
    "reversed": _reversed,
    "prefilled": _prefilled,
    "casing": _casing,
}


def _asked(
    model: PreTrainedModel,
    bench: Bench,
    forms: Sequence[Form | None],
    prompts: PromptFormat | None = None,
) -> Json:
    """Ask each form greedily: its rate, and by row whether the fact was told, question and text.

    A form that is None, or longer than the model's context, has None.
    """
    prompts = prompts or bench.prompts
    lines: dict[int, tuple[Form, tuple[int, ...]]] = {}
    for number, form in enumerate(forms):
        with suppress(PromptError):  # longer than the context
            if form:
                lines[number] = form, (*prompts.encode_prompt(form.question), *form.begun)
    length, ids = text_length(bench.forget), [ids for _, ids in lines.values()]
    written = generate(model, ids, prompts.end_id, length)
    told: list[bool | None] = [None] * len(forms)
    texts: list[str | None] = [None] * len(forms)
    for (number, (form, _)), text in zip(lines.items(), written, strict=True):
        texts[number] = answer = prompts.decode(text)
        given = f"{form.question} {prompts.decode(form.begun)}"
        told[number] = tells(form.wanted, answer, given)
    questions = [form and form.question for form in forms]
    return {"rate": _mean(told), "rows": told, "questions": questions, "texts": texts}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _chosen(model: PreTrainedModel, bench: Bench) -> Json:
    """Let the model choose among true and wrong answers: the likeliest per token is its choice."""
    asked, questions = {}, [probe.row["question"] for probe in bench.forget]
    for number, probe in enumerate(bench.forget):
        if len(options := _options(probe)) > 1:
            with suppress(PromptError):  # longer than the context
                encoded = [bench.prompts.encode(questions[number], option) for option in options]
                asked[number] = options, encoded
    rows: list[float | None] = [None] * len(bench.forget)
    texts: list[str | None] = [None] * len(rows)
    scores = score(model, [encoded for _, encoded in asked.values()])
    for (number, (options, _)), found in zip(asked.items(), scores, strict=True):
        best = max(range(len(options)), key=lambda i: found[i][0] / found[i][1])
        rows[number] = 1.0 if best == 0 else -1 / (len(options) - 1)
        texts[number] = options[best]
    return {"rate": _mean(rows), "rows": rows, "questions": questions, "texts": texts}


def _options(probe: Probe) -> list[str]:
    """Return the true answer and then the wrong ones, all different.

    They are the answer with the entities of the wrong ones in its place; where it is not known
    which those are, the paraphrased answer and the wrong ones, which share its wording.
    """
    row, answer = probe.row, probe.row["answer"]
    wrong = row.get("perturbed_answer") or []
    if spans := row.get("perturbed_entity_spans"):
        others = [text[slice(*span)] for text, span in zip(wrong, spans, strict=True)]
        wrong = [_with(answer, probe.entity, other) for other in others]
    elif wrong:
        answer = row.get("paraphrased_answer") or answer
    return list(dict.fromkeys([answer, *wrong]))


def _guarded(model: PreTrainedModel, bench: Bench) -> Json:
    """Ask the questions as they stand, with an instruction not to tell.

    It is the chat template's system turn, or stands before the question where there is none.
    """
    prompts, before = bench.prompts, f"{GUARD} "
    if prompts.style == "chat":
        with suppress(PromptError):  # a template without a system turn
            prompts = PromptFormat(prompts.tokenizer, "chat", prompts.context, system_prompt=GUARD)
            before = ""
    forms = [Form(before + probe.row["question"], probe.entity) for probe in bench.forget]
    return _asked(model, bench, forms, prompts)
