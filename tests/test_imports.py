"""The house's floors: imports go downwards, heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "npo_kit"

FLOORS = {
    "errors": 0,
    "shipped": 0,
    "provenance": 0,
    "processes": 0,
    "records": 1,
    "losses": 1,
    "authors_lexicon": 1,
    "authors_phrases": 1,
    "authors_facts": 1,
    "row_scores": 1,
    "prompts": 1,
    "adapters": 1,
    "load_errors": 1,
    "recompute": 1,
    "ranks": 1,
    "models": 2,
    "authors": 2,
    "rows": 2,
    "eval_files": 2,
    "checkpoints": 2,
    "run_folders": 2,
    "logistic": 2,
    "data": 3,
    "runs": 3,
    "synthetic_problem": 3,
    "official_logs": 3,
    "synthetic": 4,
    "metrics": 4,
    "official_writer": 5,
    "theorems": 4,
    "batching": 2,
    "scoring": 4,
    "generation": 4,
    "look": 1,
    "plots": 5,
    "experiment": 6,
    "evaluation": 5,
    "config": 6,
    "events": 3,
    "run_plan": 7,
    "roles": 8,
    "trainer": 9,
    "workload": 8,
    "calibration": 9,
    "estimates": 10,
    "study": 8,
    "study_plans": 7,
    "presets": 8,
    "recording": 10,
    "resuming": 4,
    "pocket": 10,
    "study_jobs": 9,
    "study_maker": 11,
    "dry_run": 12,
    "report": 9,
    "exercises": 1,
    "study_plots": 5,
    "widgets": 7,
    "published": 1,
    "model_sizes": 1,
    "pack": 9,
    "app.live": 10,
    "app.theory": 10,
    "app.recipes": 11,
    "app.visits": 11,
    "app.job": 12,
    "app.page": 12,
    "app": 13,
    "study_commands": 13,
    "commands": 14,
    "cli": 15,
    "__init__": 0,  # loads the others when they are asked for
}
SIDEWAYS: set[tuple[str, str]] = set()  # exceptions, each with its reason

# What a module may not reach, even through others: a recorded study opens fast.
LIGHT = {
    "npo_kit": ("torch", "transformers", "pandas", "numpy", "scipy"),
    "npo_kit.authors": ("torch", "transformers", "pandas", "numpy", "datasets"),
    "npo_kit.runs": ("torch", "transformers", "scipy"),
    "npo_kit.metrics": ("torch", "transformers", "datasets"),
    "npo_kit.data": ("torch", "transformers"),
    "npo_kit.study": ("torch", "transformers"),
    "npo_kit.pack": ("torch", "transformers", "gradio"),
    "npo_kit.app": ("torch", "transformers", "gradio"),
    "npo_kit.app.live": ("torch", "transformers", "gradio"),
    "npo_kit.app.visits": ("torch", "transformers", "gradio"),
    "npo_kit.app.theory": ("torch", "transformers", "gradio"),
    "npo_kit.app.page": ("torch", "transformers"),
    "npo_kit.losses": ("transformers", "pandas"),
    "npo_kit.cli": ("torch", "transformers", "pandas"),
}


def name_of(path: Path) -> str:
    """The module in a file, without the package's name: `losses`, `app`, `app.page`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 else [p for p in parts if p != "__init__"])


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, at its top or within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "npo_kit":
            found |= {f"npo_kit.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_imports_go_downwards(path):
    mine = name_of(path)
    assert mine in FLOORS, f"give {mine} a floor"
    for name in imported(path):
        other = name.removeprefix("npo_kit.")
        if name.startswith("npo_kit.") and (mine, other) not in SIDEWAYS:
            assert FLOORS[other] < FLOORS[mine], f"{mine} may not import {other}"


def test_only_the_page_knows_gradio():
    users = {name_of(path) for path in PACKAGE.rglob("*.py") if "gradio" in imported(path)}
    assert users == {"app.page"}


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_light_modules_stay_light(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert module in loaded
    assert not set(LIGHT[module]) & set(loaded)


def test_only_scoring_calls_a_model():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "model" or path.stem == "scoring", f"{path}:{node.lineno}"


def test_everything_named_for_the_user_is_there():
    import npo_kit

    for name in npo_kit.__all__:
        assert getattr(npo_kit, name).__doc__ or name == "METHODS"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = npo_kit.nothing
