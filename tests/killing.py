"""What a process leaves on the disk when it is killed: copies of a folder, made at any moment."""

import os
import random
import shutil
import sys
from pathlib import Path

_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")
_listener = None


def _audit(event, arguments):
    global _listener
    if _listener is None or not arguments or not isinstance(arguments[0], (str, os.PathLike)):
        return
    mode, flags = (*arguments[1:3], None)[:2] if event == "open" else (None, 0)
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event in _WRITES or (event == "open" and (set(mode or "") & set("wxa+") or writes)):
        listener, _listener = _listener, None  # what it does itself does not count
        try:
            listener(Path(arguments[0]))
        finally:
            _listener = listener


sys.addaudithook(_audit)  # for as long as the process lives: Python knows no way back


class Watch:
    """Counts what Python is about to change below `folder`, and copies it at some of the times.

    A copy is what a process killed then would have left, with the files that have no final name
    yet cut at random: their bytes may not all have been written.
    """

    def __init__(self, folder, moments=(), copies=None, seed=0):
        self.folder, self.moments, self.copies = folder, set(moments), copies
        self.count, self.random = 0, random.Random(seed)

    def __enter__(self):
        global _listener
        _listener = self._seen
        return self

    def __exit__(self, *_):
        global _listener
        _listener = None

    def _seen(self, path):
        if self.folder not in (path, *path.parents):
            return
        if self.count in self.moments and self.folder.exists():
            copy = self.copies / f"{self.count:04d}"
            shutil.copytree(self.folder, copy)
            for file in copy.rglob("*"):
                hidden = any(part.startswith(".") for part in file.relative_to(copy).parts)
                if hidden and file.is_file():
                    os.truncate(file, self.random.randint(0, file.stat().st_size))
        self.count += 1
