"""Measure the dashboard: how fast the page answers to a hand, and to many visitors at a time.

    python tests/benchmarks/bench_dashboard.py latency
    python tests/benchmarks/bench_dashboard.py load --visitors 30 --training 4 --seconds 30

Latency: medians over repeated actions in a real browser. Load: visitors who open the page and then
look at another question twice a second, while others train a pair of models each; the time until a
recorded view's answer is there, from a client on the same machine.
"""

import argparse
import json
import random
import statistics
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from browser import browser, served

IN_PAGE = """async ([repeats, source]) => {
  const act = new Function('i', source), times = [];
  for (let i = 0; i < repeats; i++) {
    const started = performance.now(); act(i); times.push(performance.now() - started);
    await new Promise((done) => requestAnimationFrame(done));
  }
  return times;
}"""
SLIDE = (
    "const s = document.querySelector('{}'); s.value = {};"
    "s.dispatchEvent(new Event('input', {{bubbles: true}}));"
)
ACTIONS = {  # what is done -> (view, script of the i-th time)
    "scrub, compare": ("view=compare", SLIDE.format("[data-step]", "10 * (i % 11)")),
    "scrub, marking changes": (
        "view=compare&mark=change",
        SLIDE.format("[data-step]", "10 * (i % 11)"),
    ),
    "scrub, trade-off and CDFs": ("view=tradeoff", SLIDE.format("[data-step]", "10 * (i % 11)")),
    "hover over a point": (
        "view=tradeoff",
        "const d = document.querySelectorAll('.dot'); "
        "d[i % d.length].dispatchEvent(new Event('mouseenter'));",
    ),
    "mark leaks or changes": (
        "view=compare",
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'd', bubbles: true}));",
    ),
    "beta of the weight curve": ("view=theory", SLIDE.format("[data-knob=wb]", "-2 + i % 30 / 10")),
    "search the questions": (
        "view=compare&panel=1",
        SLIDE.format("[data-search]", "['born', 'prize', '', 'x'][i % 4]"),
    ),
}


TEXTS = "[data-column=b] [data-row=keep] .badge"  # is there when all answers are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("latency", "load"))
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--training", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    if options.what == "latency":
        from_command(repeats=3)
    started = time.perf_counter()
    with served() as (address, _):
        print(f"HTTP answered {time.perf_counter() - started:.1f} s after the command")
        if options.what == "latency":
            latency(address, options.repeats)
        else:
            load(address, options.visitors, options.training, options.seconds)


def from_command(repeats: int) -> None:
    """Seconds from the command to the first view with its texts, in a browser that is open."""
    times = []
    with browser() as window:
        for _ in range(repeats):
            page = window.new_context(viewport={"width": 1280, "height": 900}).new_page()
            started = time.perf_counter()
            with served() as (address, _):
                page.goto(address)
                page.wait_for_selector(TEXTS)
                times.append(time.perf_counter() - started)
            page.context.close()
    print(f"{'from the command to it':28} median {statistics.median(times):6.2f} s")


def latency(address: str, repeats: int) -> None:
    with browser() as window:
        for name, (fragment, script) in ACTIONS.items():
            page = opened(window, address, fragment)
            times = page.evaluate(IN_PAGE, [repeats, script])
            print(f"{name:28} median {statistics.median(times):6.1f} ms, worst {max(times):6.1f}")
            page.context.close()
        firsts = []
        for _ in range(5):
            started = time.perf_counter()
            page = window.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(address)
            page.wait_for_selector(TEXTS)
            firsts.append(time.perf_counter() - started)
            page.context.close()
        print(f"{'first view with its texts':28} median {statistics.median(firsts):6.2f} s")
        page = opened(window, address, "view=theory")
        page.wait_for_selector("[data-chart=theory-forget] svg", timeout=60_000)
        answers = [synthetic(page, beta) for beta in (0.2, 0.5, 2.0, 4.0, 8.0)]
        print(f"{'the synthetic experiment':28} median {statistics.median(answers):6.2f} s")


def opened(window, address: str, fragment: str):
    page = window.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{address}#{fragment}")
    page.wait_for_selector("[role=tab]")
    page.wait_for_timeout(1500)
    return page


def synthetic(page, beta: float) -> float:
    """Seconds from a move of the slider to the new chart."""
    started = time.perf_counter()
    page.evaluate(
        "([beta]) => { window.old = document.querySelector('[data-chart=theory-forget] svg');"
        "const s = document.querySelector('[data-knob=tb]'); s.value = Math.log10(beta);"
        "s.dispatchEvent(new Event('input', {bubbles: true})); }",
        [beta],
    )
    page.wait_for_function(
        "document.querySelector('[data-theory-say]').textContent.startsWith('Live') &&"
        "document.querySelector('[data-chart=theory-forget] svg') !== window.old",
        polling=10,
    )
    return time.perf_counter() - started


def load(address: str, visitors: int, training: int, seconds: float) -> None:
    for number in range(training):
        runs = [
            {"method": "ga", "lr": 6e-4},
            {"method": "npo_rt", "lr": 8e-4, "hyper": {"beta": 0.5}},
        ]
        runs = [run | {"epochs": 20} for run in runs]
        call(address, "start", {"visitor": f"trainer {number}", "runs": runs})
    polls, views, stop = [], [], threading.Event()
    threads = [
        *(threading.Thread(target=train, args=(address, n, polls, stop)) for n in range(training)),
        *(threading.Thread(target=look, args=(address, n, views, stop)) for n in range(visitors)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    for name, times in (("recorded views", views), ("polls of live runs", polls)):
        if times:
            cuts = statistics.quantiles(times, n=100)
            print(
                f"{name}: {len(times)} requests, median {1000 * cuts[49]:.0f} ms, "
                f"p95 {1000 * cuts[94]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms"
            )


def look(address: str, number: int, times: list, stop: threading.Event) -> None:
    draw = random.Random(number)
    time.sleep(draw.random())
    started = time.perf_counter()
    urllib.request.urlopen(address, timeout=60).read()
    index = call(address, "index", {"study": 0})
    times.append(time.perf_counter() - started)
    while not stop.wait(0.5 * (0.5 + draw.random())):
        started = time.perf_counter()
        call(address, "texts", {"study": 0, "question": draw.randrange(len(index["questions"]))})
        times.append(time.perf_counter() - started)


def train(address: str, number: int, times: list, stop: threading.Event) -> None:
    visitor, seen = f"trainer {number}", [0, 0]
    while not stop.wait(0.3):
        started = time.perf_counter()
        answer = call(address, "poll", {"visitor": visitor, "since": seen})
        times.append(time.perf_counter() - started)
        for run, events in enumerate(answer["events"]):
            seen[run] += len(events)
    print(f"{visitor}: {seen} events, place {answer['place']}")
    call(address, "leave", {"visitor": visitor})


def call(address: str, name: str, data: dict) -> dict:
    """What the page asks for, as the page asks for it."""
    body = {"data": data, "component_id": 1, "fn_name": name, "session_hash": "load"}
    request = urllib.request.Request(
        f"{address}gradio_api/component_server/",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    if "problem" in found:
        raise RuntimeError(found["problem"])
    return found


if __name__ == "__main__":
    main()
