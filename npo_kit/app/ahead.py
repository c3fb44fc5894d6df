"""Reads a study in a process of its own, while the server's own imports Gradio.

`python -m npo_kit.app.ahead FOLDER ...` writes the first study of the page, packed, to its output.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from npo_kit.app.opening import open_studies
from npo_kit.app.packed import Packed, PackedStudy


@contextmanager
def read_ahead(study: PackedStudy, folders: Sequence[str | Path]) -> Iterator[None]:
    """Let another process read `study`, the first in `folders`, and end it with the block.

    Where that fails, the study is read here when it is asked for, with its own errors.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, folders)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # the system has no process to spare
        yield
        return

    def result() -> Packed | None:
        said = process.communicate()[0]
        return pickle.loads(said) if process.returncode == 0 else None

    with process:
        study.read_elsewhere(result)
        try:
            yield
        finally:
            study.read_elsewhere(lambda: None)
            process.kill()


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(open_studies(sys.argv[1:])[0][0].packed()))
