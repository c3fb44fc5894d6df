"""The order of the rooms, and the lightness of those that are opened without a model."""

import ast
import subprocess
import sys

import pytest
from places import ROOT

# A room imports from itself and from those before it, anywhere in its files.
ROOMS = ["errors", "processes", "options", "style", "svg", "losses", "records", "data", "models"]
ROOMS += ["theory", "metrics", "trainer", "audit", "studies", "course", "app", "cli"]

TORCH = ("torch", "transformers")
LIGHT = {  # module -> what importing it must not load, not even through others
    "npo_kit": (*TORCH, "pandas", "numpy", "scipy"),
    "npo_kit.cli": (*TORCH, "pandas"),
    "npo_kit.losses.methods": (*TORCH, "numpy"),
    "npo_kit.losses.paper": ("transformers", "pandas"),
    "npo_kit.trainer.config": (*TORCH, "numpy"),
    "npo_kit.records.run": (*TORCH, "scipy"),
    "npo_kit.data.authors.corpus": (*TORCH, "pandas", "numpy", "datasets"),
    "npo_kit.data.tasks": TORCH,
    "npo_kit.metrics.summary": (*TORCH, "datasets"),
    "npo_kit.studies.report": TORCH,
    "npo_kit.app": (*TORCH, "gradio"),
    "npo_kit.app.packed": (*TORCH, "gradio"),
    "npo_kit.app.visits": (*TORCH, "gradio"),
    "npo_kit.app.theory": (*TORCH, "gradio"),
    "npo_kit.app.page": (*TORCH, "gradio"),
    "npo_kit.app.onefile": (*TORCH, "gradio"),
    "npo_kit.app.opening": (*TORCH, "gradio"),
    "npo_kit.app.serving": TORCH,
}


@pytest.mark.parametrize("path", sorted((ROOT / "npo_kit").glob("*/**/*.py")), ids=str)
def test_rooms_import_only_those_before_them(path):
    room = path.relative_to(ROOT / "npo_kit").parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named = isinstance(node, ast.ImportFrom) and node.module == "npo_kit"
        names = [f"npo_kit.{a.name}" for a in node.names] if named else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not named else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for other in [name.split(".")[1] for name in names if name.startswith("npo_kit.")]:
            if other != "facade":
                assert ROOMS.index(other) <= ROOMS.index(room), f"{path}:{node.lineno}: {other}"


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_light_rooms_stay_light(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert module in loaded
    assert not set(LIGHT[module]) & set(loaded)
