"""Windows from elsewhere: its paths where they are text, and names that its disks can hold."""

import re
import shlex
from pathlib import PureWindowsPath

import pytest
from places import ROOT

from npo_kit.app import recipes
from npo_kit.app.live import LiveConfig
from npo_kit.app.worker import unlearning
from npo_kit.errors import without_paths
from npo_kit.studies.dry_run import jobs_of
from npo_kit.studies.plan import StudyPlan
from npo_kit.studies.presets import PLANS

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

STUDIES = {name: plan for name in PLANS if isinstance(plan := PLANS[name](), StudyPlan)}


def is_portable(name: str) -> bool:
    """Whether a file or folder may have this name on every system."""
    plain = re.fullmatch(r'[^<>:"/\\|?*\x00-\x1f]*[^<>:"/\\|?*\x00-\x1f. ]', name)
    return bool(plain) and not RESERVED.fullmatch(name)


def test_what_is_portable():
    for name in ("npo_rt-beta0.1", "000012.jsonl.gz", ".lock", "console", "com10"):
        assert is_portable(name), name
    for name in (
        "NUL",
        "aux.json",
        "lpt1",
        "a:b",
        "a?",
        "a.",
        "a ",
        "a\\b",
        "authors:forget10",
        "",
    ):
        assert not is_portable(name), name


@pytest.mark.parametrize("plan", STUDIES.values(), ids=STUDIES)
def test_every_run_of_a_study_has_a_folder_that_windows_can_make(plan):
    names = {job.name for job in jobs_of(plan)}
    assert [name for name in names if not all(map(is_portable, name.split("/")))] == []
    assert len({name.lower() for name in names}) == len(names)  # its disks do not tell case apart


def test_every_file_that_is_shipped_can_be_checked_out_on_windows():
    tops = ("npo_kit", "data", "notebooks", "tests")
    shipped = [path.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*")]
    assert len(shipped) > 100
    assert [path for path in shipped if not is_portable(path.name)] == []
    assert len({str(path).lower() for path in shipped}) == len(shipped)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (r"C:\Users\me\models\mine", "mine"),
        ("D:/models/mine/", "mine"),
        (r"\\server\share\models\mine", "mine"),
        (r"models\mine", r"models\mine"),
        ("locuslab/tofu_ft_phi-1.5", "locuslab/tofu_ft_phi-1.5"),
    ],
)
def test_a_copied_run_names_no_folder_of_a_windows_machine(monkeypatch, model, name):
    monkeypatch.setattr(recipes, "Path", PureWindowsPath)
    config = LiveConfig(method="npo", model=model, task="authors:forget10")
    settings = unlearning(config)
    command, cell = recipes.as_command(config, settings), recipes.as_cell(config, settings)
    assert shlex.split(command)[:3] == ["npo-kit", "unlearn", name]
    assert f"load_model({name!r})" in cell
    for text in (command, cell):
        assert "Users" not in text
        assert "server" not in text


def test_no_path_of_a_windows_server_is_told():
    for place in (
        r"C:\srv\run.json",
        "C:/srv/run.json",
        r"\\host\share\srv\run.json",
        "/srv/run.json",
    ):
        assert without_paths(f"{place} is cut short") == "run.json is cut short"
    for text in ("p >= 0.05 and/or 1/2", r"\beta is 0.1", "authors:forget10", "a: b"):
        assert without_paths(text) == text
