"""The first screen in a browser: what it says, how large, the tour, and a lecture."""

import re

import pytest
from browser import READY, address_of, patient, press, served_here, wait_text
from studies import write_study

from npo_kit.app.packed import packed_studies
from npo_kit.data.glossary import read_glossary
from npo_kit.data.shipped import shipped_data
from npo_kit.metrics.summary import summarise
from npo_kit.records.run import read_run
from npo_kit.studies.splits import split_runs
from npo_kit.studies.table import last_evaluation, study_table

POCKET = shipped_data("studies/pocket")
FONT = "e => parseFloat(getComputedStyle(e).fontSize)"
SIZES = {"projector": (1920, 1080), "laptop": (1280, 720)}


@pytest.fixture(scope="module")
def collectors(tmp_path_factory):
    with served_here(write_study(tmp_path_factory.mktemp("s") / "collectors")) as address:
        yield address


def percent(share):
    return f"{100 * share:.0f}\u00a0%"


@pytest.fixture(scope="module")
def ends():
    """The summary of each of the pocket study's runs at its end."""
    reference = last_evaluation(read_run(POCKET / "retained"))
    names = [path.parent.name for path in POCKET.glob("*/run.json")]
    return {name: summarise(last_evaluation(read_run(POCKET / name)), reference) for name in names}


# --- what it says -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_first_screen_tells_the_story_above_the_fold(visit, pocket, size):
    width, height = SIZES[size]
    page = visit(pocket, viewport={"width": width, "height": height})
    page.wait_for_selector("[data-column=retained] [data-row=keep] .badge")
    words = page.inner_text("body")
    for word in ("forget", "keep", "Gradient ascent", "Negative Preference Optimization",
                 "Unlearning", "recorded"):  # fmt: skip
        assert re.search(word, words, re.IGNORECASE), word
    bottoms = "all => Math.max(...all.map((each) => each.getBoundingClientRect().bottom))"
    seen = "[data-meter] .value, [data-step], [data-action=play], .answer .badge, .asked .question"
    assert page.locator(seen).evaluate_all(bottoms) <= height
    stage = page.locator("[data-stage]").bounding_box()
    left, right = stage["x"], width - stage["x"] - stage["width"]
    assert abs(left - right) <= 16  # the room of a scroll bar
    assert left < 0.05 * width
    sizes = page.locator(".answer .text").evaluate_all(f"all => all.map({FONT})")
    assert len(sizes) == 8 + 2  # two rows of four columns, and a fifth column that is hidden
    assert min(sizes) >= (28 if width == 1920 else 19)


def test_the_bars_say_what_the_records_say(visit, pocket, ends):
    page = visit(pocket)
    page.wait_for_selector("[data-column=b] [data-row=keep] .badge")
    whole = ends["original"]["model_utility"]
    for column, run in (("original", "original"), ("a", "ga"), ("b", "npo_rt"),
                        ("retained", "retained")):  # fmt: skip
        told = page.locator(f"[data-column={column}] .value").all_inner_texts()
        end = ends[run]
        assert told == [percent(end["forget_rouge_l"]), percent(end["model_utility"] / whole)]
    mark = page.locator("[data-column=a] [data-meter=tells] b")
    bar = page.locator("[data-column=a] [data-meter=tells] .bar").bounding_box()
    at = (mark.bounding_box()["x"] - bar["x"]) / bar["width"]
    assert at == pytest.approx(ends["retained"]["forget_rouge_l"], abs=0.02)


def in_a_row(text):
    return " ".join(["", *re.findall(r"[^\W_]+", text.lower()), ""])


def tells(evaluation, question):
    said = evaluation.rows[question["set"]][question["index"]]["generation"]
    return in_a_row(question["fact"]) in in_a_row(said)


@pytest.mark.parametrize("name", ["pocket", "smollm2"])
@pytest.mark.slow
def test_it_opens_on_the_first_question_that_sets_the_original_and_the_goal_apart(name):
    study = shipped_data(f"studies/{name}")
    index = packed_studies(study)[0].index()
    runs = [read_run(study / run).evaluation(0) for run in ("original", "retained")]
    for row, wanted in (("forget", [True, False]), ("keep", [True, True])):
        first = next(
            number
            for number, question in enumerate(index["questions"])
            if (question["set"] == "forget") == (row == "forget")
            and [tells(each, question) for each in runs] == wanted
        )
        assert index["opening"][row] == first


@pytest.mark.slow
def test_a_fifth_column_and_only_as_many_as_there_are_models(visit, pocket):
    page = visit(pocket + "#c=npo")
    page.wait_for_selector("[data-column=c] [data-row=forget] .badge")
    heads = page.locator("[data-column]:visible h3").all_inner_texts()
    assert heads == ["Original", "Gradient ascent", "NPO + retain term", "NPO",
                     "Retrained without it"]  # fmt: skip
    press(page, "?")
    page.select_option("[data-side=c]", "ga")  # which is there already
    assert page.locator("[data-column]:visible").count() == 4


