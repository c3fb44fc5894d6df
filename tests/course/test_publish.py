"""The notebooks where they are published: badge, address, and what their first cell installs."""

import builtins
import importlib.util
import shutil

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from places import ROOT

from notebooks import BADGE, FOLDER, publish

ADDRESS = "https://github.com/someone/npo_kit"
COLAB = "https://colab.research.google.com/github/someone/npo_kit/blob/main/notebooks"


@pytest.fixture
def copy(tmp_path):
    """A copy of what is written to."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(FOLDER, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    return tmp_path


def texts(root):
    paths = [root / "README.md", root / "pyproject.toml", *sorted(root.glob("notebooks/*.ipynb"))]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_an_address_comes_to_its_places_and_can_be_replaced(copy):
    before = texts(copy)
    assert not any("colab-badge" in text for text in before.values())  # no dead badge until then
    publish(copy, ADDRESS + ".git")
    after = texts(copy)
    for path in sorted(copy.glob("notebooks/*.ipynb")):
        first, setup = nbformat.read(path, as_version=4).cells[:2]
        assert f"\n{BADGE}({COLAB}/{path.name})\n" in first.source
        assert f'ADDRESS = "git+{ADDRESS}"' in setup.source
        assert max(map(len, setup.source.splitlines())) <= 100
        assert f"](notebooks/{path.name}) ([Colab]({COLAB}/{path.name}))" in after["README.md"]
    assert len(after["README.md"].splitlines()) == len(before["README.md"].splitlines())
    assert (
        f'[project.urls]\nRepository = "{ADDRESS}"\n\n[project.scripts]' in after["pyproject.toml"]
    )
    publish(copy, ADDRESS + "/")
    assert texts(copy) == after
    publish(copy, "https://github.com/another/kit")
    assert not any("someone/" in text for text in texts(copy).values())
    assert texts(copy)["pyproject.toml"].count("[project.urls]") == 1


@pytest.mark.parametrize("wrong", ["https://example.org/kit", "https://github.com/someone", "kit"])
def test_what_colab_cannot_open_is_refused_and_nothing_written(copy, wrong):
    before = texts(copy)
    with pytest.raises(SystemExit, match=r"give https://github.com/OWNER/NAME"):
        publish(copy, wrong)
    assert texts(copy) == before


class Shell:
    """IPython's part in a cell: runs it, and notes its line magics, {...} filled in."""

    def __init__(self):
        self.magics, self.names = [], {}

    def run_line_magic(self, name, line):
        self.magics.append((name, eval(f"f{line!r}", dict(self.names))))

    def run(self, source):
        exec(TransformerManager().transform_cell(source), self.names)


def installed(monkeypatch, folder, source, here=False):
    """What the first cell, run in a folder, tells pip to install."""
    shell = Shell()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: here or None)
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    shell.run(source)
    assert shell.magics[-1] == ("load_ext", "npo_kit.svg")
    return [line for name, line in shell.magics if name == "pip"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_first_cell_finds_the_kit(monkeypatch, tmp_path, copy, path):
    source = nbformat.read(path, as_version=4).cells[1].source
    monkeypatch.delenv("NPO_KIT_SOURCE", raising=False)
    assert installed(monkeypatch, tmp_path / "notebooks", source, here=True) == []
    assert installed(monkeypatch, tmp_path / "notebooks", source) == ['install -q ".."']
    empty = tmp_path / "empty" / "content"
    empty.mkdir(parents=True)
    with pytest.raises(AssertionError, match=r"put the wheel npo_kit-....whl beside"):
        installed(monkeypatch, empty, source)
    published = source.replace('ADDRESS = ""', f'ADDRESS = "git+{ADDRESS}"')
    assert installed(monkeypatch, empty, published) == [f'install -q "git+{ADDRESS}"']
    (empty / "npo_kit-0.2.0-py3-none-any.whl").touch()
    wheel = 'install -q "npo_kit-0.2.0-py3-none-any.whl"'
    assert installed(monkeypatch, empty, published) == [wheel]
    monkeypatch.setenv("NPO_KIT_SOURCE", "kit.zip")
    assert installed(monkeypatch, empty, published) == ['install -q "kit.zip"']
