"""What a waiting process loads before anybody asks it for a run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from npo_kit.app.live import LiveConfig
from npo_kit.app.worker import unlearning
from npo_kit.data.tasks import load_task
from npo_kit.metrics.evaluation import evaluate
from npo_kit.models.loading import load_model
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.config import FinetuneConfig
from npo_kit.trainer.loop import finetune

ONE_STEP = FinetuneConfig(epochs=1, batch_size=1, precision="fp32", evaluation=None)


class Prepared:
    """The pocket model, and its evaluation on the usual task.

    The evaluation is the one that a run would begin with. It takes two seconds, so it is left out
    if somebody waits already: `idle` says whether nobody does.
    """

    def __init__(self, idle: Callable[[], bool]):
        usual = LiveConfig()
        self.task, self.first = usual.task, None
        self.model, self.tokenizer = load_model("pocket", device="cpu")
        settings, task = unlearning(usual), load_task(self.task)
        for _ in finetune(copy.deepcopy(self.model), self.tokenizer, task.full[:1], ONE_STEP):
            pass  # what torch imports at the first step of all
        if idle():
            self.first = self._evaluated(settings, task)

    def _evaluated(self, settings, task) -> Evaluation:
        found = evaluate(
            self.model,
            settings.prompt_format(self.tokenizer, self.model),
            task,
            settings.evaluation,
            original=self.model,
            precision=settings.precision,
        )
        return replace(found, step=0, epoch=0.0)
