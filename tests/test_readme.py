"""What the READMEs tell people to type works as written, and what they say is so."""

import gzip
import re
import shlex
import tomllib
from functools import partial

import pandas as pd
import pictures
import pytest
import torch
from conftest import make_model
from places import ROOT

import npo_kit
from npo_kit import losses
from npo_kit.cli import program
from npo_kit.data import tasks
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.listing import facts_table, forget_terms, losses_table
from npo_kit.losses.looks import look_of
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models import loading
from npo_kit.records.evaluations import Evaluation
from npo_kit.studies.report import MADE
from npo_kit.studies.splits import split_runs
from npo_kit.studies.table import study_table
from npo_kit.theory.theorems import divergence_slopes
from npo_kit.trainer import config
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn

README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = ROOT / "data" / "studies"
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("notebooks/*.md")),
    *sorted(ROOT.glob("data/**/*.md")),
]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[str]:
    """Lines of shell blocks, and what stands in the text with an argument or more."""
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    return [line for line in lines if line.startswith("npo-kit ")] + re.findall(
        r"`(npo-kit [a-z]+ [^`]+)`", text.replace("\n", " ")
    )


def test_the_commands_are_ones_that_exist():
    found = {path: commands(path.read_text(encoding="utf-8")) for path in PAGES}
    assert len(found[ROOT / "README.md"]) >= 10
    assert sum(map(len, found.values())) >= 25
    for command in [command for told in found.values() for command in told]:
        options = program._parser().parse_args(shlex.split(command, comments=True)[1:])
        assert callable(options.command)


