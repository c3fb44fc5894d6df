"""What making a study would take: every run with steps, tokens, time and memory, nothing made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.tasks import Task, load_task
from npo_kit.models.loading import ModelError, context_length, load_model
from npo_kit.studies.jobs import MODELS, Job, grid_jobs, model_jobs, runs_of, tuning_jobs
from npo_kit.studies.plan import StudyPlan
from npo_kit.trainer.config import FinetuneConfig
from npo_kit.trainer.estimates.totals import (
    Estimate,
    calibrate,
    estimate,
    readable_bytes,
    readable_time,
)
from npo_kit.trainer.loop import total_steps

LINE = "{:44s} {:>6s} {:>13s} {:>6s} {:>9s} {:>9s}"


@dataclass(frozen=True)
class Planned:
    """One run of a study that is not made yet."""

    name: str
    steps: int
    estimate: Estimate | None  # None for an evaluation, and where the model is not at hand
    seconds: float | None


class _Remembering(PromptFormat):
    """Encodes a text once: many runs read the same rows."""

    def encode(self, question: str, answer: str) -> Encoded:
        known = self.__dict__.setdefault("_known", {})
        if (question, answer) not in known:
            known[question, answer] = super().encode(question, answer)
        return known[question, answer]


def dry_run(plan: StudyPlan, say: Callable[[str], None] = print) -> list[Planned]:
    """Say what making `plan` would take, run by run and in all; nothing is made.

    Calibrated once, on the model that is to be fine-tuned or unlearned. Where it cannot be loaded
    here, the runs and their steps are said, and why there is no more.
    """
    planned, problem = [], None
    try:
        measured = _Measured(plan)
    except ModelError as error:
        measured, problem = None, error
    say(plan.title)
    say(LINE.format("run", "steps", "tokens", "evals", "time", "memory"))
    for job in jobs_of(plan):
        one = measured.planned(job) if measured else _unmeasured(job)
        planned.append(one)
        say(_line(one))
    steps = sum(each.steps for each in planned)
    if measured:
        seconds = sum(each.seconds for each in planned)
        memory = max(each.estimate.memory_bytes for each in planned if each.estimate)
        say(
            f"{len(planned)} runs, {steps:,} steps: about {readable_time(seconds)} one after the "
            f"other on {measured.model.device}, {readable_bytes(memory)} at the most for a run"
        )
    else:
        say(f"{len(planned)} runs, {steps:,} steps; for the rest the model is needed: {problem}")
    return planned


def jobs_of(plan: StudyPlan) -> Iterator[Job]:
    """Every run that a plan makes, once; of settings that its grid will choose, the first."""
    work, seen = Path(), set()
    yield from tuning_jobs(plan, work)
    for task in plan.tasks:
        grid = grid_jobs(plan, task, work)
        first = {method: jobs[0].config for method, jobs in grid.items()}
        more = [job for _, job in runs_of(plan, task, first, work)]
        for job in [*model_jobs(plan, task, work), *(j for js in grid.values() for j in js), *more]:
            if job.name not in seen and not job.reference:
                seen.add(job.name)
                yield job


class _Measured:
    """The model, what was measured of it, and the tasks as they are needed."""

    def __init__(self, plan: StudyPlan):
        self.plan = plan
        self.model, self.tokenizer = load_model(plan.start or plan.original, quantize=plan.quantize)
        self.format = _Remembering(self.tokenizer, plan.common.prompt, context_length(self.model))
        self.tasks: dict[str, Task] = {}
        first = next(job for job in jobs_of(plan) if getattr(job.config, "method", None))
        about = {"prompt_format": self.format}
        self.rates = calibrate(
            self.model, self.tokenizer, self.task(first.task_name), first.config, **about
        )

    def task(self, name: str) -> Task:
        if name not in self.tasks:
            self.tasks[name] = load_task(name)
        return self.tasks[name]

    def planned(self, job: Job) -> Planned:
        task = self.task(job.task_name)
        about = {"rates": self.rates, "prompt_format": self.format}
        if job.config:
            rows = _rows(job, task)
            made = estimate(self.model, self.tokenizer, task, job.config, rows=rows, **about)
            return Planned(_name(job), made.steps, made, made.seconds)
        method = next(iter(grid_jobs(self.plan, job.task_name, Path()).values()))[0]
        made = estimate(self.model, self.tokenizer, task, method.config, **about)
        return Planned(_name(job), 0, None, made.evaluation_seconds / max(1, made.evaluations))


def _rows(job: Job, task: Task):
    """What a fine-tuning is on; None for an unlearning."""
    if not isinstance(job.config, FinetuneConfig):
        return None
    return job.tuning_rows(task)


def _unmeasured(job: Job) -> Planned:
    task = load_task(job.task_name)
    rows = _rows(job, task) or task.forget
    return Planned(_name(job), total_steps(job.config, len(rows)) if job.config else 0, None, None)


def _name(job: Job) -> str:
    """Of a run's folder in the study; a model is tuned and evaluated under one name."""
    return f"{MODELS}/{job.name}" if isinstance(job.config, FinetuneConfig) else job.name


def _line(planned: Planned) -> str:
    made, seconds = planned.estimate, planned.seconds
    cells = [planned.name, f"{planned.steps:,}"]
    cells += [f"{made.tokens:,}", f"{made.evaluations}"] if made else ["-", "-"]
    cells += ["-" if seconds is None else readable_time(seconds)]
    return LINE.format(*cells, readable_bytes(made.memory_bytes) if made else "-")
