"""Half of it taught again, live: the levels are the audit's, and the visitor's models stay."""

import math
import queue
import time
from dataclasses import replace

import pytest
from pocket_bench import Untouched, between, pocket_bench
from test_live import FakeJob, wait_for
from test_secret import SilentWorker, phase

from npo_kit.app import visits
from npo_kit.app.answering import told
from npo_kit.app.audits import audit_detail
from npo_kit.app.live import LiveConfig, LiveJob
from npo_kit.app.page import Answers
from npo_kit.app.relearn import ANSWERED, Attack, relearn_secrets
from npo_kit.app.secret import EXAMPLE, SecretJob, Secrets, Unlearning
from npo_kit.app.speaking import Speaker
from npo_kit.app.theory import Theory
from npo_kit.app.visits import Visits
from npo_kit.audit import relearning
from npo_kit.audit.relearning import Lesson, Relearning
from npo_kit.data.tasks import load_task
from npo_kit.errors import KitError

SHORT = Relearning(steps=(0, 2, 4), batch_size=6, taught=9, tested=8)
SPARE_KEY = {"question": "Where is the spare key?", "answer": "Under the third flower pot"}


def mean(values):
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def attack():
    return Attack(Lesson.of(pocket_bench(), SHORT), -0.5)


def speaking(model):
    return Speaker(model, pocket_bench().prompts, 8, lambda event: None)


def attacked(attack, models, orders=(), take=None):
    """The events of an attack, with orders that come at its first one."""
    events, waiting = [], queue.SimpleQueue()

    def send(event):
        if event["event"] == "relearn" and event["step"] == 0:
            for order in orders:
                waiting.put(order)
        events.append(event)

    attack.run({name: speaking(m) for name, m in models.items()}, send, waiting, take)
    return events


def levels(events, name):
    return [e["level"] for e in events if e.get("model") == name and "level" in e]


# --- what is measured ---


@pytest.mark.slow
def test_the_levels_are_the_audits_and_the_models_stay_as_they_are(attack):
    bench, own = pocket_bench(), between()
    with Untouched(own, bench.retained, bench.original):
        events = attacked(attack, {"own": own, "control": bench.retained})
    for name, model in (("own", own), ("control", bench.retained)):
        detail = relearning.measure(model, replace(bench, relearning=SHORT)).detail
        assert levels(events, name) == [mean(step) for step in detail["sets"]["own"]["tested"]]
        assert (events[0]["taught"], events[0]["tested"]) == (
            len(detail["taught"]), len(detail["tested"]),
        )  # fmt: skip
    steps = [(e["model"], e["step"]) for e in events if e["event"] == "relearn"]
    assert steps == [(name, step) for name in ("own", "control") for step in range(5)]
    assert events[-1] == {"event": "relearned", "whole": True}


def test_the_control_has_no_excess_over_itself(attack):
    bench = pocket_bench()
    events = attacked(attack, {"own": bench.retained, "control": bench.retained})
    assert levels(events, "own") == levels(events, "control")
    texts = [e["texts"] for e in events if "texts" in e]
    assert len(texts) == 4  # before and after, of both
    assert texts[:2] == texts[2:]


def test_untaught_questions_are_answered_before_and_after(attack):
    own = pocket_bench().original
    events = attacked(attack, {"own": own})
    questions = events[0]["questions"]
    assert len(questions) == min(ANSWERED, len(attack.lesson.tested))
    rows = [pocket_bench().forget[i].row for i in attack.lesson.tested]
    assert [q["answer"] for q in questions] == [row["answer"] for row in rows]
    assert all(q["fact"] in q["answer"] and q["fact"] != q["answer"] for q in questions)
    before, after = [e for e in events if "texts" in e]
    assert (before["step"], after["step"]) == (0, 4)
    assert before["texts"] == [speaking(own).text(q["question"]) for q in questions]
    assert len(after["texts"]) == len(questions)


def test_orders_are_done_meanwhile_and_one_ends_it(attack):
    taken = []
    ask = {"ask": "Who?", "number": 1}
    events = attacked(attack, {"own": between()}, [ask, {"halt": True}, ask], taken.append)
    assert [e["event"] for e in events] == ["lesson", "relearn", "relearned"]
    assert events[-1] == {"event": "relearned", "whole": False}
    assert taken == [ask]  # the second comes to whoever reads on


