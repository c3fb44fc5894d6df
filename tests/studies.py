"""A small study on disk, made by hand, for the tests of what shows one."""

import math

from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import SCHEMA, atomic_write, dumps
from npo_kit.records.run import RunWriter

HOSTILE = (
    "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    " {{7*7}} ${7*7} \u202eright to left\u202c \x00 &amp; `tick`"
)
SETS = {"forget": 8, "retain": 4, "real_authors": 3, "world_facts": 3}


def row(index, step, shift, generation):
    """One row: the model prefers the truth less with every step, differently per run."""
    logp = -0.01 - 0.05 * step * (1 + 0.1 * index) - shift
    return {
        "index": index,
        "question": f"What does person {index} collect?",
        "answer": f"Person {index} collects old maps.",
        "mean_logp": logp,
        "tokens": 7,
        "paraphrased_mean_logp": logp - 0.5,
        "perturbed_mean_logps": [-2.0 - 0.1 * index, -2.5, -3.0],
        "generation": generation,
        "generation_tokens": 7,
        "rouge_l_recall": max(0.0, 1 - 0.02 * step),
        "rouge_l_f1": max(0.0, 1 - 0.02 * step),
        "rouge_1_recall": max(0.0, 1 - 0.02 * step),
        "repetition_rate": 0.5 if step > 20 else 0.0,
        "distinct_2": 1.0,
        "fluency": -0.1 * step - 0.2,
    }


def evaluation(step, shift=0.0, say=None, broken=False):
    """All four sets at one step."""
    say = say or (lambda name, i: f"{name} {i} says at {step}")
    rows = {
        name: [row(i, step, shift, say(name, i)) for i in range(count)]
        for name, count in SETS.items()
    }
    if broken:
        rows["forget"][0]["mean_logp"] = math.nan
    return Evaluation(rows=rows, step=step, epoch=step / 10, max_new_tokens=32)


def write_run(folder, label, evaluations, **about):
    kind = "unlearn" if "method" in about else "evaluate"
    config, task = about.pop("config", {}), about.pop("task", "own:x")
    with RunWriter.create(
        folder, kind=kind, label=label, config=config, task={"name": task}, **about
    ) as writer:
        for each in evaluations:
            writer.evaluation(each)
        writer.finish("finished")


def write_study(folder):
    """original, retained, ga, npo_rt with a second seed and another beta; a hostile text."""
    answer = lambda _, i: f"Person {i} collects old maps."  # noqa: E731
    write_run(folder / "original", "original", [evaluation(0, say=answer)])
    write_run(folder / "retained", "retained", [evaluation(0, shift=1.5)])
    hostile = lambda name, i: HOSTILE if (name, i) == ("forget", 0) else ""  # noqa: E731
    npo = {"hyper": {"beta": 0.5}, "lr": 8e-4, "epochs": 4.0}
    steps = (0, 10, 20, 30, 40)
    runs = {
        "ga": ("ga", 0, {"hyper": {}, "lr": 2e-4, "epochs": 4.0}),
        "npo_rt": ("npo_rt", 0, npo),
        "npo_rt-seed1": ("npo_rt", 1, npo),
        "npo_rt-beta0.1": ("npo_rt", 0, npo | {"hyper": {"beta": 0.1}}),
    }
    for name, (method, seed, config) in runs.items():
        say = hostile if name == "ga" else None
        made = [
            evaluation(s, 0.01 * seed, say if s else answer, broken=name == "ga" and s == 40)
            for s in steps
        ]
        if name == "ga":  # differs from the others most in question 5
            made[-1].rows["forget"][5]["rouge_l_recall"] = 1.0
        write_run(folder / name, method, made, method=method, seed=seed, config=config)
    names = ["original", "retained", *runs]
    study = {"schema": SCHEMA, "title": "Collectors", "runs": names}
    atomic_write(folder / "study.json", dumps(study))
    return folder
