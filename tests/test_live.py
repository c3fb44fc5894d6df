"""Live runs: processes of their own that report, stop at once, and do not outlive their owner."""

import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from npo_kit.app import live
from npo_kit.app.live import ENDS, LiveConfig, LiveJob, LiveJobs
from npo_kit.app.page import Answers, told
from npo_kit.errors import KitError
from npo_kit.pack import METRICS, PackedStudy

PATIENCE = 120.0  # seconds for what takes a few on a free machine


def wait_for(job, found, patience=PATIENCE):
    """The events up to the first that `found` accepts."""
    events, end = [], time.monotonic() + patience
    while time.monotonic() < end:
        for event in job.events(len(events), wait=1.0):
            events.append(event)
            if found(event):
                return events
            assert event["event"] not in ENDS, event
    raise AssertionError(f"not within {patience} s: {[e['event'] for e in events]}")


def gone(pid):
    """Whether no process has this number; a dead one that nobody waited for counts as there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"lr": 0}, "lr must be 1e-06 to 0.01, it is 0"),
            ({"lr": float("nan")}, "lr must be"),
            ({"lr": "fast"}, "lr must be .*'fast'"),
            ({"lr": True}, "lr must be"),
            ({"beta": -1.0}, "beta must be 0.001 to 10"),
            ({"retain_weight": 1e9}, "retain_weight must be 0 to 100"),
            ({"epochs": 1000}, "epochs must be 1 to 20, it is 1000"),
            ({"seed": 0.5}, "seed must be"),
            ({"method": ["ga"]}, "method must be a name"),
            ({"rm": "-rf"}, "a live run takes beta, epochs, lr, method"),
            (["ga"], "a live run takes"),
            (None, "a live run takes"),
        ],
    )
    def test_what_is_senseless_is_refused(self, settings, said):
        with pytest.raises(KitError, match=said):
            LiveConfig.of(settings)

    def test_what_is_left_out_is_the_default(self):
        config = LiveConfig.of({"method": "ga", "lr": 1e-4})
        assert asdict(config) == asdict(LiveConfig()) | {"method": "ga", "lr": 1e-4}


def test_a_run_reports_what_it_does_and_stops_at_once():
    job = LiveJob(LiveConfig(method="npo_rt", lr=8e-4, beta=0.5, epochs=2))
    try:
        job.watch("forget", 3)
        events = wait_for(job, lambda e: e["event"] == "step" and e["step"] == 4)
        kinds = [event["event"] for event in events]
        assert kinds[:3] == ["loading", "started", "evaluation"]
        assert events[1]["steps"] == 20
        assert list(events[2]["metrics"]) == list(METRICS)
        assert events[2]["metrics"]["forget_quality"] < 1e-6  # the reference is the recorded one
        assert {name: len(of) for name, of in events[2]["cells"].items()}["forget"] == 120
        answers = [event for event in events if event["event"] == "answer"]
        assert answers[0]["question"] == ["forget", 3]
        assert answers[0]["text"] == events[2]["cells"]["forget"][3][0]  # the first update is 0
        steps = [event for event in events if event["event"] == "step"]
        assert [step["step"] for step in steps] == [1, 2, 3, 4]
        assert steps[0]["weights"]["median"] == pytest.approx(1, abs=1e-4)
        assert steps[0]["terms"].keys() == {"forget", "retain"}
        pid, started = job._process.pid, time.monotonic()
    finally:
        job.stop()
    assert time.monotonic() - started < 1.0
    assert gone(pid)
    assert job.ended
    assert job.events(len(events))[-1] == {"event": "stopped"}
    job.stop()  # once more does nothing
    assert [event["event"] in ENDS for event in job.events()].count(True) == 1


def test_a_run_that_cannot_start_says_why():
    job = LiveJob(LiveConfig(method="npo_xx"))
    try:
        events = wait_for(job, lambda e: e["event"] == "failed")
    finally:
        job.stop()
    assert events[-1]["reason"].startswith("unknown method 'npo_xx': choose one of dpo")


def test_a_run_does_not_outlive_its_owner():
    """The owner is killed while the run is loading; the run notices that its stdin is closed."""
    code = (
        "import os, time\n"
        "from npo_kit.app.live import LiveConfig, LiveJob\n"
        "job = LiveJob(LiveConfig())\n"
        "while not job.events(0, wait=1.0): pass\n"
        "print(job._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        owner.kill()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and not _dead(pid):
        time.sleep(0.1)
    assert _dead(pid)


def _dead(pid):
    """Gone, or a zombie that the system has not yet cleared away."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return gone(pid)


