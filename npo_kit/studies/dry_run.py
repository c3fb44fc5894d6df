"""The cost of a study before it is made: steps, tokens, time and memory of every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from npo_kit.data.tasks import Row, Task, load_task
from npo_kit.models.errors import ModelError
from npo_kit.models.loading import load_model
from npo_kit.models.sizes import readable_bytes
from npo_kit.studies.jobs import Job, grid_jobs, model_jobs, runs_of, tuning_jobs
from npo_kit.studies.plan import MODELS, StudyPlan
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.estimates import Estimate, calibrate, estimate, readable_time
from npo_kit.trainer.loop import total_steps

LINE = "{:44s} {:>6s} {:>13s} {:>6s} {:>9s} {:>9s}"


@dataclass(frozen=True)
class Planned:
    """One run of a study that is not made yet."""

    name: str
    steps: int
    estimate: Estimate | None  # None for an evaluation, and where the model is not at hand
    seconds: float | None

    def __str__(self) -> str:
        made, seconds = self.estimate, self.seconds
        counts = (f"{made.tokens:,}", f"{made.evaluations}") if made else ("-", "-")
        time = "-" if seconds is None else readable_time(seconds)
        memory = readable_bytes(made.memory_bytes) if made else "-"
        return LINE.format(self.name, f"{self.steps:,}", *counts, time, memory)


def dry_run(plan: StudyPlan, say: Callable[[str], None] = print) -> list[Planned]:
    """Say what making `plan` would take, run by run and in all; nothing is made.

    Calibrated once, on the model that is to be fine-tuned or unlearned. Where it cannot be loaded
    here, the runs and their steps are said, and why there is no more.
    """
    task, estimated, problem = cache(load_task), None, None
    try:
        estimated = _estimator(plan, task)
    except ModelError as error:
        problem = error
    planned: list[Planned] = []
    say(plan.title)
    say(LINE.format("run", "steps", "tokens", "evals", "time", "memory"))
    for job in jobs_of(plan):
        planned.append(_planned(job, task(job.task_name), estimated))
        say(str(planned[-1]))
    runs = _extent(planned)
    if not estimated:
        say(f"{runs}; for the rest the model is needed: {problem}")
        return planned
    made = [each.estimate for each in planned if each.estimate]
    seconds = readable_time(sum(each.seconds or 0 for each in planned))
    memory = readable_bytes(max(each.memory_bytes for each in made))
    say(
        f"{runs}: about {seconds} one after the other on {made[0].device}, {memory} at the most "
        "for a run"
    )
    return planned


def extent(plan: StudyPlan) -> str:
    """Say how many runs and steps a plan has; no model is loaded."""
    task = cache(load_task)
    return _extent([_planned(job, task(job.task_name), None) for job in jobs_of(plan)])


def _extent(planned: Sequence[Planned]) -> str:
    return f"{len(planned)} runs, {sum(each.steps for each in planned):,} steps"


def jobs_of(plan: StudyPlan) -> Iterator[Job]:
    """Every run that a plan makes, once; of settings that its grid will choose, the first."""
    work, seen = Path(), set()
    first: dict[str, UnlearnConfig] = {}
    yield from tuning_jobs(plan, work)
    for task in plan.choosing:
        grid = grid_jobs(plan, task, work)
        first = {method: jobs[0].config for method, jobs in grid.items()} or first
        more = [job for _, job in runs_of(plan, task, first, work)]
        for job in [*model_jobs(plan, task, work), *(j for js in grid.values() for j in js), *more]:
            if job.name not in seen and not job.reference:
                seen.add(job.name)
                yield job


def _estimator(plan: StudyPlan, task: Callable[[str], Task]):
    """Load the model of a plan and measure it on its first unlearning; return what estimates a job.

    It takes the job and the rows to fine-tune on; of a job that evaluates a model, it estimates an
    unlearning that is evaluated before and after.
    """
    model, tokenizer = load_model(plan.start or plan.original, quantize=plan.quantize)
    how = plan.common.prompt_format(tokenizer, model)
    first = next(job for job in jobs_of(plan) if isinstance(job.config, UnlearnConfig))
    rates = calibrate(model, tokenizer, task(first.task_name), first.config, prompt_format=how)
    evaluated = replace(first.config, evaluate_every=None)

    def estimated(job: Job, rows: list[Row] | None) -> Estimate:
        config, of = job.config or evaluated, task(job.task_name)
        return estimate(model, tokenizer, of, config, rows=rows, rates=rates, prompt_format=how)

    return estimated


def _planned(job: Job, task: Task, estimated: Callable[..., Estimate] | None) -> Planned:
    tunes = isinstance(job.config, FinetuneConfig)
    rows = job.tuning_rows(task) if tunes else None
    made = estimated(job, rows) if estimated else None
    if not job.config:
        return Planned(job.name, 0, None, made.evaluation_seconds / 2 if made else None)
    name = f"{MODELS}/{job.name}" if tunes else job.name  # evaluated, it has the plain name
    steps = total_steps(job.config, len(rows or task.forget))
    return Planned(name, steps, made, made.seconds if made else None)
