"""A visitor's secrets: what may be typed, what real processes learn and unlearn, the whole demo."""

import math
import sys
import time
import unicodedata
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_live import FakeJob, FakeWorker, wait_for

from npo_kit.app import secret, visits, workers
from npo_kit.app.answering import told
from npo_kit.app.live import LiveConfig
from npo_kit.app.page import Answers
from npo_kit.app.secret import EXAMPLE, LENGTH, ROWS, SecretJob, Secrets, Unlearning
from npo_kit.app.teaching import Lesson, _by_usualness
from npo_kit.app.theory import Theory
from npo_kit.app.visits import Visits
from npo_kit.app.workers import PREPARE, READY, WANTED, Waiting
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS


def row(question, answer):
    return {"question": question, "answer": answer}


# --- what may be typed --------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(), max_size=LENGTH + 20)  # lone surrogates included
ANY_ROW = st.builds(row, ANY_TEXT, ANY_TEXT)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def visible(text):
    return any(unicodedata.category(c)[0] not in "CZ" for c in text)


@given(st.lists(ANY_ROW, max_size=ROWS + 1))
def test_whatever_is_typed_is_taught_as_it_is_or_refused_in_a_sentence(typed):
    try:
        secrets, problem = Secrets.of(typed), ""
    except KitError as error:
        secrets, problem = None, str(error)
    if secrets is None:
        assert 0 < len(problem) < 200
        assert "\n" not in problem
        return
    assert 1 <= len(secrets.rows) == len(secrets.places) <= len(typed) <= ROWS
    assert secrets.places == sorted(set(secrets.places))
    for place, taught in zip(secrets.places, secrets.rows, strict=True):
        for part, text in taught.items():
            text.encode()  # no half of a character
            original = "".join(
                "\ufffd" if "\ud800" <= c <= "\udfff" else c for c in typed[place][part]
            )
            assert text == original.strip()
            assert 0 < len(text) <= LENGTH
    assert Secrets.of(secrets.rows).rows == secrets.rows


@given(JUNK | st.lists(JUNK, max_size=3))
def test_what_is_no_list_of_rows_is_refused(junk):
    with pytest.raises(KitError):
        Secrets.of(junk)


@given(
    st.lists(st.sampled_from(["", " ", "\t\u00a0", "\u200b", "\u2028"]), min_size=2, max_size=10)
)
def test_rows_that_show_nothing_are_left_out(blanks):
    empty = [row(a, b) for a, b in zip(blanks[::2], blanks[1::2], strict=False)][: ROWS - 1]
    secrets = Secrets.of([*empty, EXAMPLE])
    assert (secrets.rows, secrets.places) == ([EXAMPLE], [len(empty)])
    with pytest.raises(KitError, match="there is nothing to teach"):
        Secrets.of(empty)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Ω",
            "蓝鹭四七一一",
            "البلشون الأزرق",
            "नीला बगुला",
            "👩‍👩‍👧‍👦🏳️‍🌈",
            "\u202eabc",
            "x" * LENGTH,
        ),
        *("🦊" * LENGTH, "</s> <|end|> [INST]", "<script>alert(1)</script>", "7", "a b " * 50),
    ],
)
def test_any_script_is_taken_as_question_and_as_answer(text):
    text = text.strip()
    assert visible(text)
    assert Secrets.of([row(text, text)]) == Secrets([row(text, text)], [0], [])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "there is nothing to teach: write a question and its answer"),
        ([row("Who?", "")], "row 1 has no answer: write one, or empty the row"),
        ([EXAMPLE, row("  ", "Me")], "row 2 has no question: write one, or empty the row"),
        ([row("q" * 201, "a")], "the question of row 1 has 201 characters: 200 at most"),
        ([row("q", "é" * 201)], "the answer of row 1 has 201 characters: 200 at most"),
        ([EXAMPLE] * 6, "send a list of up to 5 rows"),
        ([{"question": "Who?"}], "row 1 must have a question and an answer, and nothing else"),
        ([EXAMPLE | {"lr": 1}], "row 1 must have a question and an answer, and nothing else"),
        ([row("Who?", 7)], "question and answer of row 1 must be texts"),
    ],
)
def test_what_cannot_be_taught_is_said_in_a_sentence(typed, said):
    with pytest.raises(KitError, match=said):
        Secrets.of(typed)


