"""The work of a run, counted exactly and with no model at hand: steps, tokens, evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain

from npo_kit import losses
from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.tasks import Row, Task
from npo_kit.metrics.evaluation import encoded_answers
from npo_kit.models.batching import length_sorted
from npo_kit.trainer.config import TrainConfig, UnlearnConfig
from npo_kit.trainer.plan import RunPlan, rows_to_read


def fed(rows: Iterable[Encoded]) -> int:
    """Count the tokens that a model is fed; nothing is predicted from an end token."""
    return sum(len(encoded.ids) - 1 for encoded in rows)


class Workload:
    """The rows that a run reads in its forwards and in an evaluation, and their tokens."""

    def __init__(
        self, task: Task, config: TrainConfig, prompts: PromptFormat, rows: Sequence[Row] | None
    ):
        unlearning, evaluation = isinstance(config, UnlearnConfig), config.evaluation
        self.task, self.config, self.prompts = task, config, prompts
        self.method = config.composed if unlearning else losses.FINETUNE
        by_role = rows_to_read(task, config) if unlearning else {"retain": rows or task.full}
        self.plan = RunPlan(self.method, by_role, prompts, config)
        self.forwards = self._forwards(self.method.terms.values())
        self.judges = unlearning and bool(evaluation and evaluation.judges)
        self.compares = "retain_ref" in self.method.roles  # whole distributions, in every step

    def _forwards(self, objectives: Iterable[Callable]) -> list[dict[str, list[Encoded]]]:
        """The rows by role of each forward, over all steps, that these objectives need."""
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
        """Of each training forward: the tokens fed, and the answer tokens whose logits are held."""
        sizes = []
        for forward in self.forwards:
            rows = list(chain(*forward.values()))
            twice = 2 * forward["retain"] if self.compares else []  # policy's and reference's
            sizes.append((fed(rows), sum(e.answer_length for e in rows + twice)))
        return sizes

    @cached_property
    def read_tokens(self) -> int:
        """Without gradient: the reference's log-probs, once, and what is read in every step."""
        encoded = self.plan.encoded
        refs = {role.removesuffix("_ref") for role in self.method.roles if role.endswith("_ref")}
        read = [encoded[role] for role in refs - {"retain"}]
        read += [forward["retain"] for forward in self.forwards if self.compares]
        for statistic in self.method.means.values():
            read += [chain(*forward.values()) for forward in self._forwards([statistic])]
        return sum(map(fed, read))

    @cached_property
    def questions(self) -> list[list[Encoded]]:
        """The encoded answers to each question of an evaluation, the true one first."""
        config, sets = self.config.evaluation, self.task.evaluation.values()
        rows = chain(*map(config.rows_of, sets)) if config else ()
        return [encoded_answers(row, self.prompts) for row in rows]

    def evaluation_tokens(self, longest: bool) -> tuple[float, float]:
        """Count what all evaluations read, and what they generate one after the other.

        They read a question once for all its answers, and again with the text if that is judged. A
        text is as long as the true answer, or with `longest` as `max_new_tokens`. Evaluations on
        `intermediate_rows` count as the share that they are.
        """
        config, count = self.config.evaluation, len(self.plan.evaluated)
        if not self.questions:
            return 0, 0
        prompts = [answers[0].prompt_length for answers in self.questions]
        most = config.max_new_tokens
        texts = [most if longest else min(most, a[0].answer_length) for a in self.questions]
        read = sum(prompts) + sum(e.answer_length for answers in self.questions for e in answers)
        read += sum(prompts) + sum(texts) if self.judges else 0
        batches = length_sorted(prompts, config.batch_size)
        decoded = sum(max(texts[row] for row in batch) for batch in batches)
        few = self.config.intermediate_rows or len(prompts)
        used = map(config.rows_of, self.task.evaluation.values())
        share = sum(min(few, len(rows)) for rows in used) / len(prompts)
        whole = min(count, 2) + max(count - 2, 0) * share  # the first and the last are whole
        return whole * read, whole * decoded
