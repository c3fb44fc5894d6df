"""What a run computes, counted exactly: steps, tokens, forwards, evaluations, generations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain

from transformers import PreTrainedModel

from npo_kit import losses
from npo_kit.data.prompts import Encoded, PromptFormat, length_sorted
from npo_kit.data.tasks import Row, Task
from npo_kit.models.loading import choose_placement, context_length
from npo_kit.trainer.config import TrainConfig, UnlearnConfig
from npo_kit.trainer.plan import RunPlan, rows_to_read


class Workload:
    """What a run computes, counted from its rows and batches."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer,
        task: Task,
        config: TrainConfig,
        rows: Sequence[Row] | None = None,
        prompt_format: PromptFormat | None = None,
    ):
        unlearning = isinstance(config, UnlearnConfig)
        self.model, self.task, self.config = model, task, config
        self.method = config.composed if unlearning else losses.FINETUNE
        by_role = rows_to_read(task, config) if unlearning else {"retain": rows or task.full}
        self.format = prompt_format or PromptFormat(tokenizer, config.prompt, context_length(model))
        self.precision = choose_placement(model.device, config.precision, model.dtype).precision
        self.plan = RunPlan(self.method, by_role, self.format, config)
        self.encoded, self.batches = self.plan.encoded, self.plan.batches

    # --- counts ---

    def _roles(self, objectives: Sequence[Callable]) -> list[str]:
        """Roles that the policy reads for these objectives."""
        wanted = {role for objective in objectives for role in losses.roles(objective)}
        return [role for role in self.encoded if {role, f"{role}_ref"} & wanted]

    def _fed(self, roles: Sequence[str]) -> int:
        """Tokens of these roles over all steps; nothing is predicted from an end token."""
        fed = {role: [len(e.ids) - 1 for e in self.encoded[role]] for role in roles}
        return sum(fed[role][i] for batch in self.batches for role in roles for i in batch[role])

    @cached_property
    def trained_tokens(self) -> int:
        return self._fed(self._roles(list(self.method.terms.values())))

    @cached_property
    def read_tokens(self) -> int:
        """Without gradient: the reference's log-probs, once, and what is read in every step."""
        remembered = {role for role in self.encoded if f"{role}_ref" in self.method.roles}
        once = sum(len(e.ids) - 1 for r in remembered - {"retain"} for e in self.encoded[r])
        again = sum(self._fed(self._roles([each])) for each in self.method.statistics.values())
        return once + again + (self._fed(["retain"]) if "retain" in remembered else 0)

    @cached_property
    def evaluations(self) -> int:
        return len(self.plan.evaluated)

    @property
    def whole_evaluations(self) -> float:
        """Evaluations, those on `intermediate_rows` counted as the share that they are."""
        config, few = self.config.evaluation, self.config.intermediate_rows
        if few is None or self.evaluations < 3:
            return self.evaluations
        rows = [len(config.rows_of(of_set)) for of_set in self.task.evaluation.values()]
        return 2 + (self.evaluations - 2) * sum(min(few, n) for n in rows) / sum(rows)

    @cached_property
    def questions(self) -> list[list[Encoded]]:
        """The encoded answers to each question of an evaluation."""
        config = self.config.evaluation
        rows = chain(*map(config.rows_of, self.task.evaluation.values())) if config else ()
        return [
            [
                self.format.encode(row["question"], text)
                for text in [row["answer"], row.get("paraphrased_answer")]
                + (row.get("perturbed_answer") or [])
                if text is not None
            ]
            for row in rows
        ]

    def decoded(self) -> tuple[int, int]:
        """Tokens that batches of generations take, one after the other: fewest, most."""
        config = self.config.evaluation
        prompts = [answers[0].prompt_length for answers in self.questions]
        batches = length_sorted(prompts, config.batch_size) if config.max_new_tokens else []
        longest = [max(self.questions[i][0].answer_length for i in batch) for batch in batches]
        fewest = sum(min(length, config.max_new_tokens) for length in longest)
        return fewest, len(batches) * config.max_new_tokens

    @cached_property
    def prompt_tokens(self) -> int:
        """Of an evaluation, each prompt once."""
        return sum(answers[0].prompt_length for answers in self.questions)

    @property
    def judged(self) -> bool:
        """Whether generations are scored under the original, which is held for it."""
        config = self.config.evaluation
        return (
            bool(config and config.fluency and config.max_new_tokens)
            and self.plan.driver == "forget"
        )

    def generated(self, longest: bool) -> int:
        """Tokens of an evaluation's generations: as many as the true answers have, or the most."""
        config = self.config.evaluation
        if longest:
            return len(self.questions) * config.max_new_tokens
        answers = (row[0].answer_length for row in self.questions)
        return sum(min(length, config.max_new_tokens) for length in answers)

    def micro_batches(self) -> list[dict[str, list[Encoded]]]:
        """The rows of each training forward, by role."""
        roles, found = self._roles(list(self.method.terms.values())), []
        for batch in self.batches:
            lengths = [len(self.encoded[self.plan.driver][i].ids) for i in batch[self.plan.driver]]
            for places in length_sorted(lengths, self.config.micro_batch_size):
                found.append(
                    {r: [self.encoded[r][batch[r][place]] for place in places] for r in roles}
                )
        return found