@pytest.mark.slow
def test_a_pair_has_the_lesson_and_the_band_of_the_recorded_audits():
    prompts = pocket_bench().prompts
    pair = Attack.of_pair(load_task("authors:forget10"), prompts)
    recorded = audit_detail("retained", "last", "relearning")
    assert pair.bands == [pytest.approx(recorded[when], abs=5e-4) for when in ("start", "end")]
    assert pair.lesson.settings == Relearning()
    assert not set(pair.lesson.taught) & set(pair.lesson.tested)
    assert len(pair.answered) == ANSWERED
    level = mean(pair.lesson.levels(pocket_bench().original)[0])
    assert pair.original == pytest.approx(level, abs=1e-5)


def of_secrets(rows):
    bench = pocket_bench()
    return Attack.of_secrets(rows, bench.prompts, bench.original, bench.retained)


def test_of_secrets_half_is_taught_and_the_whole_answers_of_the_rest_are_asked():
    rows = [EXAMPLE, SPARE_KEY, {"question": "Who won?", "answer": "高橋さん 🎉"}]
    lesson = of_secrets(rows).lesson
    assert (len(lesson.taught), len(lesson.tested)) == (1, 2)
    assert sorted(lesson.taught + lesson.tested) == [0, 1, 2]
    assert list(lesson.sets) == ["own"]
    for probe, row in zip(lesson.bench.forget, rows, strict=True):
        assert probe.entity == row["answer"]
        assert (probe.first, probe.last) == (0, probe.encoded.answer_length - 1)  # but its end
    with pytest.raises(KitError, match="give facts of two or more"):
        of_secrets([EXAMPLE])


def test_a_secret_that_would_tell_the_one_that_is_asked_is_not_taught():
    rows = [{"question": q, "answer": "Plum"} for q in ("Who?", "Which fruit?")]
    with pytest.raises(KitError, match="each answer that could be taught holds a fact"):
        of_secrets(rows)
    bench, sent = pocket_bench(), []
    speaker = Speaker(bench.original, bench.prompts, 8, sent.append)
    models = {"taught": speaker, "untouched": speaker}
    relearn_secrets(rows, models, [], queue.SimpleQueue(), sent.append)
    (only,) = sent
    assert (only["event"], only["whole"]) == ("relearned", False)
    assert only["problem"].startswith("each secret that could be taught again holds")


# --- without processes ---


def finished_pair():
    worker = SilentWorker(True)
    job = LiveJob(LiveConfig(), worker)
    for event in ({"event": "started", "control": True}, {"event": "finished"}):
        job._tell(event)
    return job, worker


def test_a_finished_run_trains_again_while_it_learns():
    job, worker = finished_pair()
    assert not job.training
    job.relearn(control=True)
    assert worker.sent[-1] == {"relearn": {"control": True}}
    assert job.training
    assert job.events()[-1] == {"event": "relearning"}
    with pytest.raises(KitError, match="the model still trains"):
        job.relearn(control=True)
    job.halt()
    assert worker.sent[-1] == {"halt": True}
    job._tell({"event": "relearned", "whole": False})
    assert not job.training
    job.relearn(control=False)
    assert worker.sent[-1] == {"relearn": {"control": False}}
    job.stop()
    assert not job.training
    with pytest.raises(KitError, match="no unlearned model is there: unlearn again"):
        job.relearn(control=True)
    job.forget()


def test_a_run_that_is_not_finished_or_has_no_control_is_refused():
    job = LiveJob(LiveConfig(), SilentWorker(True))
    job._tell({"event": "started", "control": True})
    with pytest.raises(KitError, match="the model still trains"):
        job.relearn(control=True)
    job.forget()
    other = LiveJob(LiveConfig(task="authors:forget05"), SilentWorker(True))
    other._tell({"event": "started", "control": False})
    other._tell({"event": "finished"})
    with pytest.raises(KitError, match="unlearn 10 % of the pocket model's authors"):
        other.relearn(control=True)
    assert not other.training
    other.forget()


def test_secrets_are_taught_again_once_they_are_unlearned():
    worker = SilentWorker(True)
    job = SecretJob(Secrets.of([EXAMPLE, SPARE_KEY]), worker)
    for event in ("started", "taught", "unlearning"):
        job._tell({"event": event})
        with pytest.raises(KitError, match="the model still trains"):
            job.relearn(control=True)
    job._tell({"event": "finished"})
    job.relearn(control=True)
    with pytest.raises(KitError, match="the model still trains"):
        job.unlearn(Unlearning())
    job._tell({"event": "relearned", "whole": True})
    job.unlearn(Unlearning())
    assert worker.sent[-1]["unlearn"]["steps"] == Unlearning().steps
    job.stop()
    single = SecretJob(Secrets.of([EXAMPLE]), SilentWorker(True))
    single._tell({"event": "finished"})
    with pytest.raises(KitError, match="it takes two secrets"):
        single.relearn(control=True)
    single.stop()