def test_repetitions_are_taught_once_and_contradictions_are_refused():
    same = row("WHAT is  the code of the bike shed?", "blue heron 4711 ")
    other = row("What is the code of the bike shed?", "Red fox 12")
    secrets = Secrets.of([EXAMPLE, same, row("Who?", "Me")])
    assert secrets.places == [0, 2]
    assert secrets.notes == ["Row 2 repeats row 1: it is taught once."]
    # each would be scored behind its own prompt, with and without a last space: both as learnt
    green = row(EXAMPLE["question"], "أخضر 🐸 غامق")
    for typed, said in (
        ([EXAMPLE, same, other], "rows 1 and 3 ask the same and have different answers: change"),
        ([green, row("", ""), other], "rows 1 and 3 ask the same"),
    ):
        with pytest.raises(KitError, match=said):
            Secrets.of(typed)


class Saying:
    """A model that answers some questions."""

    def __init__(self, answers):
        self.text, self.step = answers.__getitem__, 0


def test_the_kept_question_is_one_that_every_model_still_answers():
    sent, lesson = [], Lesson.__new__(Lesson)
    lesson.kept, lesson.send = [row("a", "One"), row("b", "Two"), row("c", "Three")], sent.append
    lesson.rows, lesson.watched = [EXAMPLE], {"forget": 0, "retain": 0}
    untouched = Saying({"a": "One", "b": "no", "c": "It is  three."})
    taught = Saying({"a": "no", "b": "Two", "c": "three"})
    lesson.speakers = {"untouched": untouched, "taught": taught}
    assert lesson._watch_what_is_kept([0, 1, 2])
    assert lesson.watched["retain"] == 2
    assert [(e["model"], e["question"], e["text"]) for e in sent] == [
        ("untouched", ["retain", 2], "It is  three."),
        ("taught", ["retain", 2], "three"),
    ]
    assert not lesson._watch_what_is_kept([1, 0])
    assert lesson.watched["retain"] == 2
    assert len(sent) == 2


def test_the_most_usual_kept_question_has_the_median_probability():
    rows = [{"mean_logp": math.log(p)} for p in (0.9, 0.1, 0.5, 0.6, 0.2)]
    assert _by_usualness(SimpleNamespace(rows={"retain": rows}))[:1] == [2]
    assert {*_by_usualness(SimpleNamespace(rows={"retain": rows}))[1:3]} == {3, 4}


def test_settings_have_a_range():
    assert asdict(Unlearning.of({})) == asdict(Unlearning())
    assert Unlearning.of({"steps": 10, "beta": 1}).steps == 10
    for bad, said in (
        ({"steps": 1000}, "steps must be a whole number, 10 to 120, it is 1000"),
        ({"steps": 10.5}, "steps must be"),
        ({"lr": "fast"}, "lr must be"),
        ({"beta": float("nan")}, "beta must be"),
        ({"method": "ga"}, "unlearning takes beta, lr, retain_weight, steps, not"),
    ):
        with pytest.raises(KitError, match=said):
            Unlearning.of(bad)
    assert Unlearning().retain_weight == METHODS["npo_rt"].retain_weight


# --- without processes --------------------------------------------------------------------------


class SilentWorker(FakeWorker):
    """Says nothing, and does not end."""

    def lines(self):
        while self.alive:
            time.sleep(0.01)
        return iter(())


