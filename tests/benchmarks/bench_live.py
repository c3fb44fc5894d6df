"""Measure what a visitor of the live view waits for, in a real browser, its load included.

    python tests/benchmarks/bench_live.py pair --repeats 3
    python tests/benchmarks/bench_live.py secret --repeats 3

Pair: gradient ascent and NPO+RT on the pocket model, 100 steps each; the time from Start to the
first text of both, and until both are finished. Secret: the page's example; the time from Teach
until it is taught, and from Unlearn until both methods have unlearned it. Each repetition has a
server of its own, whose processes had `--ready` seconds to get ready. Beside the times: the memory
of each waiting process, and the load of the machine before.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from browser import READY, browser, served

TEXTS = """[...document.querySelectorAll('[data-live-columns] .text')]
  .filter((text) => text.textContent && text.textContent !== '…').length === 2"""
DONE = "(document.querySelector('[data-progress]').innerText.match(/finished/g) || []).length === 2"
PHASE = "document.querySelector('[data-secret]').dataset.phase === '{}'"
PAIR = (("start", {"first text": TEXTS, "done": DONE}),)
SECRET = (
    ("teach", {"taught": PHASE.format("taught")}),
    ("unlearn", {"unlearned": PHASE.format("finished")}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("pair", "secret"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ready", type=float, default=30.0, help="seconds before the start")
    options = parser.parse_args()
    print(f"load of the machine: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    times: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        with served() as (address, process), browser() as window:
            measure(window, address, process.pid, options, times)
    for name, seconds in times.items():
        told = ", ".join(f"{each:.1f}" for each in seconds)
        print(f"{name:12} median {statistics.median(seconds):5.1f} s of {told}")


def measure(window, address, server, options, times) -> None:
    page = window.new_context(viewport={"width": 1280, "height": 900}).new_page()
    opened = time.perf_counter()
    page.goto(f"{address}#view=live")
    page.wait_for_selector(READY)
    times.setdefault("page open", []).append(time.perf_counter() - opened)
    time.sleep(options.ready)
    print("waiting processes, MB:", [round(each) for each in memory_of_children(server)])
    for action, marks in PAIR if options.what == "pair" else SECRET:
        started = time.perf_counter()
        page.click(f"[data-action={action}]")
        for name, true in marks.items():
            page.wait_for_function(true, polling=20, timeout=600_000)
            times.setdefault(name, []).append(time.perf_counter() - started)


def memory_of_children(server: int) -> list[float]:
    """Resident megabytes of the processes that a server has started; empty without /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue  # it has ended
        values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if int(values["PPid"]) == server and "VmRSS" in values:
            found.append(int(values["VmRSS"].split()[0]) / 1024)
    return found


if __name__ == "__main__":
    main()