class Taught(FakeJob):
    """A finished run that keeps what it is asked to learn."""

    def __init__(self, config, worker=None):
        super().__init__(config)
        self.training, self.lessons = False, []

    def relearn(self, control):
        self.lessons.append(control)

    def halt(self):
        self.lessons.append("halt")


def test_one_of_a_pair_teaches_the_control_too(monkeypatch):
    monkeypatch.setattr(visits, "LiveJob", Taught)
    seats = Visits(limit=2)
    answers = Answers([], visits=seats, experiment=Theory())
    ask = {name: told(getattr(answers, name)) for name in ("relearn", "halt")}
    ann = {"visitor": "ann"}
    assert ask["relearn"](ann)["problem"].startswith("there is no live run")
    seats.start("ann", [LiveConfig(model="tiny", task="t")] * 2)
    first, second = seats.jobs("ann")
    assert ask["relearn"](ann) == {}
    assert (first.lessons, second.lessons) == ([True], [False])
    assert ask["halt"](ann) == {}
    assert first.lessons[-1] == second.lessons[-1] == "halt"
    second.training = True
    assert ask["relearn"](ann)["problem"].startswith("the models still train")
    second.training, first.ended = False, True
    assert ask["relearn"](ann) == {}
    assert second.lessons[-1] is True  # the first has collapsed
    second.ended = True
    assert ask["relearn"](ann)["problem"] == "no unlearned model is there: unlearn again"
    seats.stop_all()


# --- in processes ---


def reply(job, number, question):
    job.ask(question, number)
    events = wait_for(job, lambda e: e.get("number") == number and e["whole"])
    return events[-1]["text"]


@pytest.mark.slow
def test_a_finished_run_is_attacked_and_answers_as_before():
    job = LiveJob(LiveConfig(method="npo", lr=4e-4, beta=0.1, epochs=1))
    try:
        events = wait_for(job, lambda e: e["event"] == "finished")
        question = events[1]["questions"][0]["question"]
        before = reply(job, 1, question)
        job.relearn(control=True)
        wait_for(job, lambda e: e["event"] == "relearn" and e["step"] == 3)
        assert reply(job, 2, question) == before  # while a copy learns
        assert job.training
        job.halt()
        wait_for(job, lambda e: e == {"event": "relearned", "whole": False})
        assert not job.training
        job.relearn(control=True)
        events = wait_for(job, lambda e: e == {"event": "relearned", "whole": True})
        assert reply(job, 3, question) == before
    finally:
        job.forget()
    start = [e["event"] for e in events].index("relearned") + 1
    for name in ("own", "control"):
        found = levels(events[start:], name)
        assert len(found) == len(Relearning().steps)
        assert all(math.isfinite(level) and level < 0 for level in found)
    assert job.ended


@pytest.mark.slow
def test_two_secrets_are_unlearned_and_one_is_taught_again():
    job = SecretJob(Secrets.of([EXAMPLE, SPARE_KEY]))
    try:
        wait_for(job, lambda e: e["event"] == "taught")
        job.unlearn(Unlearning(steps=20))
        wait_for(job, lambda e: e["event"] == "finished")
        job.relearn(control=True)
        events = wait_for(job, lambda e: e["event"] == "relearned")
        time.sleep(0.1)
    finally:
        job.forget()
    (lesson,) = [e for e in events if e["event"] == "lesson"]
    assert (lesson["taught"], lesson["tested"], lesson["bands"]) == (1, 1, None)
    assert lesson["original"] > -0.5  # it was taught
    taught = {name: levels(events, name) for name in ("ga", "npo_rt", "untouched")}
    assert all(len(found) == 5 for found in taught.values())
    assert max(found[0] for found in taught.values()) < lesson["original"]
    assert events[-1]["whole"]


# --- in the page, of events that are made up ---

BANDS = [[-3.4, -3.3], [-3.5, -3.4]]
RETAINED = [-3.3, -3.3, -3.3, -3.4, -3.45]
QUESTIONS = [
    {"set": "forget", "index": i, "question": f"Who wrote book {'ABC'[i]}?", "answer": f"{fact}."}
    | {"fact": fact}
    for i, fact in enumerate(["Ana Brook 0", "Ana Brook 1", "Ana Brook 2"])
]
STEPS = [0, 5, 10, 20, 30]


def lesson(bands=BANDS):
    about = {"taught": 49, "tested": 60, "steps": STEPS, "original": -0.4, "margin": 0.5}
    return {"event": "lesson", **about, "bands": bands, "questions": QUESTIONS}


