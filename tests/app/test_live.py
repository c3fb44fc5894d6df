"""Live runs: processes of their own that report, stop at once, and do not outlive their owner."""

import io
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from typing import ClassVar

import pytest
import torch
from places import ROOT

from npo_kit import app, read_run
from npo_kit.app import theory as theory_view
from npo_kit.app import visits, workers
from npo_kit.app.answering import told
from npo_kit.app.jobs import ENDS, PROMPT_LENGTH
from npo_kit.app.live import LiveConfig, LiveJob
from npo_kit.app.packed import PackedStudy
from npo_kit.app.page import Answers, page_index
from npo_kit.app.scored import METRICS
from npo_kit.app.theory import Theory
from npo_kit.app.visits import Visits
from npo_kit.app.worker import FEW_ROWS, unlearning
from npo_kit.app.workers import Waiting
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError, without_paths
from npo_kit.losses.paper import npo_weight
from npo_kit.processes import start_workers

PATIENCE = 1800.0  # seconds until what never comes is given up, on a machine however busy


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
            ({"lr": float("inf")}, "lr must be"),
            ({"seed": 10**400}, "seed must be a whole number, 0 to 999999, it is 1000"),
            ({"lr": "fast"}, "lr must be .*'fast'"),
            ({"lr": True}, "lr must be"),
            ({"hyper": {"beta": -1.0}}, "beta must be 0.01 to 10"),
            ({"retain_weight": 1e9}, "retain_weight must be 0 to 10"),
            ({"epochs": 1000}, "epochs must be 1 to 20, it is 1000"),
            ({"seed": 0.5}, "seed must be"),
            ({"method": ["ga"]}, "method must be a name"),
            ({"rm": "-rf"}, "a live run takes .*epochs, hyper, lr, method"),
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


@pytest.mark.slow
def test_a_run_reports_what_it_does_and_stops_at_once():
    job = LiveJob(LiveConfig(method="npo_rt", lr=8e-4, beta=0.5, epochs=2))
    try:
        job.watch("forget", 3)
        events = wait_for(job, lambda e: e["event"] == "step" and e["step"] == 4)
        kinds = [event["event"] for event in events]
        # a text comes first, since a process that was not prepared evaluates for seconds
        assert kinds[:4] == ["loading", "started", "answer", "evaluation"]
        assert (events[1]["steps"], events[1]["few"]) == (20, FEW_ROWS)
        assert list(events[3]["metrics"]) == list(METRICS)
        assert events[3]["metrics"]["forget_quality"] < 1e-6  # the reference is the recorded one
        assert {name: len(of) for name, of in events[3]["cells"].items()}["forget"] == 120
        answers = [event for event in events if event["event"] == "answer"]
        assert answers[0]["question"] == ["forget", 3]
        assert (
            answers[0]["text"] == events[3]["cells"]["forget"][3]["text"]
        )  # the first update is 0
        steps = [event for event in events if event["event"] == "step"]
        assert [step["step"] for step in steps] == [1, 2, 3, 4]
        assert steps[0]["weights"]["median"] == pytest.approx(1, abs=1e-4)
        assert steps[0]["terms"].keys() == {"forget", "retain"}
        pid = job._worker.process.pid
    finally:
        job.stop()
    assert job._worker.process.returncode in (-signal.SIGTERM, -signal.SIGKILL)  # it did not finish
    assert gone(pid)
    assert job.ended
    assert job.events(len(events))[-1] == {"event": "stopped"}
    job.stop()  # once more does nothing
    assert [event["event"] in ENDS for event in job.events()].count(True) == 1