def anchors(path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_front_door_is_short_and_leads_to_the_course():
    assert len(README.splitlines()) <= 220
    first_screen = README.partition("\n## ")[0]
    assert "data/pictures/answers.svg" in first_screen
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert f"(notebooks/{notebook.name})" in first_screen


def test_the_first_example_unlearns(monkeypatch, tokenizer, task):
    """With a model and rows at hand instead of the hub's, and one epoch."""
    (example,) = [block for block in blocks("python") if "load_tofu" in block]
    monkeypatch.setattr(loading, "load_model", lambda _: (make_model(len(tokenizer)), tokenizer))
    monkeypatch.setattr(tasks, "load_tofu", lambda _: task)
    brief = EvaluationConfig(max_new_tokens=4)
    shorter = partial(UnlearnConfig, epochs=1, batch_size=2, evaluation=brief)
    monkeypatch.setattr(config, "UnlearnConfig", shorter)
    seen: list = []
    exec(example, {"print": seen.append})
    assert [type(item).__name__ for item in seen] == ["Summary", "Step", "Step", "Summary"]
    assert 0 <= seen[-1]["model_utility"] <= 1


def test_adding_a_method_takes_few_lines_and_works(monkeypatch, tokenizer, task):
    (example,) = [block for block in blocks("python") if "METHODS |=" in block]
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 15
    monkeypatch.setattr("npo_kit.losses.methods.METHODS", dict(losses.METHODS))
    names: dict = {}
    exec(example, names)
    settings = UnlearnConfig(
        method="hinge_rt", epochs=3, batch_size=4, micro_batch_size=2, lr=3e-3, evaluation=None,
        warmup_epochs=0, hyper={"margin": 20.0},
    )  # fmt: skip
    steps = list(unlearn(make_model(len(tokenizer)), tokenizer, task, settings))
    assert [type(step) for step in steps] == [Step] * 3
    assert steps[-1].terms["forget"] < steps[0].terms["forget"]

    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    logps = torch.tensor([[-1.0, -1.0, -1.0], [-9.0, 0.0, 0.0]], requires_grad=True)
    forget, ref = Answers(logps, mask, mask), Answers(torch.zeros(2, 3), mask, mask)
    (gradient,) = torch.autograd.grad(reduce(names["hinge"](forget, ref), mask), logps)
    assert gradient.tolist() == [[0.5, 0.5, 0.5], [0, 0, 0]]  # 3 nats below, and 9 of 5


GUIDE = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_methods_are_the_kits():
    papers = losses_table(["ga", "npo", "dpo", "kto", "idk"])
    assert papers in README, f"README is stale, its table is\n{papers}"
    for table in (losses_table(forget_terms()), facts_table()):
        assert table in GUIDE, f"the course guide is stale, its table is\n{table}"


@pytest.mark.parametrize("name", sorted(losses.METHODS))
def test_every_method_is_named_in_the_table(name):
    base, _, suffix = name.partition("_")
    assert f"| `{base}` |" in GUIDE
    assert not suffix or f"`{'_' + suffix}`" in README


def spread(values, form):
    least, most = form(min(values)), form(max(values))
    return least if least == most else f"{least} to {most}"


def results_table() -> str:
    """The table of README: utility kept at the last step, three seeds, from the records."""
    runs = split_runs(study_table(STUDIES / "pocket-splits"))
    last = {record["run"]: record for record in study_table(STUDIES / "smollm2")}
    whole = last["original"]["model_utility"]
    percents = sorted({run.percent for run in runs})
    lines = [
        f"| | {' | '.join(f'pocket, {n} %' for n in percents)} | SmolLM2-135M, 10 % |",
        "|---" * (len(percents) + 2) + "|",
    ]
    for name in ("ga", "npo", "ga_rt", "npo_rt"):
        kept = [
            [r.kept("last") for r in runs if (r.method, r.variant, r.percent) == (name, "", n)]
            for n in percents
        ]
        seeds = [last[f"{name}{seed}"]["model_utility"] for seed in ("", "-seed1", "-seed2")]
        kept.append([utility / whole for utility in seeds])
        assert {len(values) for values in kept} == {3}
        row = [f"{spread(values, lambda v: f'{100 * v:.0f}')} %" for values in kept]
        lines.append(f"| {look_of(name).label} | {' | '.join(row)} |")
    return "\n".join(lines)


def test_the_results_are_the_recorded_ones():
    assert results_table() in README, f"README is stale, its table is\n{results_table()}"


def test_the_picture_is_of_the_recorded_answers():
    path = pictures.PICTURES / "answers.svg"
    assert path.read_text(encoding="utf-8") == pictures.answers_svg(), "run tests/pictures.py"
    told, texts = pictures.facts_told(), pictures.said()
    assert told["forget"] == {"original": 113, "ga": 0, "npo_rt": 1}
    assert told["retain"] == {"original": 113, "ga": 0, "npo_rt": 99}
    for name in ("forget", "retain"):
        assert all(len(set(text.split())) == 1 for text in texts[name]["ga"])
    long = [text.split() for text in texts["forget"]["npo_rt"] if len(text.split()) > 8]
    repeated = sum(len(set(words)) <= 2 for words in long)
    notes = (STUDIES / "pocket" / "notes.md").read_text(encoding="utf-8")
    assert f"in {repeated} of the 120 it repeats a word too" in notes
    assert "says 99 of the 120 facts to keep (the original 113) and 1 of the 120 to" in notes


def test_the_synthetic_numbers_are_the_recorded_ones():
    folder = STUDIES / "synthetic"
    page = (folder / "README.md").read_text(encoding="utf-8")
    frames = {}
    for name in ("unlearning", "divergence", "limit"):
        with gzip.open(folder / f"{name}.csv.gz") as file:
            frames[name] = pd.read_csv(file)
    runs = frames["unlearning"].query("alpha == 0 and step == 1900")
    mean = runs.groupby("method").forget_distance.mean()
    methods = ["ga", "ga_rt", "idk_rt", "npo", "dpo_rt", "npo_rt"]
    assert f"| {' | '.join(look_of(name).label for name in methods)} |" in page
    assert f"| {' | '.join(f'{mean[name]:.3f}'[1:] for name in methods)} |" in page
    slopes = divergence_slopes(frames["divergence"]).set_index("method").slope
    assert f"GA {slopes['ga']:.4f}".replace("0.", ".") in page
    assert f"NPO {', '.join(f'{slope:.2f}' for slope in slopes['npo'])} per" in page
    small = frames["limit"].query("beta <= 0.03")
    assert (small.loss_gap / small.loss_gap_expected - 1).abs().max() < 5e-5


def test_sizes_of_the_shipped_folders():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[?`([\w./-]+)`.*?\| ([\d.]+) \|", page, flags=re.MULTILINE)
    assert len(rows) == 12
    for name, said in rows:
        path = ROOT / "data" / name
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        assert abs(sum(p.stat().st_size for p in files) / 1e6 - float(said)) < 0.1, name


def test_a_studys_page_is_written_and_nothing_else_is_lost(tmp_path, capsys):
    theirs = tmp_path / "README.md"
    theirs.write_text("# Mine\n", encoding="utf-8")
    command = ["report", str(STUDIES / "pocket"), "--out"]
    assert program.main([*command, str(theirs)]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert theirs.read_text(encoding="utf-8") == "# Mine\n"
    for _ in range(2):  # what it made itself is replaced
        assert program.main([*command, str(tmp_path / "study.md")]) == 0
    made = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert made == (STUDIES / "pocket" / "README.md").read_text(encoding="utf-8")
    assert MADE in made


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == npo_kit.__version__
    assert f"\nversion: {npo_kit.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"**{npo_kit.__version__}**" in README.partition("## Changelog")[2]
    space = (ROOT / "app.py").read_text(encoding="utf-8")
    (gradio,) = re.findall(r"sdk_version: (\S+)", space)
    assert f"\ngradio=={gradio}\n" in (ROOT / "requirements.txt").read_text()


def test_every_room_has_its_line():
    table = README.partition("## The rooms")[2].partition("\n## ")[0]
    for path in (ROOT / "npo_kit").iterdir():
        if not path.name.startswith("_") and path.name != "py.typed":
            assert f"| `{path.name}" in table, path.name


def test_no_placeholder_is_left():
    assert not re.search(r"^[A-Z_]{5,}$", README, flags=re.MULTILINE)


def test_exported_names_are_used_in_the_readme_as_they_are():
    for name in re.findall(r"from npo_kit import ([^\n]+)", README):
        for part in name.split(", "):
            assert part in npo_kit.__all__
    assert Evaluation is npo_kit.Evaluation
