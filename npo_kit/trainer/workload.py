"""The work of a run: the rows that it reads, how often, and their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain

from npo_kit import losses
from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.tasks import Row, Task
from npo_kit.losses.methods import Method
from npo_kit.losses.objectives import asked
from npo_kit.metrics.evaluation import encoded_answers
from npo_kit.metrics.passages import Writing, writing
from npo_kit.models.batching import length_sorted
from npo_kit.trainer.config import TrainConfig, UnlearnConfig
from npo_kit.trainer.plan import RunPlan, rows_to_read


def fed(rows: Iterable[Encoded]) -> int:
    """Count the tokens that a model is fed: all but the end tokens, which predict nothing."""
    return sum(len(encoded.ids) - 1 for encoded in rows)


class Workload:
    """The rows that a run reads in its forwards and in an evaluation, and their tokens."""

    def __init__(
        self, task: Task, config: TrainConfig, prompts: PromptFormat, rows: Sequence[Row] | None
    ):
        unlearning = config if isinstance(config, UnlearnConfig) else None
        self.combine = unlearning.combine if unlearning else "sum"
        self.task, self.config, self.prompts = task, config, prompts
        self.method = unlearning.composed if unlearning else losses.FINETUNE
        by_role = rows_to_read(task, unlearning) if unlearning else {"retain": rows or task.full}
        self.plan = RunPlan(self.method, by_role, prompts, config)
        self.passes = _passes(self.method, self.combine)
        self.forwards = list(chain(*map(self._forwards, self.passes)))
        self.judges = bool(unlearning and config.evaluation and config.evaluation.judges)
        self.compares = bool(self.method.live_refs)  # with a frozen copy, in every step

    def _forwards(self, objectives: Iterable[Callable]) -> list[dict[str, list[Encoded]]]:
        """Return the rows by role that these objectives need, for each forward of all steps."""
        plan, encoded = self.plan, self.plan.encoded
        wanted = {role for objective in objectives for role in losses.roles(objective)}
        roles = [role for role in encoded if {role, f"{role}_ref"} & wanted]
        found = []
        for batch in plan.batches:
            lengths = [len(encoded[plan.driver][row].ids) for row in batch[plan.driver]]
            for places in length_sorted(lengths, self.config.micro_batch_size):
                found.append({r: [encoded[r][batch[r][place]] for place in places] for r in roles})
        return found

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Tokens fed in each training forward, and answer tokens whose logits are in memory."""
        sizes = []
        for forward in self.forwards:
            rows = list(chain(*forward.values()))
            wide = [role.removesuffix("_ref") for role in self._distributions]
            kept = [encoded for role in wide for encoded in forward.get(role, ())]
            sizes.append((fed(rows), sum(e.answer_length for e in rows + kept)))
        return sizes

    @cached_property
    def _distributions(self) -> list[str]:
        """The roles whose whole distributions a term compares, policy's and reference's."""
        asking = [f for f in self.method.terms.values() if "logits" in asked(f)]
        return [role for objective in asking for role in losses.roles(objective)]

    @cached_property
    def read_tokens(self) -> int:
        """Tokens read without gradient: for the reference's log-probs, once, and in every step."""
        encoded = self.plan.encoded
        live, refs = self.method.live_refs, {r for r in self.method.roles if r.endswith("_ref")}
        read = [encoded[role.removesuffix("_ref")] for role in refs - live]
        again = [role.removesuffix("_ref") for role in live]
        read += [forward.get(role, []) for forward in self.forwards for role in again]
        forget = self.method.terms.get("forget")
        for statistic in self.method.means.values():
            of_pass = [[*chain(*forward.values())] for forward in self._forwards([statistic])]
            read += of_pass * sum(forget in objectives for objectives in self.passes)
        return sum(map(fed, read))

    @cached_property
    def _evaluated(self) -> list[Row]:
        config, sets = self.config.evaluation, self.task.evaluation.values()
        return list(chain(*map(config.rows_of, sets))) if config else []

    @cached_property
    def questions(self) -> list[list[Encoded]]:
        """The encoded answers to each question of an evaluation, the true one first."""
        return [encoded_answers(row, self.prompts) for row in self._evaluated]

    @cached_property
    def writings(self) -> list[Writing]:
        """The texts that an evaluation has written: prompt and most tokens of each row."""
        most = self.config.evaluation.max_new_tokens if self.config.evaluation else 0
        return [writing(row, self.prompts, most) for row in self._evaluated]

    def evaluation_tokens(self, longest: bool) -> tuple[float, float]:
        """Count the tokens that all evaluations read, and those they generate one after the other.

        They read a question once for all its answers, and again with the text if that is judged. A
        text is as long as the true answer, or with `longest` as `max_new_tokens`. Evaluations on
        `intermediate_rows` count by their share of the rows.
        """
        config, count = self.config.evaluation, len(self.plan.evaluated)
        if not self.questions or not config:
            return 0, 0
        prompts = [len(asked.prompt) for asked in self.writings]
        pairs = zip(self.writings, self.questions, strict=True)
        texts = [w.most if longest else min(w.most, a[0].answer_length) for w, a in pairs]
        read = sum(answers[0].prompt_length for answers in self.questions)
        read += sum(e.answer_length for answers in self.questions for e in answers)
        read += sum(prompts) + sum(texts) if self.judges else 0
        batches = length_sorted(prompts, config.batch_size)
        decoded = sum(max(texts[row] for row in batch) for batch in batches)
        few = self.config.intermediate_rows or len(prompts)
        used = map(config.rows_of, self.task.evaluation.values())
        share = sum(min(few, len(rows)) for rows in used) / len(prompts)
        whole = min(count, 2) + max(count - 2, 0) * share  # the first and the last are whole
        return whole * read, whole * decoded


def _passes(method: Method, combine: str) -> list[list[Callable]]:
    """Return the objectives that each pass over a batch reads; combiners take the terms apart."""
    terms = method.terms
    if combine == "sum":
        return [list(terms.values())]
    return [[terms["forget"]]] * (2 if combine == "sam" else 1) + [[terms["retain"]]]