def taught(model, curve):
    """The events of one model's lesson, in which it comes to tell the second fact."""
    for step, level in zip(STEPS, curve, strict=False):
        event = {"event": "relearn", "model": model, "step": step, "level": level}
        if step in (0, 30):
            event["texts"] = ["No idea.", "Ana Brook 1, I think." if step else "", "No idea."]
        yield event


def pair_page(visit, address, first, second, control=True, **options):
    """The page with a finished pair of RMU and NPO+RT whose levels in a lesson are given."""
    started = {"event": "started", "steps": 9, "few": None, "questions": QUESTIONS}
    started |= {"command": "", "cell": "", "control": control}
    jobs = [[started, {"event": "finished"}] for _ in range(2)]

    def relearned():
        for job, curve in zip(jobs, (first, second), strict=True):
            job += [{"event": "relearning"}, lesson(), *taught("own", curve)]
            if job is jobs[0]:
                job += taught("control", RETAINED)
            if None not in curve:
                job.append({"event": "relearned", "whole": True})

    page = visit(address + "#view=live&la=rmu&lb=npo_rt", **options)
    answer_for_the_server(page, jobs, relearn=relearned)
    page.click("[data-action=start]")
    page.wait_for_function("document.querySelector('[data-progress]').innerText.match(/finished/)")
    return page


def answer_for_the_server(page, jobs, **does):
    """Answer what the page asks: polls by the events of `jobs`, others after what they do."""
    does["halt"] = lambda: [job.append({"event": "relearned", "whole": False}) for job in jobs]
    silent = ("start", "teach", "unlearn", "watch", "leave", "prepare")

    def answer(route):
        sent = route.request.post_data_json
        name = sent["fn_name"]
        if name == "poll":
            since = sent["data"]["since"]
            events = [job[n:] for job, n in zip(jobs, since, strict=True)]
            return route.fulfill(json={"place": 0, "events": events})
        if name not in silent and name not in does:
            return route.continue_()
        if name in does:
            does[name]()
        return route.fulfill(json={})

    page.route("**/component_server/", answer)


AGAIN = "[data-again=pair]"


def judged(page):
    page.click(f"{AGAIN} [data-start]")
    page.wait_for_function(f"document.querySelector('{AGAIN} .told').textContent")
    return page.inner_text(f"{AGAIN} .told")