@pytest.mark.slow
def test_a_finished_run_answers_prompts_token_by_token_and_is_archived(tmp_path):
    job = LiveJob(LiveConfig(method="npo", lr=4e-4, beta=0.1, epochs=1))
    try:
        for bad, said in (("", "no question"), ("  ", "no question"), (7, "no question"),
                          ("x" * (PROMPT_LENGTH + 1), "may have 2000 characters")):  # fmt: skip
            with pytest.raises(KitError, match=said):
                job.ask(bad, 1)
        events = wait_for(job, lambda e: e["event"] == "finished")
        assert not job.ended
        assert not job.training
        question = events[1]["questions"][40]
        job.ask(question["question"], 1)
        events = wait_for(job, lambda e: e["event"] == "token" and e["whole"])
        tokens = [e["text"] for e in events if e["event"] == "token"]
        last = [e for e in events if e["event"] == "evaluation"][-1]
        assert tokens[-1] == last["cells"]["forget"][40]["text"]  # greedy, as in the evaluation
        assert len(set(tokens)) > 3
        assert all(tokens[-1].startswith(text) for text in tokens)
        first = next(e for e in events if e["event"] == "evaluation")
        assert first["weights"] == [1.0] * 120  # the policy is the reference
        zipfile.ZipFile(io.BytesIO(job.archive())).extractall(tmp_path)
    finally:
        job.forget()
    run = read_run(tmp_path / "npo")
    assert (run.status, run.method, len(run.steps)) == ("finished", "npo", 10)
    rows = [run.evaluation(step).rows["forget"] for step in (0, 10)]
    ratio = [
        b["mean_logp"] * b["tokens"] - a["mean_logp"] * a["tokens"]
        for a, b in zip(*rows, strict=True)
    ]
    assert last["weights"] == pytest.approx(npo_weight(torch.tensor(ratio), 0.1).tolist(), abs=1e-4)
    with pytest.raises(KitError, match="nothing is recorded yet"):
        job.archive()


@pytest.mark.slow
def test_nothing_that_is_typed_ends_a_run():
    """Asked while it trains and after; what the context cannot hold is answered by a sentence."""
    typed = ["x" * 1100, "Who? " * 300, "</s>" * 400, "</s> <s> <|endoftext|> [/INST]", "\u200b",
             "\x00\x01\x1b[31m\t\r\n?", "🙂" * 20, "a lone \ud83d surrogate",
             "\u202eabc"]  # fmt: skip
    job = LiveJob(LiveConfig(method="ga", lr=1e-4, epochs=1))
    try:
        wait_for(job, lambda e: e["event"] == "started")
        for number, text in enumerate(typed, 1):
            job.ask(text, number)
        wait_for(job, lambda e: e["event"] == "finished")
        for number, text in enumerate(typed, 101):
            job.ask(text, number)
        events = wait_for(job, lambda e: e.get("number") == 100 + len(typed) and e["whole"])
    finally:
        job.forget()
    whole = {e["number"]: e for e in events if e["event"] == "token" and e["whole"]}
    assert len(whole) == 2 * len(typed)
    for first, after in ((0, 100), (100, 200)):
        assert whole[first + 1]["problem"] == (
            "the question has 1107 tokens, the model's context holds 256: shorten it"
        )
        told = [number - first for number, e in whole.items() if first < number < after
                and "problem" in e]  # fmt: skip
        assert told == [1, 2, 3]
    assert whole[101]["step"] == 10