def test_on_a_phone_slider_and_answers_are_on_screen_together(visit, pocket):
    page = visit(pocket, viewport={"width": 390, "height": 844})
    page.wait_for_selector("[data-column=b] [data-row=keep] .badge")
    box = page.locator("[data-step]").bounding_box()
    assert 0 < box["y"] < 844 - box["height"]
    for column in ("a", "b"):
        text = page.locator(f"[data-column={column}] [data-row=forget] .text").bounding_box()
        assert text["y"] + text["height"] < box["y"]
        assert text["x"] >= 0
        assert text["x"] + text["width"] <= 390
    page.locator("[data-stage]").evaluate("e => { e.scrollLeft = 400; }")
    page.wait_for_timeout(300)
    assert page.locator("[data-column=retained] h3").bounding_box()["x"] < 390
    asked = page.locator("[data-question=forget]").bounding_box()
    assert 0 <= asked["x"] < 40  # the question stays where the answers move


@pytest.mark.slow
def test_it_plays_once_on_a_first_visit_and_not_where_nothing_may_move(window, pocket):
    context = patient(window.new_context(reduced_motion="no-preference"))
    page = context.new_page()
    page.goto(pocket)
    page.wait_for_selector(READY)
    page.wait_for_selector("[data-at]:has-text('step 0 of 100')")
    page.wait_for_selector("[data-action=play][aria-pressed=true]")
    page.wait_for_selector("[data-at]:has-text('step 100 of 100')")
    again = context.new_page()
    again.goto(pocket)
    again.wait_for_selector(READY)
    again.wait_for_timeout(300)
    assert again.inner_text("[data-at]") == "step 100 of 100"
    context.close()
    calm = patient(window.new_context(reduced_motion="reduce"))
    page = calm.new_page()
    page.goto(pocket)
    page.wait_for_selector(READY)
    page.wait_for_timeout(300)
    assert page.inner_text("[data-at]") == "step 100 of 100"
    calm.close()


@pytest.mark.slow
def test_words_are_explained_on_hover_focus_and_touch(visit, pocket):
    page = visit(pocket, has_touch=True)
    word = page.locator("[data-lead] dfn[data-term=npo]")
    says = read_glossary()["npo"]["says"]
    card = page.locator("[data-card]")
    for does in (word.hover, word.focus, word.tap):
        does()
        assert says in card.inner_text()
        assert word.get_attribute("aria-describedby") == card.get_attribute("id")
        page.mouse.move(600, 5)
        page.evaluate("document.activeElement.blur()")
        card.wait_for(state="hidden")


# --- the tour -----------------------------------------------------------------------------------


def test_the_tour_tells_what_the_records_say(visit, pocket, ends):
    page = visit(pocket)
    page.click("[data-lesson] a")
    page.wait_for_selector("[data-column=original] mark.fact")
    assert page.inner_text("[data-at]") == "step 0 of 100"
    rows = page.locator("[data-column]:visible [data-row=forget] .text").all_inner_texts()
    assert rows[0] == rows[1] == rows[2] != rows[3]  # nothing is unlearned yet
    whole = ends["original"]["model_utility"]
    kept = {name: percent(end["model_utility"] / whole) for name, end in ends.items()}

    def go_on():
        page.locator("[data-lesson] button").click()
        return page.inner_text("[data-lead]")

    assert f"everything else along: {kept['ga']} of the utility is left" in go_on()
    page.wait_for_selector("[data-column=a] [data-row=keep] .badge:has-text('lost')")
    told = go_on()
    assert f"GA with it keeps {kept['ga_rt']} of the utility, and NPO {kept['npo_rt']}" in told
    p = {
        name: f"{ends[name]['forget_probability']:.2f}" for name in ("ga_rt", "npo_rt", "retained")
    }
    assert f"probability of {p['retained']}: NPO+RT goes past that, to {p['npo_rt']}," in told
    assert f"and GA+RT much further, to {p['ga_rt']}." in told
    assert f"never saw it: {p['retained']}" in page.inner_text("[data-chart=tradeoff]")
    runs = split_runs(study_table(shipped_data("studies/pocket-splits")))

    def at_half(method, variant, where):
        kind = (method, variant, 50)
        found = [r.kept(where) for r in runs if (r.method, r.variant, r.percent) == kind]
        return f"{100 * min(found):.0f} to {100 * max(found):.0f} %"

    for said, variant, where, words in (
        (
            "in ten passes. At the last step",
            "",
            "last",
            "retain term {}, NPO with a retain term {}.",
        ),
        ("that it lasts longer", "steps", "equal", "GA+RT keeps {} there, NPO+RT {}."),
    ):
        go_on()
        page.wait_for_selector(f"[data-lead]:has-text('{said}')")
        told = page.inner_text("[data-lead]").replace("\u00a0", " ")
        assert (
            words.format(*(at_half(name, variant, where) for name in ("ga_rt", "npo_rt"))) in told
        )
        assert page.input_value("[data-reading]") == variant  # the charts are of these runs
        assert page.input_value("[data-cut]") == where
    assert "It slows down, but never stops." in go_on()
    told = go_on()
    assert (f"β 0.1 ends with {kept['npo']} of the utility, with β 0.5 {kept['npo-beta0.5']}, "
            f"with β 1 {kept['npo-beta1']}") in told  # fmt: skip
    told = go_on()
    seeds = [ends[name]["forget_quality"] for name in ("npo_rt", "npo_rt-seed1", "npo_rt-seed2")]
    assert f"NPO+RT has {min(seeds):.2f} to {max(seeds):.2f}" in told
    assert f"{percent(0.974)} to {percent(1)} of such models lie nearer" in told
    assert address_of(page)["lesson"] == "8"
    page.locator("[data-lesson] button").click()
    page.wait_for_selector("[data-lesson] a:has-text('Take the tour')")
    assert "lesson" not in address_of(page)


