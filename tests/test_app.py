"""The page in a real browser: the recorded study, and a live run that is stopped."""

import re
import time
from urllib.parse import urlsplit

import pytest
from browser import browser, chromium, free_port, served
from studies import HOSTILE, write_study

from npo_kit import app

READY = "[data-chart] svg"


@pytest.fixture(scope="module")
def window():
    chromium()
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def collectors(tmp_path_factory):
    with served(write_study(tmp_path_factory.mktemp("s") / "collectors")) as (address, _, process):
        yield address, process


@pytest.fixture
def visit(window):
    """Opens an address in a fresh context; afterwards nothing may have gone wrong or abroad."""
    contexts, problems, hosts = [], [], set()

    def opened(address, **options):
        options = {"viewport": {"width": 1280, "height": 900}} | options
        contexts.append(window.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: hosts.add(urlsplit(request.url)))
        page.goto(address)
        page.wait_for_selector(READY)
        page.wait_for_function("!document.querySelector('[data-column=a] .text.none') || true")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
    assert {host.hostname for host in hosts if host.scheme.startswith(("http", "ws"))} == {
        "127.0.0.1"
    }


def said(page, column):
    return page.locator(f"[data-column={column}] .text")


def press(page, key):
    """A key with nothing in focus."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(key)


def wait_text(page, column, text):
    page.wait_for_function(
        "([column, text]) => document.querySelector(`[data-column=${column}] .text`)"
        ".textContent === text",
        arg=[column, text],
    )


def address_of(page):
    return dict(re.findall(r"(\w+)=([^&]*)", urlsplit(page.url).fragment))


def test_it_opens_on_the_last_step_and_says_recorded(visit, collectors):
    page = visit(collectors[0])
    wait_text(page, "b", "forget 0 says at 40")
    assert page.inner_text("[data-source]") == "recorded"
    assert page.inner_text("[data-column=b] .tag") == "recorded · step 40"
    assert page.inner_text("[data-question]") == "What does person 0 collect?"
    assert page.locator("[data-list] button").count() == 8
    assert page.locator("[data-side=a] option").all_inner_texts() == [
        "GA",
        "NPO+RT",
        "NPO+RT, seed 1",
        "NPO+RT, β 0.1",
    ]


def test_the_server_has_not_imported_torch(visit, collectors):
    visit(collectors[0])
    with open(f"/proc/{collectors[1].pid}/maps") as maps:
        libraries = maps.read()
    assert "numpy" in libraries
    assert "libtorch" not in libraries


def test_scrubbing_changes_texts_scores_and_the_ring(visit, collectors):
    page = visit(collectors[0])
    wait_text(page, "b", "forget 0 says at 40")
    before = page.locator("[data-ring=npo_rt]").get_attribute("cy")
    page.locator("[data-step]").fill("10")
    wait_text(page, "b", "forget 0 says at 10")
    assert page.locator("[data-ring=npo_rt]").get_attribute("cy") != before
    assert page.inner_text("[data-at]") == "step 10 of 40"
    scores = page.locator("[data-column=b] dd").all_inner_texts()
    # P = e^-.51 and e^-.01; R = e^(mean(-2, -2.5, -3) - mean_logp + .5) = e^-1.49 and e^-1.99
    assert scores == ["0.60", "0.99", "0.80", "1.00", "0.23", "0.14", "−1.20", "−0.20"]
    press(page, "ArrowRight")
    wait_text(page, "b", "forget 0 says at 20")
    page.locator("[data-step]").press("ArrowLeft")
    wait_text(page, "b", "forget 0 says at 10")
    page.locator("[data-step]").fill("30")
    assert page.locator("[data-column=a] .badge").all_inner_texts() == ["repeats itself"]


def test_the_scrub_is_quick(visit, collectors):
    page = visit(collectors[0])
    wait_text(page, "b", "forget 0 says at 40")
    took = page.evaluate(
        """() => { const step = document.querySelector('[data-step]'), times = [];
        for (let i = 0; i < 20; i++) { const t = performance.now(); step.value = 10 * (i % 5);
          step.dispatchEvent(new Event('input')); times.push(performance.now() - t); }
        return times.sort((x, y) => x - y)[10]; }"""
    )
    assert took < 500  # milliseconds; 50 on a machine that does nothing else


def test_a_point_of_the_curve_leads_to_its_step_and_method(visit, collectors):
    page = visit(collectors[0])
    page.locator('.dot[data-run="npo_rt"][data-point="20"]').dispatch_event("click")
    wait_text(page, "b", "forget 0 says at 20")
    page.select_option("[data-side=b]", "npo_rt-seed1")
    page.locator('.dot[data-run="npo_rt"][data-point="30"]').dispatch_event("click")
    assert page.input_value("[data-side=b]") == "npo_rt"
    assert address_of(page) == {
        "q": "0", "step": "30", "a": "ga", "b": "npo_rt", "set": "forget",
    }  # fmt: skip


def test_choosing_and_searching_questions(visit, collectors):
    page = visit(collectors[0])
    page.locator("[data-list] button").nth(2).click()
    wait_text(page, "b", "forget 2 says at 40")
    page.select_option("[data-set]", "all")
    assert page.inner_text("[data-count]") == "18 of 18 questions"
    page.fill("[data-search]", "person 7")
    assert page.inner_text("[data-count]") == "1 of 18 questions"
    page.fill("[data-search]", "nothing like it")
    assert page.inner_text("[data-count]") == "0 of 18 questions"
    page.fill("[data-search]", "")
    page.select_option("[data-set]", "world_facts")
    press(page, "j")
    wait_text(page, "b", "world_facts 0 says at 40")


def test_a_link_shows_a_fresh_browser_the_same(visit, collectors):
    link = collectors[0] + "#q=9&step=20&a=npo_rt-beta0.1&b=npo_rt-seed1&set=retain&find=person"
    page = visit(link)
    wait_text(page, "a", "retain 1 says at 20")
    assert page.url == link
    assert page.input_value("[data-side=b]") == "npo_rt-seed1"
    assert page.input_value("[data-search]") == "person"


@pytest.mark.parametrize(
    "fragment",
    ["q=999&step=-4", "q=x&a=constructor&b=__proto__&set=toString", "q=1.5&step=1e9&find=%00%FF"],
)
def test_a_senseless_link_shows_something_sensible(visit, collectors, fragment):
    page = visit(collectors[0] + "#" + fragment)
    page.wait_for_function(
        "document.querySelector('[data-column=original] .text').textContent.includes('old maps')"
    )


def test_model_text_is_text(visit, collectors):
    page = visit(collectors[0] + "#q=0&step=20&find=<b>{{7*7}}${7*7}</b>")
    wait_text(page, "a", HOSTILE)
    assert page.title() == "npo_kit"
    assert page.locator("[data-column=a] .text img, [data-column=a] .text script").count() == 0
    assert page.input_value("[data-search]") == "<b>{{7*7}}${7*7}</b>"


def test_the_fact_is_marked_where_it_is_said(visit, collectors):
    page = visit(collectors[0])
    page.wait_for_selector("[data-column=original] mark.fact")
    marked = page.locator("[data-column=original] mark.fact").all_inner_texts()
    assert marked == ["collects", "old", "maps"]  # "Person" is given away by the question
    assert page.locator("[data-column=original] .badge").all_inner_texts() == ["says the fact"]
    assert page.locator("[data-column=b] .badge.leak").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_scrolls_down_only(visit, collectors, scheme):
    page = visit(collectors[0], viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [page.locator(f"[data-column={c}]").bounding_box()["y"] for c in ("original", "a", "b")]
    assert tops == sorted(set(tops))


def test_everything_can_be_reached_by_keyboard(visit, collectors):
    page = visit(collectors[0])
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(e => Object.keys(e.dataset).concat(Object.values(e.dataset)).join(' '))"
                "(document.activeElement)"
            )
        )
    words = " ".join(reached).split()
    for name in ("set", "search", "step", "play", "side", "knob", "start", "link", "keys"):
        assert name in words, name
    press(page, "?")
    assert page.locator("[data-keys]").is_visible()


# --- live ---------------------------------------------------------------------------------------


def test_a_live_run_of_the_recorded_study_and_its_stop(visit):
    with served() as (address, seconds, _):
        assert seconds < 30  # 10 on a machine that does nothing else
        page = visit(address)
        page.wait_for_selector("[data-column=original] mark")
        page.evaluate("document.querySelector('[data-knob=epochs]').value = 1")
        page.evaluate("document.querySelector('[data-knob=epochs]').dataset.touched = 1")
        page.click("[data-action=start]")
        page.wait_for_function(
            "[...document.querySelectorAll('[data-progress] p')]"
            ".filter((p) => /step ([2-9]|10) of 10/.test(p.innerText)).length === 2",
            timeout=180_000,
        )
        assert page.inner_text("[data-source]") == "live"
        assert page.inner_text("[data-column=a] .tag").startswith("live")
        assert page.inner_text("[data-column=original] .tag").startswith("recorded")
        started = time.monotonic()
        page.click("[data-action=stop]")
        page.wait_for_function(
            "document.querySelector('[data-progress]').innerText.includes('stopped')"
        )
        assert time.monotonic() - started < 2.0
        assert page.locator(".ring").count() == 2
        page.click("[data-action=recorded]")
        assert page.inner_text("[data-source]") == "recorded"
        assert page.input_value("[data-side=a]") == "ga"
        page.context.close()


# --- the command --------------------------------------------------------------------------------


def test_what_cannot_be_served_is_said_in_a_sentence(tmp_path, capsys):
    assert app.main([str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert app.main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert app.main(["--host", "192.0.2.1", "--port", str(free_port())]) == 2
    assert "choose another --port or --host" in capsys.readouterr().err
    assert app.main(["--port", "99999"]) == 2
    assert "cannot listen at 127.0.0.1:99999" in capsys.readouterr().err