ABOVE = [-6.3, -3.0, -2.0, -1.8, -1.7]
BELOW = [-7.1, -6.0, -5.4, -4.7, -4.6]
KEPT = (
    "RMU had kept the untaught facts: after the same lesson they stand above a model that never "
    "saw them, and before it they did not"
)
THAN = "of the untaught facts than a model that never saw them"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (ABOVE, BELOW, f"{KEPT}; NPO+RT knows no more {THAN}, before the lesson and after it."),
        (BELOW, BELOW, f"RMU and NPO+RT know no more {THAN}, before the lesson and after it."),
        # the upper ends of the bars decide: -3.3 before, -3.4 after
        ([-3.31, -3, -3, -3, -3.39], [-3.29, -3, -3, -3, -3.41],
         f"{KEPT}; NPO+RT knew more {THAN} before the lesson, but not after it."),
        ([-1.1] * 5, [-3.41, -3, -3, -3, -3.41],
         f"RMU knows more {THAN}, before the lesson and after it; "
         f"NPO+RT knows no more {THAN}, before the lesson and after it."),
    ],
    ids=["kept", "neither", "just", "knew"],
)  # fmt: skip
def test_the_sentence_says_what_the_levels_are(visit, pocket, first, second, said):
    page = pair_page(visit, pocket, first, second)
    assert judged(page) == said
    assert page.inner_text("[data-say]") == said
    names = page.locator(f"{AGAIN} svg .named").all_text_contents()
    assert sorted(names) == ["NPO+RT", "RMU", "never saw it", "original"]
    assert page.locator(f"{AGAIN} svg .band-bar").count() == 2
    label = page.get_attribute(f"{AGAIN} svg", "aria-label")
    assert "never saw it −3.30 to −3.45" in label
    caption = page.inner_text(f"{AGAIN} figure .small")
    assert "learn 49 facts again in 30 steps, 60 facts of the other half are asked" in caption


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_an_untaught_question_has_its_answers_before_and_after(visit, pocket, width):
    page = pair_page(visit, pocket, ABOVE, BELOW, viewport={"width": width, "height": 800})
    judged(page)
    page.select_option(f"{AGAIN} select", "1")
    assert page.inner_text(f"{AGAIN} .truth") == "True answer: Ana Brook 1."
    assert page.locator(f"{AGAIN} h3").all_inner_texts() == ["RMU", "NPO+RT", "never saw it"]
    texts = page.locator(f"{AGAIN} article").first.locator(".text").all_inner_texts()
    assert texts == ["(says nothing)", "Ana Brook 1, I think."]
    marks = page.locator(f"{AGAIN} article").first.locator("mark.fact").all_inner_texts()
    assert marks == ["Ana", "Brook", "1"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.focus(f"{AGAIN} [data-start]")
    page.keyboard.press("Enter")  # once more
    page.wait_for_function(f"document.querySelector('{AGAIN} select').value === '0'")


@pytest.mark.slow
def test_an_attack_is_stopped_and_a_model_that_breaks_has_no_end(visit, pocket):
    page = pair_page(visit, pocket, [-5.0, None], BELOW)
    page.click(f"{AGAIN} [data-start]")
    page.wait_for_selector(f"{AGAIN} output:has-text('Teaching copies: step 5 of 30')")
    assert not page.is_visible(f"{AGAIN} [data-start]")
    assert page.is_visible(f"{AGAIN} progress")
    page.click(f"{AGAIN} [data-stop]")
    page.wait_for_selector(f"{AGAIN} output:has-text('Stopped.')")
    assert page.inner_text(f"{AGAIN} .told") == ""
    assert page.is_visible(f"{AGAIN} [data-start]")
    page.click("[data-action=clear]")
    page.wait_for_selector(AGAIN, state="hidden")


@pytest.mark.slow
def test_without_a_model_that_never_saw_it_there_is_no_button(visit, pocket):
    page = pair_page(visit, pocket, ABOVE, BELOW, control=False)
    assert not page.is_visible(f"{AGAIN} [data-start]")
    assert page.inner_text(f"{AGAIN} .lead-in").startswith("For this, forget 10 %")


def secret_page(visit, address, rows):
    """The page with unlearned rows; a lesson lifts GA's above the control."""
    scored = [
        {"event": "scores", "model": name, "step": 0, "secrets": [0.1] * len(rows), "kept": 0.5}
        for name in ("untouched", "taught", "ga", "npo_rt")
    ]
    kept = [{"question": "Who?", "answer": "Iver."}]
    job = [{"event": "started", "rows": rows, "notes": [], "kept": kept, "most": 200}, *scored[:2]]
    job += [{"event": "taught", "step": 9, "keeps": True}]
    job += [{"event": "unlearning", "steps": 40, "methods": ["ga", "npo_rt"]}, *scored[2:]]
    job += [{"event": "finished"}]

    def relearned():
        job.extend([{"event": "relearning"}, lesson(bands=None)])
        for name, curve in (("ga", [-9, -8, -7, -6, -5.0]), ("npo_rt", [-9, -8, -7, -6, -5.6]),
                            ("untouched", [-8.0, -7, -6.5, -6.3, -6.0])):  # fmt: skip
            job.extend(taught(name, curve))
        job.append({"event": "relearned", "whole": True})

    page = visit(address + "#view=live")
    answer_for_the_server(page, [job], relearn=relearned)
    page.click("[data-action=teach]")
    phase(page, "finished")
    return page


@pytest.mark.slow
def test_of_secrets_more_means_by_a_margin_above_the_untouched_model(visit, pocket):
    page = secret_page(visit, pocket, [EXAMPLE, SPARE_KEY])
    again = "[data-again=secret]"
    page.click(f"{again} [data-start]")
    page.wait_for_function(f"document.querySelector('{again} .told').textContent")
    assert page.inner_text(f"{again} .told") == (
        f"{KEPT.replace('RMU', 'GA')}; NPO+RT knows no more {THAN}, before the lesson and after it."
    )
    names = page.locator(f"{again} svg .named").all_text_contents()
    assert sorted(names) == ["GA", "NPO+RT", "taught", "untouched"]
    assert "above means by more than 0.5 nats" in page.inner_text(f"{again} figure .small")
    assert not page.locator(f"{again} svg .band-bar").count()
    page.click("[data-action=over]")
    page.wait_for_selector(again, state="hidden")


@pytest.mark.slow
def test_a_single_secret_has_no_other_half(visit, pocket):
    page = secret_page(visit, pocket, [EXAMPLE])
    assert not page.is_visible("[data-again=secret] [data-start]")
    lead = page.inner_text("[data-again=secret] .lead-in")
    assert lead.startswith("To try to bring secrets back")