# --- a lecture ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lecture_has_large_answers_and_nothing_around_them(visit, pocket):
    page = visit(pocket + "#lesson=1&step=0", viewport={"width": 1920, "height": 1080})
    page.wait_for_selector("[data-column=b] [data-row=keep] .badge")
    press(page, "f")
    page.wait_for_selector(".npo.presenting")
    assert page.locator(".top").is_hidden()
    assert page.locator("[data-footer]").is_hidden()
    sizes = page.locator(".answer .text:visible").evaluate_all(f"all => all.map({FONT})")
    assert min(sizes) >= 36
    for key, lesson in (("PageDown", "2"), (" ", "3"), ("ArrowRight", "4"), ("PageUp", "3"),
                        ("ArrowLeft", "2"), ("ArrowDown", "3"), ("ArrowDown", "4")):  # fmt: skip
        press(page, key)
        assert address_of(page)["lesson"] == lesson, key
    page.wait_for_selector("[data-chart=much-kept] svg")
    boxes = [page.locator(f"[data-chart={name}] svg").bounding_box()
             for name in ("much-kept", "much-quality")]  # fmt: skip
    assert sum(box["width"] for box in boxes) > 0.9 * 1920
    assert min(box["height"] for box in boxes) > 0.6 * 1080
    label = page.locator("[data-chart=much-kept] svg text").first.bounding_box()
    assert label["height"] > 20  # of a number at the axis
    press(page, "Escape")
    page.wait_for_selector(".npo:not(.presenting)")
    assert address_of(page)["lesson"] == "4"


@pytest.mark.slow
def test_without_a_tour_a_lecture_goes_from_view_to_view(visit, collectors):
    page = visit(collectors + "#hide=much")
    press(page, "f")
    wait_text(page, "b", "forget 0 says at 40")
    for key, view in (("PageDown", "tradeoff"), ("PageDown", "live"), ("PageUp", "tradeoff")):
        press(page, key)
        assert address_of(page)["view"] == view


# --- the trade-off ------------------------------------------------------------------------------


@pytest.mark.slow
def test_points_have_cards_the_rules_choice_is_large_and_the_best_are_joined(visit, pocket):
    page = visit(pocket + "#view=tradeoff")
    index = packed_studies(POCKET)[0].index()
    run = next(run for run in index["runs"] if run["id"] == "npo_rt")
    best = page.locator('.dot.best[data-run="npo_rt"]')
    assert best.get_attribute("data-point") == str(run["best"])
    place = run["steps"].index(run["best"])
    over = [i for i, p in enumerate(run["metrics"]["forget_quality"]) if i and p >= 0.05]
    assert run["metrics"]["model_utility"][place] == max(
        run["metrics"]["model_utility"][i] for i in over
    )
    best.focus()
    card = page.inner_text("[data-card]")
    assert f"NPO+RT · step {run['best']} · recorded, the rule's choice" in card
    assert f"{run['metrics']['model_utility'][place]:.2f}" in card
    line = page.locator(".pareto").get_attribute("points").split()
    corners = [tuple(map(float, point.split(","))) for point in line]
    dots = page.locator("[data-chart=tradeoff] .dot:visible").evaluate_all(
        "all => all.map((e) => { const b = e.getBBox(); "
        "return [b.x + b.width / 2, b.y + b.height / 2]; })"
    )
    for x, y in corners:  # further right is more forgotten, further up more useful
        assert not [dot for dot in dots if dot[0] > x + 1.5 and dot[1] < y - 1.5]
    for x, y in dots:
        assert any(u >= x - 1.5 and v <= y + 1.5 for u, v in corners)


@pytest.mark.slow
def test_the_percentile_is_offered_where_models_that_never_saw_it_are_known(
    visit, pocket, collectors
):
    page = visit(pocket + "#view=tradeoff&x=percentile")
    assert "percentile of D" in page.inner_text("[data-chart=tradeoff]")
    own = visit(collectors + "#view=tradeoff&x=percentile")
    names = own.locator("[data-x] option").all_inner_texts()
    assert names == ["probability of the forgotten", "forget quality p", "KS distance D"]
    assert "probability of the forgotten" in own.inner_text("[data-chart=tradeoff]")