@pytest.mark.slow
def test_a_prepared_process_makes_the_same_run_and_evaluations_on_the_way_are_of_few_rows(tmp_path):
    """Prepared or not, to the last bit; what is of few rows says so, and has no forget quality."""
    waiting, config = Waiting(), LiveConfig(method="ga", lr=2e-4, epochs=2)
    waiting.wish()
    waiting.fill()
    (ready,) = waiting._workers
    jobs = [LiveJob(config, waiting.take()), LiveJob(config)]
    assert jobs[0]._worker is ready
    try:
        events = [wait_for(job, lambda e: e["event"] == "finished") for job in jobs]
        for name, job in zip(("prepared", "cold"), jobs, strict=True):
            zipfile.ZipFile(io.BytesIO(job.archive())).extractall(tmp_path / name)
    finally:
        for job in jobs:
            job.forget()
        waiting.close()
    assert records_of(tmp_path / "prepared" / "ga") == records_of(tmp_path / "cold" / "ga")
    first, middle, last = (e for e in events[0] if e["event"] == "evaluation")
    assert [e["whole"] for e in (first, middle, last)] == [True, False, True]
    assert first["rows"]["forget"] == last["rows"]["forget"] == 120
    assert set(middle["rows"].values()) == {FEW_ROWS}
    assert {name: len(of) for name, of in middle["cells"].items()} == middle["rows"]
    assert len(middle["weights"] or [0] * FEW_ROWS) == FEW_ROWS
    assert middle["metrics"]["forget_quality"] is middle["metrics"]["forget_percentile"] is None
    assert middle["metrics"]["forget_probability"] > 0
    assert last["metrics"]["forget_quality"] > 0
    run = read_run(tmp_path / "cold" / "ga")
    assert [run.evaluation(step).max_rows for step in (0, 10, 20)] == [None, FEW_ROWS, None]
    command = next(e for e in events[0] if e["event"] == "started")["command"]
    assert f"--intermediate-rows {FEW_ROWS}" in command


def test_all_rows_on_the_way_where_the_page_says_so():
    assert unlearning(LiveConfig()).intermediate_rows == FEW_ROWS
    assert unlearning(LiveConfig.of({"quick": False})).intermediate_rows is None
    with pytest.raises(KitError, match="quick must be true or false, it is 1"):
        LiveConfig.of({"quick": 1})


def test_a_setting_that_the_method_lacks_is_not_passed_on():
    settings = unlearning(LiveConfig(method="npo", beta=1.0))
    assert (settings.retain_weight, settings.hyper) == (None, {"beta": 1.0})
    assert unlearning(LiveConfig(method="npo_rt", retain_weight=2.0)).retain_weight == 2.0
    with pytest.raises(KitError, match="method ga has no retain term: leave out retain_weight"):
        unlearning(LiveConfig(method="ga", retain_weight=2.0))


@pytest.mark.slow
def test_a_run_that_cannot_start_says_why():
    job = LiveJob(LiveConfig(method="npo_xx"))
    try:
        events = wait_for(job, lambda e: e["event"] == "failed")
    finally:
        job.stop()
    assert events[-1]["reason"].startswith("unknown method 'npo_xx': choose one of altpo")


FAULT = r"something went wrong on the server \(fault (\w+)\): tell whoever runs it; .*"


