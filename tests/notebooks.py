"""Runs the notebooks from top to bottom and keeps their outputs; says where they are published.

python tests/notebooks.py                  # all of them
python tests/notebooks.py 02_from_dpo_to_npo
python tests/notebooks.py publish --repository https://github.com/OWNER/NAME
"""

import argparse
import os
import re
import sys
import time
from itertools import pairwise

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from places import ROOT

FOLDER = ROOT / "notebooks"
PATIENCE = 1800  # seconds for a cell, for a kernel to start and for its last outputs to arrive


def executed(notebook, *, fast=False, strict=False, **variables):
    """The notebook with the outputs of a fresh kernel; what a cell raises is raised.

    `variables` are put into its environment. A kernel that dies by itself, as one has when its
    sockets were gone, is replaced once.
    """
    flags = {"NPO_KIT_FAST": str(int(fast)), "NPO_KIT_STRICT": str(int(strict))} | variables
    for is_last in (False, True):
        client = NotebookClient(
            notebook,
            timeout=PATIENCE,
            startup_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            kernel_name="python3",
            resources={"metadata": {"path": str(FOLDER)}},
            store_widget_state=False,
        )
        try:
            client.execute(env=os.environ | flags | {"TQDM_DISABLE": "1"})
            break
        except DeadKernelError:
            if is_last:
                raise
    return notebook


def solved(notebook):
    """The notebook with its exercises' solutions in place of the blanks."""
    cells = notebook.cells
    for blank, after in pairwise(cells):
        if "exercise" in blank.metadata.get("tags", []):
            assert "solution" in after.metadata.get("tags", []), blank.source
            blank.source = after.source.partition("```python\n")[2].partition("```")[0]
    return notebook


def cleaned(notebook):
    """Without what differs from run to run or is of no use to a reader."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
        for output in cell.outputs:
            data = output.get("data", {})
            if "127.0.0.1" in data.get("text/html", ""):
                output.data = {"text/plain": "the page: run the notebook to open it"}
            if "application/vnd.jupyter.widget-view+json" in data:
                data.pop("application/vnd.jupyter.widget-view+json")
                data["text/plain"] = "a widget: run the notebook to move it; its figure is below"
    return notebook


def _is_bar(output):
    """Whether an output is the progress bar of something that is loaded."""
    return "%|" in str(output.get("data", {}).get("text/plain", ""))


# --- where they are published -------------------------------------------------------------------

COLAB = "https://colab.research.google.com"
BADGE = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
NOTEBOOK_LINK = re.compile(r"\]\(notebooks/(\w+\.ipynb)\)( \(\[Colab\]\([^)]*\)\))?")


def publish(root, repository):
    """Write a GitHub repository's address into what lies under `root`, or another one instead.

    Notebooks get a badge and the address that their first cell installs from, README a link to
    Colab beside each notebook, pyproject.toml the repository.
    """
    found = re.fullmatch(r"(https://github\.com/[\w.-]+/[\w.-]+?)(\.git)?/?", repository)
    if not found:
        sys.exit(
            f"Colab opens notebooks on GitHub, and {repository!r} is no address there: give "
            "https://github.com/OWNER/NAME"
        )
    address = found[1]
    colab = f"{COLAB}{address.removeprefix('https:/').replace('/github.com', '/github', 1)}"
    colab += "/blob/main/notebooks"
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        _publish_notebook(path, address, f"{BADGE}({colab}/{path.name})")
    _replace(
        root / "README.md",
        lambda text: NOTEBOOK_LINK.sub(
            lambda link: f"](notebooks/{link[1]}) ([Colab]({colab}/{link[1]}))", text
        ),
    )
    urls = f'[project.urls]\nRepository = "{address}"\n\n'
    _replace(
        root / "pyproject.toml",
        lambda text: re.sub(
            r"(\[project\.urls\]\n(.+\n)*\n)?(?=\[project\.scripts\])", urls, text, count=1
        ),
    )


def _publish_notebook(path, address, badge):
    notebook = nbformat.read(path, as_version=4)
    first, setup = notebook.cells[:2]
    title, *rest = [line for line in first.source.split("\n") if not line.startswith(BADGE)]
    first.source = "\n".join([title, badge, *rest])
    line = f'ADDRESS = "git+{address}"  # where the kit is published'
    setup.source, count = re.subn(r"^ADDRESS = .*$", line, setup.source, flags=re.MULTILINE)
    assert count == 1, path
    nbformat.write(notebook, path)


def _replace(path, change):
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


def main(names):
    if names[:1] == ["publish"]:
        parser = argparse.ArgumentParser(prog="tests/notebooks.py publish")
        parser.add_argument("--repository", required=True, metavar="URL", help="on GitHub")
        return publish(ROOT, parser.parse_args(names[1:]).repository)
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        started = time.perf_counter()
        notebook = cleaned(executed(nbformat.read(path, as_version=4)))
        nbformat.write(notebook, path)
        print(
            f"{path.stem}: {time.perf_counter() - started:.0f} s, {path.stat().st_size // 1024} kB"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
