"""Workers end with the process that started them, however it ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, time
from npo_kit.processes import start_workers
if __name__ == "__main__":
    pool = start_workers()
    pool.submit(os.getpid)
    print(*pool._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    started = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(started.stdout.readline())
    assert _lives(worker)
    started.kill()
    started.wait()
    started.stdout.close()
    deadline = time.monotonic() + 60
    while _lives(worker):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{process}")