@pytest.mark.parametrize(
    ("broken", "logged"),
    [
        ("import npo_kit.app.worker as w; w._run = lambda *_: {}['a bug']; w.main()", "a bug"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9"),
        ("import sys; sys.stdout.write('{\\'event'); sys.exit('cut off')", "cut off"),
    ],
)
def test_a_fault_in_a_run_is_logged_with_its_trace_and_the_number_that_is_told(
    monkeypatch, caplog, broken, logged
):
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", broken))
    job = LiveJob(LiveConfig())
    try:
        events = wait_for(job, lambda e: e["event"] == "failed")
        (number,) = re.fullmatch(FAULT, events[-1]["reason"]).groups()
        (entry,) = [r for r in caplog.records if r.name == "npo_kit.app"]
        assert (entry.levelno, f"fault {number}:" in entry.message) == (logging.ERROR, True)
        assert logged in entry.message
        assert ("Traceback" in entry.message) == (logged == "a bug")
    finally:
        job.forget()
    assert [event["event"] in ENDS for event in job.events()].count(True) == 1


def test_a_run_does_not_outlive_its_owner():
    """The owner is killed while the run is loading; the run notices that its stdin is closed."""
    code = (
        "import os, time\n"
        "from npo_kit.app.live import LiveConfig, LiveJob\n"
        "job = LiveJob(LiveConfig())\n"
        "while not job.events(0, wait=1.0): pass\n"
        "print(job._worker.process.pid, flush=True)\n"
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
    def __init__(self, config, worker=None):
        self.config, self.name = config, config.method
        self.ended, self.training = False, True
        self.watched, self.prompts, self.forgotten = [], [], False

    def events(self, since=0):
        return [{"event": "step", "step": n} for n in range(since, 3)]

    def watch(self, *question):
        self.watched.append(question)

    def ask(self, prompt, number):
        self.prompts.append((prompt, number))

    def archive(self):
        return b"zip"

    def stop(self):
        self.ended, self.training = True, False

    def forget(self):
        self.stop()
        self.forgotten = True


class FakeWorker:
    made: ClassVar = []

    def __init__(self, pocket):
        self.pocket, self.alive, self.sent = pocket, True, []
        self.made.append(self)

    def send(self, message):
        self.sent.append(message)

    def end(self):
        self.alive = False

    def finish(self):
        return 0, ""


@pytest.fixture
def seats(monkeypatch):
    monkeypatch.setattr(visits, "LiveJob", FakeJob)
    monkeypatch.setattr(workers, "Worker", FakeWorker)
    return Visits(limit=2)


PAIR = [LiveConfig(method="ga"), LiveConfig(method="npo")]


def until(true):
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()


def test_visitors_wait_in_their_order_and_see_their_place(seats):
    for name in ("ann", "bob", "cat", "dan"):
        seats.start(name, PAIR)
    assert [seats.place(name) for name in ("ann", "bob", "cat", "dan")] == [0, 0, 1, 2]
    assert [len(seats.jobs(name)) for name in ("ann", "bob", "cat", "dan")] == [2, 2, 0, 0]
    first = seats.jobs("ann")
    seats.stop("ann")
    assert all(job.ended and not job.forgotten for job in first)  # still to be downloaded
    assert [seats.place(name) for name in ("cat", "dan")] == [0, 1]
    seats.leave("bob")
    assert seats.place("dan") == 0
    with pytest.raises(KitError, match="there is no live run"):
        seats.jobs("bob")


def test_one_pair_for_each_visitor(seats):
    seats.start("ann", PAIR)
    first = seats.jobs("ann")
    seats.start("ann", PAIR)
    assert all(job.forgotten for job in first)
    assert [job.config.method for job in seats.jobs("ann")] == ["ga", "npo"]
    for many in ([], [*PAIR, *PAIR]):
        with pytest.raises(KitError, match="one to 2 runs at a time, not"):
            seats.start("ann", many)


def test_a_visitor_in_the_queue_may_give_up(seats):
    for name in ("ann", "bob", "cat", "dan"):
        seats.start(name, PAIR)
    seats.stop("cat")
    assert seats.place("dan") == 1
    with pytest.raises(KitError, match="there is no live run"):
        seats.place("cat")


def test_who_has_finished_makes_room_only_when_somebody_waits(seats):
    seats.start("ann", PAIR)
    seats.start("bob", PAIR)
    for job in seats.jobs("ann"):
        job.training = False
    time.sleep(0.6)
    assert not any(job.ended for job in seats.jobs("ann"))
    seats.start("cat", PAIR)
    assert seats.place("cat") == 0
    assert all(job.ended for job in seats.jobs("ann"))
    assert not any(job.ended for job in seats.jobs("bob"))


def test_a_visitor_who_leaves_frees_the_place(seats, monkeypatch):
    monkeypatch.setattr(visits, "LEASE", 0.5)
    seats.start("ann", PAIR)
    seats.start("bob", PAIR)
    seats.start("cat", PAIR)
    left = seats.jobs("ann")

    def bob_asks_and_cat_has_a_place():
        seats.jobs("bob")
        seats.jobs("cat")
        return seats.place("cat") == 0

    until(bob_asks_and_cat_has_a_place)
    assert all(job.forgotten for job in left)
    assert len(seats.jobs("bob")) == 2


def test_a_visitor_whose_tab_is_hidden_keeps_the_place_for_minutes(seats):
    seats.start("ann", PAIR)
    seats._visits["ann"].asked -= 120  # browsers let a hidden page ask once a minute
    time.sleep(0.6)
    assert len(seats.jobs("ann")) == 2
    seats._visits["ann"].asked -= 3600
    until(lambda: "ann" not in seats._visits)


def test_where_no_process_can_be_had_the_visitor_waits(seats, monkeypatch, caplog):
    made = []

    def scarce(config, worker):
        made.append(FakeJob(config))
        if len(made) in (1, 3, 5):  # refused: the first, then twice the second of the pair
            raise OSError("no memory")
        return made[-1]

    monkeypatch.setattr(visits, "LiveJob", scarce)
    seats.start("ann", PAIR)
    assert seats.place("ann") == 1
    until(lambda: seats.place("ann") == 0)
    (entry,) = [r for r in caplog.records if r.name == "npo_kit.app"]  # of three attempts
    assert str(entry.exc_info[1]) == "no memory"
    assert [job.forgotten for job in made] == [False, True, False, True, False, False, False]
    assert seats.jobs("ann") == made[-2:]


def test_the_queue_has_an_end_and_the_server_stops_everything(seats, monkeypatch):
    monkeypatch.setattr(visits, "QUEUE", 3)
    for name in ("ann", "bob", "cat"):
        seats.start(name, PAIR)
    with pytest.raises(KitError, match="3 visitors are here already"):
        seats.start("dan", PAIR)
    going = seats.jobs("ann") + seats.jobs("bob")
    seats.stop_all()
    assert all(job.forgotten for job in going)


def test_what_a_page_sends_is_data(seats, tmp_path, caplog):
    from studies import write_study

    answers = Answers([PackedStudy(write_study(tmp_path / "s"))], visits=seats, experiment=Theory())
    ask = {name: told(getattr(answers, name)) for name in Answers.NAMES}
    runs = [{"method": "ga", "lr": 1e-4}]
    ann = {"visitor": "ann"}
    assert ask["start"]({**ann, "runs": runs}) == {}
    assert ask["poll"]({**ann, "since": [1]})["events"][0][0] == {"event": "step", "step": 1}
    assert ask["watch"]({**ann, "set": "retain", "index": 1}) == {}
    assert ask["ask"]({**ann, "prompt": "Who?", "number": 1}) == {}
    (job,) = seats.jobs("ann")
    assert (job.watched, job.prompts) == ([("retain", 1)], [("Who?", 1)])
    assert (job.config.model, job.config.task) == ("pocket", "authors:forget10")
    assert ask["download"]({**ann, "run": 0}) == {"name": "ga.zip", "base64": "emlw"}
    bad_runs = (
        "ga",
        [{"method": "ga", "lr": 1e9}],
        [{"method": "ga", "percent": 33}],
        [{"method": "ga", "percent": "../x"}],
        ["ga"],
        [],
    )
    synthetic = {"alpha": 1.0, "seed": 1, "beta": 1.0, "lr_ga": 1e-3, "lr_npo": 1e-3}
    synthetic["methods"] = ["ga"]
    for bad in (
        *(ask["start"]({"visitor": "eve", "runs": each}) for each in bad_runs),
        ask["start"]({"visitor": "x" * 1000, "runs": runs}),
        ask["start"]({"runs": runs}),
        ask["start"](None),
        ask["poll"]({"visitor": "nobody", "since": [0]}),
        ask["poll"]({**ann, "since": ["../etc"]}),
        ask["watch"]({**ann, "set": "forget", "index": -1}),
        ask["watch"]({**ann, "set": {"a": 1}, "index": 0}),
        ask["ask"]({"visitor": "nobody", "prompt": "Who?", "number": 1}),
        ask["download"]({**ann, "run": 7}),
        ask["texts"]({"study": 0, "question": "<script>"}),
        ask["texts"]({"study": 0, "question": -1}),
        ask["texts"]({"study": "../..", "question": 0}),
        ask["scores"]({"study": 0, "run": "../../etc/passwd"}),
        ask["scores"]({"study": 0, "run": ["ga"]}),
        ask["about"]({"study": 0, "run": None}),
        ask["index"]({"study": 1}),
        ask["theory"]({"settings": synthetic | {"methods": ["__import__"]}}),
        ask["theory"]({"settings": synthetic | {"methods": []}}),
        ask["theory"]({"settings": synthetic | {"alpha": float("nan")}}),
        ask["theory"]({"settings": synthetic | {"seed": 0.5}}),
        ask["theory"]({"settings": {"alpha": 1}}),
    ):
        assert bad.keys() == {"problem"}
        assert "Traceback" not in bad["problem"]
        assert str(tmp_path) not in bad["problem"]
        assert not re.fullmatch(FAULT, bad["problem"])
    assert not caplog.records
    assert ask["stop"](ann) == {}
    assert ask["leave"](ann) == {}


def test_the_page_may_not_choose_the_servers_model(seats, tmp_path):
    from studies import write_study

    study = PackedStudy(write_study(tmp_path / "s"))
    served = ([study], "/models/mine", "tofu:forget01")
    own = Answers(*served, visits=seats, experiment=Theory())
    assert own.index(0)["live"]["model"] == "mine"
    own.start("ann", [{"method": "ga", "model": "evil", "task": "x"}])
    config = seats.jobs("ann")[0].config
    assert (config.model, config.task) == ("/models/mine", "tofu:forget01")


def test_no_path_of_the_server_is_told():
    def fails():
        raise KitError("/srv/studies/pocket/ga/run.json is cut short: copy it again")

    assert told(fails)({})["problem"] == "run.json is cut short: copy it again"
    assert without_paths("see C:\\Users\\me\\run.json: mend it") == "see run.json: mend it"
    assert without_paths("p >= 0.05 and/or 1/2") == "p >= 0.05 and/or 1/2"


@pytest.mark.parametrize(
    ("name", "sent", "said"),
    [
        ("texts", {"study": 0}, "texts needs question: send study, question"),
        ("texts", None, "texts needs an object, not None: send study, question"),
        ("texts", {"study": 0, "question": "1"}, "question must be a whole number, it is '1'"),
        ("texts", {"study": True, "question": 1}, "study must be a whole number, it is True"),
        ("texts", {"study": 7, "question": 1}, "there is no study 7: choose 0 to 0"),
        ("index", {"study": 0, "x": 1}, "index takes no 'x': send study"),
        ("theorem", {"x": 1}, "theorem takes no 'x': send nothing"),
        ("theorem", [], "theorem needs an object, not []: send nothing"),
        ("theory", {"settings": None}, "settings must be an object, it is None"),
        ("scores", {"study": 0, "run": 1}, "run must be text, it is 1"),
        ("start", {"visitor": "", "runs": []}, "a visitor needs a name of 1 to 64 characters"),
        ("start", {"visitor": "eve", "runs": {}}, "runs must be a list, it is {}"),
        (
            "start",
            {"visitor": "eve", "runs": [{"percent": 5.0}]},
            "forget 1, 5, 10, 20, 50 percent, not 5.0",
        ),
        ("poll", {"visitor": "ann", "since": [-1]}, "since must list whole numbers from 0, it is"),
        ("poll", {"visitor": "ann", "since": ["0"]}, "since must list whole numbers from 0, it is"),
        ("ask", {"visitor": "ann", "prompt": "?", "number": "1"}, "number must be a whole number"),
        ("download", {"visitor": "ann", "run": 2}, "there is no run 2 to download: 2 have started"),
        ("download", {"visitor": "ann", "run": -1}, "there is no run -1 to download"),
        ("watch", {"visitor": "ann", "set": "forget", "index": -1}, "index must be a question's"),
    ],
)
def test_a_malformed_request_is_told_its_key_and_what_to_send(seats, caplog, name, sent, said):
    seats.start("ann", PAIR)
    study = PackedStudy(shipped_data("studies/pocket"))
    answers = Answers([study], visits=seats, experiment=Theory())
    assert told(getattr(answers, name))(sent)["problem"].startswith(said)
    assert not caplog.records


@pytest.mark.parametrize(
    "bug", [KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, RuntimeError]
)
def test_the_servers_own_fault_is_logged_with_the_number_that_is_told(
    seats, monkeypatch, caplog, bug
):
    def broken(*_):
        raise bug("/srv/secret/place")

    monkeypatch.setattr(PackedStudy, "texts", broken)
    study = PackedStudy(shipped_data("studies/pocket"))
    answers = Answers([study], visits=seats, experiment=Theory())
    problem = told(answers.texts)({"study": 0, "question": 0})["problem"]
    (number,) = re.fullmatch(FAULT, problem).groups()
    (entry,) = caplog.records
    assert (entry.name, entry.levelno) == ("npo_kit.app", logging.ERROR)
    assert f"fault {number}: no answer to texts" in entry.message
    assert entry.exc_info[0] is bug
    assert "/srv/secret/place" in caplog.text


@pytest.mark.slow
def test_an_experiment_whose_process_died_is_a_fault_and_the_next_one_runs(
    seats, monkeypatch, caplog
):
    monkeypatch.setattr(theory_view, "run_synthetic", dict)  # as quick as its process starts
    settings = {"alpha": 1.0, "seed": 1, "beta": 1.0, "lr_ga": 1e-3, "lr_npo": 1e-3}
    settings["methods"] = ["ga"]
    theory = Theory()
    try:
        theory._pool = start_workers()
        assert isinstance(theory._pool.submit(os._exit, 1).exception(), BrokenProcessPool)
        answers = Answers([], visits=seats, experiment=theory)
        problem = told(answers.theory)({"settings": settings})["problem"]
        assert re.fullmatch(FAULT, problem)
        assert caplog.records[0].exc_info[0] is BrokenProcessPool
        assert theory.run(settings)["seed"] == 1
    finally:
        theory.stop()


# --- what the server leaves as it was ---------------------------------------------------------


@pytest.mark.slow
def test_importing_and_showing_change_nothing_around_them(tmp_path):
    """Environment, loggers and stdout stay as importing Gradio alone leaves them; nobody is called.

    Uvicorn, which serves, sets up the loggers of its own name when the page is shown.
    """
    code = """
import logging, os, sys
called = []
def hook(event, given):
    if event == "socket.getaddrinfo":
        called.append(given[0])
    elif event == "socket.connect":
        called.append(given[1][0])
sys.addaudithook(hook)

def around():
    root = logging.root
    loggers = {
        name: (each.level, each.disabled, each.propagate, list(each.handlers))
        for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)
    }
    return dict(os.environ), root.level, list(root.handlers), root.manager.disable, loggers

def same(before, after):
    assert before[:-1] == after[:-1], (before[:-1], after[:-1])
    for name, was in before[-1].items():
        assert name.startswith("uvicorn") or after[-1][name] == was, name
    new = {name: each for name, each in after[-1].items() if name.startswith("npo_kit")}
    assert all(each == (0, False, True, []) for each in new.values()), new

before = around()
from npo_kit.app import add_arguments, main, serve, show
same(before, around())
import IPython.display, gradio
before = around()
show()
same(before, around())
from npo_kit.app import server
server._OPEN.close()
same(before, around())
assert set(called) <= {"127.0.0.1", "localhost"}, called
"""
    names = ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.slow
def test_the_pair_has_settings_of_its_own_model_whatever_study_is_shown(visit, pocket):
    usual = unlearning(LiveConfig())
    page = visit(pocket + "#study=1&view=live")  # of SmolLM2
    pair = page.inner_text("[data-pair]").split("; ")
    assert pair[0] == f"GA: lr {usual.lr:g}, {usual.epochs:g} epochs"
    assert pair[1].endswith(f", lr {usual.lr:g}, {usual.epochs:g} epochs")
    page.context.close()
    recorded = page_index(PackedStudy(shipped_data("studies/pocket")))["runs"]
    best = next(run for run in recorded if run["main"] and run["method"] == "ga")
    page = visit(pocket + "#view=live")
    assert page.inner_text("[data-pair]").startswith(f"GA: lr {best['lr']:g}, ")


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 720), (390, 844)])
@pytest.mark.slow
def test_what_the_pair_says_has_the_width_of_the_page(visit, pocket, width, height):
    page = visit(pocket + "#view=live", viewport={"width": width, "height": height})
    page.click("[data-action=start]")
    page.wait_for_selector("[data-live-stage]")
    boxes = [each.bounding_box() for each in page.locator("[data-live-columns] .column").all()]
    across = 2 if width > 700 else 1
    assert all(box["width"] > 0.85 * width / across for box in boxes)
    assert (boxes[0]["y"] == boxes[1]["y"]) == (across == 2)
    assert page.locator("[data-prompt]").bounding_box()["height"] < 60
    charts = [each.bounding_box() for each in page.locator("[data-live-charts] figure").all()]
    assert len({box["y"] for box in charts}) == 4 / across
    assert min(box["y"] for box in charts) > max(box["y"] + box["height"] for box in boxes)
    text = page.locator("[data-live-columns] .text").first
    size = text.evaluate("(each) => getComputedStyle(each).fontSize")
    assert float(size[:-2]) >= {1920: 28, 1280: 19, 390: 19}[width]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_serve_is_a_function_wherever_it_is_imported_from():
    from npo_kit.app import serve, server

    assert serve is server.serve is app.serve