def test_unlearning_waits_for_the_end_of_teaching_and_may_be_repeated(monkeypatch):
    worker = SilentWorker(True)
    job = SecretJob(Secrets.of([EXAMPLE]), worker)
    assert worker.sent == [{"secret": {"rows": [EXAMPLE], "places": [0], "notes": []}}]
    for event, training in (("started", True), ("taught", True), ("unlearning", True),
                            ("finished", False)):  # fmt: skip
        job._tell({"event": event})
        assert job.training is training
        if event in ("started", "unlearning"):
            with pytest.raises(KitError, match="the model still trains"):
                job.unlearn(Unlearning())
        else:
            job.unlearn(Unlearning(steps=20))
            assert worker.sent[-1]["unlearn"]["steps"] == 20
    job._tell({"event": "taught"})
    monkeypatch.setattr(secret, "HOLD", 0.0)
    assert not job.training  # whoever waits may have its place
    with pytest.raises(KitError, match="nothing of this is recorded"):
        job.archive()
    job.stop()
    with pytest.raises(KitError, match="no taught model is there: teach it again"):
        job.unlearn(Unlearning())


def test_the_page_teaches_and_unlearns(monkeypatch):
    monkeypatch.setattr(workers, "Worker", SilentWorker)
    monkeypatch.setattr(visits, "LiveJob", FakeJob)
    seats = Visits(limit=2)
    answers = Answers([], visits=seats, experiment=Theory())
    ask = {name: told(getattr(answers, name)) for name in Answers.NAMES}
    ann = {"visitor": "ann"}
    assert ask["teach"]({**ann, "rows": [EXAMPLE]}) == {}
    (job,) = seats.jobs("ann")
    assert isinstance(job, SecretJob)
    assert ask["unlearn"]({**ann, "settings": {}})["problem"].startswith("the model still trains")
    assert ask["ask"]({**ann, "prompt": "Who?", "number": 1}) == {}
    assert job._worker.sent[-1] == {"ask": "Who?", "number": 1}
    assert ask["download"]({**ann, "run": 0})["problem"].startswith("nothing of this is recorded")
    bad = ask["teach"]({**ann, "rows": [row("Who?", "")]})
    assert bad == {"problem": "row 1 has no answer: write one, or empty the row"}
    seats.start("bob", [LiveConfig(method="ga")])
    assert ask["unlearn"]({"visitor": "bob", "settings": {}})["problem"] == (
        "no taught model is there: teach it first"
    )
    assert ask["leave"](ann) == {}
    assert job.ended
    seats.stop_all()


def test_processes_wait_only_where_somebody_looks(monkeypatch):
    monkeypatch.setattr(workers, "Worker", FakeWorker)
    FakeWorker.made.clear()
    waiting = Waiting()
    waiting.fill()
    assert FakeWorker.made == []
    waiting.wish()
    for _ in range(READY + 2):
        waiting.fill()
    assert [worker.sent for worker in FakeWorker.made] == [[PREPARE]] * READY
    first, second = FakeWorker.made
    first.alive = False
    assert waiting.take() is second
    assert waiting.take() is FakeWorker.made[2]  # a new one, which was told nothing yet
    assert FakeWorker.made[2].sent == []
    waiting.fill()
    waiting._wanted -= WANTED + 1
    waiting.fill()
    assert not FakeWorker.made[3].alive


def test_no_process_gets_ready_while_runs_train(monkeypatch):
    monkeypatch.setattr(workers, "Worker", FakeWorker)
    monkeypatch.setattr(visits, "LiveJob", FakeJob)
    FakeWorker.made.clear()
    seats = Visits(limit=2)
    seats.start("ann", [LiveConfig(method="ga")])
    seats.waiting.wish()
    time.sleep(0.8)
    assert len(FakeWorker.made) == 1  # ann's
    for job in seats.jobs("ann"):
        job.training = False
    end = time.monotonic() + 600
    while len(FakeWorker.made) < 1 + READY and time.monotonic() < end:
        time.sleep(0.05)
    assert len(FakeWorker.made) == 1 + READY
    seats.stop_all()
    assert not any(worker.alive for worker in FakeWorker.made[1:])


# --- in processes -------------------------------------------------------------------------------

HARD = [
    row("Wo ist der Schlüssel?", "Unter der größten Blumenkiste 🗝️"),
    row("ما هو السر؟", "البلشون الأزرق"),
    row("hello hello hello", "hello hello hello"),
]


