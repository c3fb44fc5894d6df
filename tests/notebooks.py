"""Runs the notebooks from top to bottom and keeps their outputs.

python tests/notebooks.py                  # all of them
python tests/notebooks.py 02_from_dpo_to_npo
"""

import base64
import io
import os
import sys
import time
from itertools import pairwise

import nbformat
from nbclient import NotebookClient
from PIL import Image
from places import ROOT

FOLDER = ROOT / "notebooks"
PATIENCE = 1800  # seconds for a cell, for a kernel to start and for its last outputs to arrive


def executed(notebook, *, fast=False, strict=False, **variables):
    """The notebook with the outputs of a fresh kernel; what a cell raises is raised.

    `variables` are put into its environment.
    """
    flags = {"NPO_KIT_FAST": str(int(fast)), "NPO_KIT_STRICT": str(int(strict))} | variables
    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        startup_timeout=PATIENCE,
        iopub_timeout=PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        store_widget_state=False,
    )
    client.execute(env=os.environ | flags | {"TQDM_DISABLE": "1"})
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
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
            if "127.0.0.1" in data.get("text/html", ""):
                output.data = {"text/plain": "the page: run the notebook to open it"}
            if "application/vnd.jupyter.widget-view+json" in data:
                data.pop("application/vnd.jupyter.widget-view+json")
                data["text/plain"] = "a widget: run the notebook to move it; its figure is below"
    return notebook


def _is_bar(output):
    """Whether an output is the progress bar of something that is loaded."""
    return "%|" in str(output.get("data", {}).get("text/plain", ""))


def _smaller(png):
    """A figure in base64, its colours counted: a third of the size, and nobody sees it."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    data = io.BytesIO()
    image.quantize(48, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def main(names):
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