# --- recipes ------------------------------------------------------------------------------------


def records_of(folder):
    """Steps and scores of a run, without times."""
    run = read_run(folder)
    steps = [{k: v for k, v in step.items() if k != "seconds"} for step in run.steps]
    return steps, [evaluation.rows for evaluation in run.evaluations()]


@pytest.mark.slow
def test_the_command_and_the_cell_make_the_same_run(tmp_path, monkeypatch):
    config = LiveConfig(method="npo_rt", lr=3e-4, beta=0.2, retain_weight=2.0, epochs=2.0, seed=5)
    job = LiveJob(config)
    try:
        events = wait_for(job, lambda e: e["event"] == "finished")
        zipfile.ZipFile(io.BytesIO(job.archive())).extractall(tmp_path / "live")
    finally:
        job.forget()
    started = events[1]
    monkeypatch.chdir(tmp_path)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    words = shlex.split(started["command"])
    assert words[0] == "npo-kit"
    command = [sys.executable, "-m", "npo_kit.cli", *words[1:]]
    done = subprocess.run(command, check=True, env=one_thread, capture_output=True, text=True)
    last = [event for event in events if event["event"] == "evaluation"][-1]["metrics"]
    header, *_, line = done.stdout.partition("method seed")[2].splitlines()  # its table
    cells = dict(zip(header.replace("forget ", "forget_").split(), line.split()[2:], strict=False))
    assert cells["forget_p"] == f"{last['forget_quality']:.3g}"  # by the reference that it names
    live_steps, live_rows = records_of(tmp_path / "live" / "npo_rt")
    assert records_of(tmp_path / "runs" / "npo_rt") == (live_steps, live_rows)
    cell = [sys.executable, "-c", started["cell"]]
    said = subprocess.run(cell, check=True, env=one_thread, capture_output=True, text=True).stdout
    steps, utilities = zip(*map(str.split, said.splitlines()), strict=True)
    assert steps == ("0", "10", "20")
    live = [event for event in events if event["event"] == "evaluation"]
    for utility, event in zip(utilities, live, strict=True):
        assert float(utility) == pytest.approx(event["metrics"]["model_utility"], abs=1e-4)