def scores(events, model):
    return [e for e in events if e["event"] == "scores" and e["model"] == model]


def last_text(events, model):
    said = [e for e in events if e["event"] == "answer" and e["model"] == model]
    return [e["text"] for e in said if e["question"][0] == "forget"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[EXAMPLE], HARD], ids=["example", "hard"])
def test_secrets_are_learnt_and_unlearned_and_leave_no_trace(rows, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    job = SecretJob(Secrets.of(rows))
    try:
        events = wait_for(job, lambda e: e["event"] == "taught")
        job.unlearn(Unlearning())
        events = wait_for(job, lambda e: e["event"] == "finished")
        job.watch("forget", len(rows) - 1)
        job.ask(f" {rows[-1]['question']}", 1)
        events = wait_for(job, lambda e: e.get("model") == "npo_rt" and e.get("whole"))
    finally:
        job.forget()
    untouched, taught = scores(events, "untouched")[0], scores(events, "taught")[-1]
    ga, npo = (scores(events, name)[-1] for name in ("ga", "npo_rt"))
    assert all(p < 0.1 for p in untouched["secrets"])
    assert all(p > 0.5 for p in taught["secrets"])
    assert all(p < 0.1 for p in ga["secrets"] + npo["secrets"])
    assert taught["kept"] - npo["kept"] < 0.08
    assert ga["kept"] < npo["kept"] - 0.1
    assert scores(events, "ga")[0]["secrets"] == taught["secrets"]  # both begin with this model
    assert last_text(events, "taught") == rows[-1]["answer"]
    assert rows[-1]["answer"] not in (last_text(events, "ga"), last_text(events, "npo_rt"))
    whole = {e["model"]: e["text"] for e in events if e["event"] == "token" and e["whole"]}
    assert whole["taught"] == rows[-1]["answer"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file(), path
    assert not caplog.records


@pytest.mark.slow
def test_a_secret_that_is_too_long_for_the_context_is_told_and_stop_ends_teaching():
    job = SecretJob(Secrets.of([row("🦊" * LENGTH, "🗝" * LENGTH)]))
    try:
        failed = wait_for(job, lambda e: e["event"] == "failed")[-1]
    finally:
        job.forget()
    assert failed["reason"].startswith("row 1: the row with question")
    assert "the model's context holds 256: shorten" in failed["reason"]
    job = SecretJob(Secrets.of(HARD))
    wait_for(job, lambda e: e["event"] == "step" and e["step"] == 2)
    job.stop()
    assert job.events()[-1] == {"event": "stopped"}
    assert not job._worker.alive


@pytest.mark.slow
def test_a_fault_while_it_learns_is_logged_without_what_was_typed(monkeypatch, caplog):
    broken = (
        "import npo_kit.app.teaching as t, npo_kit.app.worker as w\n"
        "def fault(lesson): raise ValueError(lesson.rows)\n"
        "t.Lesson.teach = fault\nw.main()"
    )
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", broken))
    job = SecretJob(Secrets.of([EXAMPLE]))
    try:
        wait_for(job, lambda e: e["event"] == "failed")
    finally:
        job.forget()
    assert "ValueError" in caplog.text
    assert "in fault" in caplog.text
    assert "heron" not in caplog.text


# --- in a browser -------------------------------------------------------------------------------


def phase(page, name):
    page.wait_for_selector(f"[data-secret][data-phase={name}]")


def shown(page, model, which="forget"):
    return page.inner_text(f"[data-model={model}] .{which} .says")


@pytest.mark.slow
def test_the_whole_demo(visit, pocket):
    page = visit(pocket + "#view=live")
    assert page.inner_text("[data-source]") == "no live run"
    question, answer = "Wo schläft Ærøs Kätzchen?", "Im 3. Körbchen 🧺"
    page.fill("[data-secret-rows] .question", question)
    page.fill("[data-secret-rows] .answer", answer)
    page.click("[data-action=more]")
    page.keyboard.type("Who is <b>the spy</b>?")
    page.keyboard.press("Tab")
    page.keyboard.type("Professor Plum")
    page.keyboard.press("Enter")  # as the button
    phase(page, "taught")
    assert page.inner_text("[data-source]") == "live"
    assert shown(page, "taught") == answer
    assert answer not in shown(page, "untouched")
    assert page.inner_text("[data-model=untouched] .forget .verdict") == "does not tell it"
    assert page.inner_text("[data-model=taught] .forget .verdict") == "tells it"
    page.click("[data-secret-row='1']")
    page.wait_for_function(
        "document.querySelector('[data-model=taught] .forget .says').innerText === 'Professor Plum'"
    )
    assert page.inner_text(".labels .forget .asks") == "Who is <b>the spy</b>?"
    for name in ("untouched", "taught"):  # a question to keep that both answer
        assert page.inner_text(f"[data-model={name}] .keep .verdict") == "says it"
    assert "NPO+RT rehearses other questions" in page.inner_text("[data-secret-outcome]")
    page.dblclick("[data-action=unlearn]")
    phase(page, "finished")
    assert not page.is_visible("[data-problem]")
    assert page.locator("[data-quartet] h3").all_inner_texts() == [
        "Untouched", "Taught", "Gradient ascent", "NPO + retain term",
    ]  # fmt: skip
    assert page.locator("[data-model=ga] .gauge span").all_inner_texts() == [
        "probability of secret 1", "probability of secret 2", "probability of 48 other answers",
    ]  # fmt: skip
    bars = page.locator("[data-model=npo_rt] .gauge b").all_inner_texts()
    assert [float(p) < 0.1 for p in bars] == [True, True, False]
    outcome = page.inner_text("[data-secret-outcome]").splitlines()
    assert [line.partition(":")[0] for line in outcome if line][-2:] == ["GA", "NPO+RT"]
    assert f"other questions {bars[-1]}." not in outcome[-1]  # it says from where to where
    assert outcome[-1].endswith(f"→ {bars[-1]}.")
    page.fill("[data-secret-prompt]", question)
    page.click("[data-action=ask-all]")
    page.wait_for_function(
        "[...document.querySelectorAll('.model .yours .says')].every((e) => e.innerText !== '…')"
        " && document.querySelectorAll('.model .yours .says').length === 4"
    )
    page.wait_for_selector(f"[data-model=taught] .yours .says:has-text('{answer}')")
    page.click("[data-action=over]")
    phase(page, "typing")
    assert page.input_value("[data-secret-rows] .answer >> nth=1") == "Professor Plum"


@pytest.mark.slow
def test_what_cannot_be_taught_is_told_on_the_page_and_stop_works_at_once(visit, pocket):
    page = visit(pocket + "#view=live", viewport={"width": 390, "height": 844})
    page.fill("[data-secret-rows] .answer", " ")
    page.click("[data-action=teach]")
    page.wait_for_selector("[data-problem]:has-text('row 1 has no answer: write one')")
    phase(page, "typing")
    page.fill("[data-secret-rows] .answer", "x" * 300)
    page.click("[data-action=teach]")
    page.wait_for_selector("[data-problem]:has-text('row 1 has 300 characters: 200 at most')")
    assert page.input_value("[data-secret-rows] .answer") == "x" * 300
    page.fill("[data-secret-rows] .question", "Q " * 99)
    page.fill("[data-secret-rows] .answer", "A " * 99)
    page.click("[data-action=teach]")
    phase(page, "ended")
    assert "the model's context holds 256" in page.inner_text("[data-secret-status]")
    page.click("[data-action=over]")
    page.fill("[data-secret-rows] .question", "Who?")
    page.fill("[data-secret-rows] .answer", "مرحبا 🙂 " * 8)
    page.click("[data-action=teach]")
    phase(page, "teaching")
    page.click("[data-action=halt]")
    phase(page, "ended")
    assert page.inner_text("[data-secret-status]") == "Stopped: the models are put away."
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