# --- several, without processes -----------------------------------------------------------------


class FakeJob:
    def __init__(self, config):
        self.config, self.ended, self.forsaken, self.watched = config, False, False, []

    def events(self, since=0):
        return [{"event": "step", "step": n} for n in range(since, 3)]

    def watch(self, *question):
        self.watched.append(question)

    def stop(self):
        self.ended = True


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.setattr(live, "LiveJob", FakeJob)
    return LiveJobs(limit=4)


PAIR = [LiveConfig(method="ga"), LiveConfig(method="npo")]


def test_a_visitor_has_one_pair_and_a_server_its_limit(jobs):
    jobs.start("ann", PAIR)
    first = jobs.of("ann")
    jobs.start("ann", PAIR)
    assert all(job.ended for job in first)
    assert [job.config.method for job in jobs.of("ann")] == ["ga", "npo"]
    jobs.start("bob", PAIR)
    with pytest.raises(KitError, match="4 live runs are going on, and this machine takes 4"):
        jobs.start("eve", PAIR)
    jobs.of("bob")[0].ended = True
    with pytest.raises(KitError, match="3 live runs are going on"):
        jobs.start("eve", PAIR)
    jobs.stop("ann")
    assert jobs.of("ann") == []
    jobs.start("eve", PAIR)
    with pytest.raises(KitError, match="one to 2 runs at a time, not 3"):
        jobs.start("eve", [*PAIR, *PAIR[:1]])
    kept = jobs.of("eve") + jobs.of("bob")
    jobs.stop_all()
    assert all(job.ended for job in kept)


def test_a_visitor_who_leaves_frees_the_place(jobs):
    jobs.start("ann", PAIR)
    jobs.start("bob", PAIR)
    left = jobs.of("ann")
    for job in left:
        job.forsaken = True
    end = time.monotonic() + PATIENCE
    while jobs.of("ann") and time.monotonic() < end:
        time.sleep(0.05)
    assert all(job.ended for job in left)
    assert len(jobs.of("bob")) == 2


def test_a_job_nobody_asks_for_is_forsaken(monkeypatch):
    job = LiveJob.__new__(LiveJob)
    job._asked = time.monotonic() - live.LEASE + 5
    assert not job.forsaken
    job._asked -= 10
    assert job.forsaken


def test_what_a_page_sends_is_data(jobs, tmp_path):
    from studies import write_study

    answers = Answers(PackedStudy(write_study(tmp_path / "s")), jobs)
    start, poll, watch, stop, texts = (
        told(getattr(answers, name)) for name in ("start", "poll", "watch", "stop", "texts")
    )
    runs = [{"method": "ga", "lr": 1e-4}]
    assert start({"visitor": "ann", "runs": runs}) == {}
    assert poll({"visitor": "ann", "since": [1]})["events"][0][0] == {"event": "step", "step": 1}
    assert watch({"visitor": "ann", "question": 9}) == {}
    assert jobs.of("ann")[0].watched == [("retain", 1)]
    for bad in (
        start({"visitor": "ann", "runs": "ga"}),
        start({"visitor": "ann", "runs": [{"method": "ga", "lr": 1e9}]}),
        start({"visitor": "x" * 1000, "runs": runs}),
        start({"runs": runs}),
        start(None),
        poll({"visitor": "nobody", "since": [0]}),
        poll({"visitor": "ann", "since": [0, 0, 0]}),
        poll({"visitor": "ann", "since": ["../etc"]}),
        watch({"visitor": "ann", "question": 10**9}),
        watch({"visitor": "ann", "question": {"a": 1}}),
        texts("<script>"),
        texts(-1),
    ):
        assert bad.keys() == {"problem"}
        assert "Traceback" not in bad["problem"]
        assert str(tmp_path) not in bad["problem"]
    assert stop({"visitor": "ann"}) == {}
    assert jobs.of("ann") == []
