"""The wheel is whole: installed away from the checkout it has its data, its models and its page."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from browser import served
from places import ROOT

pytestmark = pytest.mark.slow


def run(*command, cwd):
    """What a command prints, in an environment that knows nothing of the checkout."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    run(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT), cwd=folder
    )
    (path,) = folder.glob("npo_kit-*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """An environment with the wheel and this one's other packages; the folder of its programs."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "env"), cwd=folder)
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    pip = (sys.executable, "-m", "pip", "-q", "--python", python, "install")
    run(*pip, "--no-deps", "--no-index", str(wheel), cwd=folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, cwd=folder).strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_everything_that_is_shipped_is_in_it(wheel):
    inside = zipfile.ZipFile(wheel).NameToInfo
    tracked = run("git", "-C", str(ROOT), "ls-files", "data", "npo_kit", cwd=ROOT).splitlines()
    assert len(tracked) > 100
    for path in tracked:
        name = path.replace("data/", "npo_kit/_data/", 1) if path.startswith("data/") else path
        assert name in inside, name
        assert inside[name].file_size == (ROOT / path).stat().st_size
    assert wheel.stat().st_size < 40e6


def test_it_runs_outside_of_the_checkout(bare, tmp_path):
    code = (
        "import npo_kit, sys\n"
        "from npo_kit.data import load_task\n"
        "from npo_kit.models import load_model\n"
        "from npo_kit.data.shipped import shipped_data\n"
        "model, tokenizer = load_model('pocket')\n"
        "print(npo_kit.__file__)\n"
        "print(shipped_data('studies/pocket'))\n"
        "print(len(load_task('authors:forget10').forget), model.num_parameters())\n"
    )
    *_, module, data, numbers = run(str(bare / "python"), "-c", code, cwd=tmp_path).splitlines()
    for path in module, data:
        assert Path(path).is_relative_to(bare.parent), path
    assert numbers == "120 987008"
    assert "Open the dashboard" in run(str(bare / "npo-kit"), "--help", cwd=tmp_path)
    table = run(str(bare / "npo-kit"), "table", data, cwd=tmp_path)
    assert len(table.splitlines()) > 200


def test_its_page_comes_up_outside_of_the_checkout(bare, tmp_path):
    command = (str(bare / "npo-kit"), "app")
    with served(command=command, cwd=tmp_path):
        pass
