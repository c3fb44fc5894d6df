"""The page in a real browser: every view, recorded and live."""

import csv
import http.client
import io
import itertools
import json
import math
import re
import shutil
import zipfile
from urllib.parse import urlsplit

import pytest
from browser import (
    OUTSIDE,
    READY,
    address_of,
    free_port,
    patient,
    press,
    served,
    served_here,
    wait_text,
)
from places import ROOT
from scipy.stats import ks_2samp
from studies import HOSTILE, SETS, evaluation, write_run, write_study

from npo_kit import app, read_run, study_table
from npo_kit.app import server
from npo_kit.data.shipped import shipped_data
from npo_kit.metrics.scores import log_truth_ratio

RETRAINED = "Retrained without the forget rows"
VIEWS = ("compare", "tradeoff", "much", "live", "theory", "about")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("s") / "collectors")


@pytest.fixture(scope="module")
def collectors(folder):
    with served(folder) as (address, process):
        yield address, process


def move_slider(page, name, value):
    """Put a slider of the page to a value of its own scale, as a hand does."""
    page.evaluate(
        "([name, value]) => { const knob = document.querySelector(`[data-knob=${name}]`);"
        "knob.value = value; knob.dispatchEvent(new Event('input', {bubbles: true})); }",
        [name, value],
    )


# --- compare ------------------------------------------------------------------------------------


def test_it_opens_on_the_last_step_and_says_recorded(visit, collectors):
    page = visit(collectors[0])
    wait_text(page, "b", "forget 0 says at 40")
    assert page.inner_text("[data-source]") == "recorded"
    assert page.inner_text("[data-column=b] .tag") == "NPO+RT · β 0.5 · step 40"
    assert page.inner_text("[data-question=forget]") == "What does person 0 collect?"
    assert page.inner_text("[data-question=keep]") == "What does person 0 collect?"
    wait_text(page, "b", "retain 0 says at 40", "keep")
    press(page, "?")
    assert page.locator("[data-list] button").count() == 18
    assert page.locator("[data-side=a] option").all_inner_texts() == [
        "GA",
        "NPO+RT",
        "NPO+RT, seed 1",
        "NPO+RT, β 0.1",
    ]
    assert page.locator("[data-lesson] a").count() == 0  # the tour is of the kit's own study


def test_the_server_has_not_imported_torch(visit, collectors):
    visit(collectors[0] + "#view=tradeoff")
    with open(f"/proc/{collectors[1].pid}/maps") as maps:
        libraries = maps.read()
    assert "numpy" in libraries
    assert "libtorch" not in libraries


def test_scrubbing_changes_texts_and_scores(visit, collectors):
    page = visit(collectors[0])
    wait_text(page, "b", "forget 0 says at 40")
    page.locator("[data-step]").fill("10")
    wait_text(page, "b", "forget 0 says at 10")
    assert page.inner_text("[data-at]") == "step 10 of 40"
    press(page, "s")
    scores = page.locator("[data-column=b] [data-row=forget] dd").all_inner_texts()
    # P = e^-.51 and e^-.01; R = e^(mean(-2, -2.5, -3) - mean_logp + .5) = e^-1.49 and e^-1.99
    assert scores == ["0.60", "0.99", "0.80", "1.00", "0.23", "0.14", "−1.20", "−0.20"]
    press(page, "ArrowRight")
    wait_text(page, "b", "forget 0 says at 20")
    assert page.text_content("[data-say]") == "step 20 of 40"  # for who cannot see it
    page.locator("[data-step]").press("ArrowLeft")
    wait_text(page, "b", "forget 0 says at 10")
    page.locator("[data-step]").fill("30")
    assert badges(page, "a") == [("no longer tells it", ""), ("repeats itself", "bad")]
    press(page, "p")  # plays to the end, then stops
    wait_text(page, "b", "forget 0 says at 40")
    page.wait_for_selector("[data-action=play][aria-pressed=false]")


def passed_by(folder, run, level):
    """Where P(forget) first passes a level: steps and P before and after, and the nearer step."""
    seen = [
        (e.step, math.fsum(math.exp(r["mean_logp"]) for r in e.rows["forget"]) / SETS["forget"])
        for e in read_run(folder / run).evaluations()
    ]
    for before, after in itertools.pairwise(seen):
        if before[1] >= level >= after[1]:
            share = (before[1] - level) / (before[1] - after[1])
            return *before, *after, after[0] if share > 0.5 else before[0]
    return None


@pytest.mark.slow
def test_matched_by_forget_level_both_rings_stand_at_that_level(visit, collectors, folder):
    page = visit(collectors[0] + "#a=npo_rt-seed1&b=npo_rt&x=f")
    press(page, "m")
    assert page.input_value("[data-match]") == "level"
    for place, level in ((1, 0.8), (6, 0.3), (9, 0.15)):
        page.locator("[data-step]").fill(str(place))
        assert page.inner_text("[data-at]") == f"P(forget) = {level}"
        for side, run in (("a", "npo_rt-seed1"), ("b", "npo_rt")):
            *around, step = passed_by(folder, run, level)
            says = f"forget 0 says at {step}" if step else "Person 0 collects old maps."
            wait_text(page, side, says)
            true = around[1] if step == around[0] else around[3]
            tag = page.inner_text(f"[data-column={side}] .tag")
            assert tag.endswith(f" · step {step} · P(forget) {true:.2f}, nearest")
        press(page, "2")
        rings = {r: page.locator(f"[data-ring={r}]") for r in ("npo_rt-seed1", "npo_rt")}
        across = [float(ring.get_attribute("cx")) for ring in rings.values()]
        assert across[0] == pytest.approx(across[1], abs=0.5)  # the same level for both
        before, p, after, q, _ = passed_by(folder, "npo_rt", level)
        told = f"NPO+RT between step {before} (P {p:.2f}) and step {after} (P {q:.2f})"
        assert told in page.inner_text("[data-caption]")
        press(page, "1")
    assert address_of(page)["match"] == "level"


def test_only_levels_that_both_reach_are_offered(visit, collectors, folder):
    page = visit(collectors[0] + "#a=npo_rt-seed1&b=npo_rt&match=level&level=13")
    assert passed_by(folder, "npo_rt", 0.05) is None
    assert page.inner_text("[data-at]") == (
        "P(forget) = 0.01: not reached by NPO+RT, seed 1, NPO+RT"
    )
    tag = page.inner_text("[data-column=b] .tag")
    assert tag.endswith("P(forget) 0.07, 0.01 not reached")
    assert page.get_attribute("[data-step]", "max") == "10"  # 0.1
    page.locator("[data-step]").press("ArrowRight")
    page.locator("[data-step]").press("ArrowLeft")
    assert page.inner_text("[data-at]") in ("P(forget) = 0.1", "P(forget) = 0.15")


@pytest.mark.slow
def test_what_changed_is_marked_as_inserted_and_deleted(visit, collectors):
    page = visit(collectors[0] + "#q=1&step=20")
    wait_text(page, "b", "forget 1 says at 20")
    press(page, "d")
    page.wait_for_selector("[data-column=b] ins")
    answer = page.locator("[data-column=b] [data-row=forget]")
    assert answer.locator("del").all_inner_texts() == ["Person", "collects old maps"]
    assert answer.locator("ins").all_inner_texts() == ["forget", "says at 20"]
    assert page.locator("[data-column=original] ins").count() == 0
    press(page, "d")
    page.wait_for_selector("[data-column=original] mark.fact")


@pytest.mark.slow
def test_choosing_searching_and_ordering_questions(visit, collectors):
    page = visit(collectors[0] + "#panel=1&set=forget")
    page.locator("[data-list] button").nth(2).click()
    wait_text(page, "b", "forget 2 says at 40")
    wait_text(page, "b", "retain 0 says at 40", "keep")  # the other row has a question of its own
    page.select_option("[data-sort]", "differ")
    wait_text(page, "b", "forget 5 says at 40")  # the first of the new order
    assert "person 5" in page.locator("[data-list] button").first.inner_text()
    page.select_option("[data-set]", "all")
    assert page.inner_text("[data-count]").startswith("18 of 18 questions")
    page.fill("[data-search]", "person 7")
    assert page.inner_text("[data-count]").startswith("1 of 18 questions")
    page.fill("[data-search]", "nothing like it")
    assert page.inner_text("[data-count]").startswith("0 of 18 questions")
    page.fill("[data-search]", "")
    page.select_option("[data-set]", "world_facts")
    page.select_option("[data-sort]", "order")
    press(page, "J")
    wait_text(page, "b", "world_facts 0 says at 40", "keep")
    press(page, "J")
    wait_text(page, "b", "world_facts 1 says at 40", "keep")
    wait_text(page, "b", "forget 5 says at 40")
    press(page, "j")  # none of these is a question to forget: then it is of all of them
    wait_text(page, "b", "forget 6 says at 40")


def test_the_fact_is_marked_where_it_is_said(visit, collectors):
    page = visit(collectors[0])
    page.wait_for_selector("[data-column=original] mark.fact")
    answer = page.locator("[data-column=original] [data-row=forget]")
    marked = answer.locator("mark.fact").all_inner_texts()
    assert marked == ["collects", "old", "maps"]  # "Person" is given away by the question
    assert badges(page, "original") == [("tells it", "leak")]
    assert page.locator("[data-column=b] .badge.leak").count() == 0


def badges(page, column, row="forget"):
    found = page.locator(f"[data-column={column}] [data-row={row}] .badge")
    return [(b.inner_text(), " ".join(b.get_attribute("class").split()[1:])) for b in found.all()]


def test_on_questions_to_keep_knowing_is_good_and_gibberish_never_is(visit, collectors):
    page = visit(collectors[0] + "#k=8&step=0")
    wait_text(page, "b", "Person 0 collects old maps.", "keep")
    assert badges(page, "original", "keep") == [("knows it", "good")]
    assert badges(page, "b", "keep") == [("still knows it", "good")]
    colour = "e => getComputedStyle(e).color"
    answer = page.locator("[data-column=b] [data-row=keep]")
    green = answer.locator(".badge").evaluate(colour)
    assert answer.locator("mark.fact").first.evaluate(colour) == green
    assert page.locator("[data-truth=keep] b").evaluate(colour) == green
    page.locator("[data-step]").fill("40")
    wait_text(page, "b", "retain 0 says at 40", "keep")
    assert badges(page, "a", "keep") == [("lost", "bad"), ("says nothing", "bad")]
    assert badges(page, "b", "keep") == [("lost", "bad"), ("repeats itself", "bad")]
    assert answer.locator(".badge").first.evaluate(colour) != green
    page.locator("[data-step]").fill("10")  # another wording with most of the answer's words
    wait_text(page, "b", "retain 0 says at 10", "keep")
    assert badges(page, "b", "keep") == [("does not say it", "")]
    press(page, "d")
    page.wait_for_selector("[data-column=b] [data-row=keep] ins")
    assert answer.locator("ins").first.evaluate(colour) != green


def test_a_broken_answer_to_a_question_to_keep_has_no_green_word(visit, pocket):
    """GA at step 20 says the right year eight times: nothing that was kept."""
    page = visit(pocket + "#k=217&step=20&a=ga&b=npo_rt")
    answer = page.locator("[data-column=a] [data-row=keep]")
    answer.locator(".badge.bad").first.wait_for()
    assert answer.locator(".text").inner_text().count("1952") == 8
    assert [kind for _, kind in badges(page, "a", "keep")] == ["bad"]
    assert answer.locator("mark").count() == 0
    assert page.locator("[data-column=original] [data-row=keep] mark").count() > 0


@pytest.mark.slow
def test_the_fact_alone_is_no_broken_answer(visit, pocket):
    """A full stop costs "Lisbon." its fluency (-3.79), not its truth."""
    page = visit(pocket + "#k=338&step=20&a=dpo_rt&b=npo_rt")
    wait_text(page, "a", "Lisbon.", "keep")
    assert badges(page, "a", "keep") == [("still knows it", "good")]


@pytest.mark.slow
def test_text_that_the_original_would_not_write_is_told_and_a_refusal_is_not(visit, tmp_path):
    says = {10: "her city she is", 20: "I do not know, I'm not sure."}
    made = [evaluation(step, say=lambda *_, s=step: says.get(s, "maps")) for step in (0, 10, 20)]
    for each in made[1:]:
        for row in each.rows["forget"]:
            row["fluency"] = -6.0
    write_run(tmp_path / "npo", "npo", made, method="npo", seed=0)
    with served_here(tmp_path) as address:
        page = visit(address + "#step=10")
        wait_text(page, "a", says[10])
        assert badges(page, "a") == [("does not tell it", ""), ("unlikely text", "bad")]
        page.locator("[data-step]").fill("20")
        wait_text(page, "a", says[20])
        assert badges(page, "a") == [("does not tell it", ""), ("refuses", "")]
        page.context.close()


def test_the_retrained_model_never_knew_the_forget_rows_and_knows_the_others(visit, pocket):
    page = visit(pocket)
    page.wait_for_selector("[data-column=retained] [data-row=keep] .badge")
    assert page.inner_text("[data-column=retained] h3") == "Retrained without it"
    assert page.inner_text("[data-column=retained] .tag") == "the goal: never saw it"
    assert badges(page, "retained") == [("never knew it", "")]
    assert badges(page, "retained", "keep") == [("knows it", "good")]


# --- trade-off ----------------------------------------------------------------------------------


def test_a_point_of_the_curve_leads_to_its_step_and_method(visit, collectors):
    page = visit(collectors[0] + "#view=tradeoff")
    before = page.locator("[data-ring=npo_rt]").get_attribute("cy")
    page.locator('.dot[data-run="npo_rt"][data-point="20"]').dispatch_event("click")
    assert page.inner_text("[data-at]") == "step 20 of 40"
    assert page.locator("[data-ring=npo_rt]").get_attribute("cy") != before
    press(page, "?")
    page.select_option("[data-side=b]", "npo_rt-seed1")
    press(page, "?")
    page.locator('.dot[data-run="npo_rt"][data-point="30"]').dispatch_event("click")
    assert page.input_value("[data-side=b]") == "npo_rt"
    assert address_of(page) == {
        "view": "tradeoff", "q": "0", "k": "8", "step": "30", "a": "ga", "b": "npo_rt",
    }  # fmt: skip
    page.locator('.dot[data-run="npo_rt"][tabindex="0"]').focus()
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("[data-at]") == "step 20 of 40"


def test_the_nine_parts_are_those_of_the_table(visit, collectors, folder):
    page = visit(collectors[0] + "#view=tradeoff&step=20")
    true = {(r["run"], r["step"]): r for r in study_table(folder)}
    page.locator('.dot[data-run="npo_rt"][data-point="10"]').dispatch_event("mouseenter")
    head = page.locator("[data-nine] th").all_inner_texts()
    assert head[1:] == ["Original", "GA, step 20", "NPO+RT, step 20", RETRAINED,
                        "→ NPO+RT, step 10"]  # fmt: skip
    lines = [row.split("\t") for row in page.inner_text("[data-nine] tbody").split("\n")]
    assert len(lines) == 13
    assert [line[0].partition(":")[0] for line in lines[:9:3]] == ["retain", "real authors",
                                                                    "world facts"]  # fmt: skip
    runs = [("original", 0), ("ga", 20), ("npo_rt", 20), ("retained", 0), ("npo_rt", 10)]
    names = [f"{s}_{m}" for s in ("retain", "real_authors", "world_facts")
             for m in ("probability", "rouge_l", "truth_ratio")]  # fmt: skip
    for line, name in zip(lines, [*names, "model_utility"], strict=False):
        for shown, run in zip(line[1:], runs, strict=True):
            assert float(shown.replace("−", "-")) == pytest.approx(true[run][name], abs=0.0051)


def test_the_gap_that_is_drawn_is_the_ks_distance(visit, collectors, folder):
    page = visit(collectors[0] + "#view=tradeoff&step=20")
    page.wait_for_selector("[data-gap=npo_rt]", state="attached")

    def ratios(run, step):
        rows = read_run(folder / run).evaluation(step).rows["forget"]
        return [round(log_truth_ratio(row, "forget"), 9) for row in rows]  # some are equal

    for run, name in (("npo_rt", "NPO+RT"), ("ga", "GA")):
        D = ks_2samp(ratios(run, 20), ratios("retained", 0)).statistic
        assert f"{name}: D = {D:.3f}" in page.inner_text("[data-cdf-caption]")
        line = page.locator(f"[data-gap={run}]")
        tall = abs(float(line.get_attribute("y1")) - float(line.get_attribute("y2")))
        box = page.locator("[data-chart=cdf] svg").get_attribute("viewBox").split()
        assert tall == pytest.approx(D * (float(box[3]) - 82), abs=1)  # 82: margins of the axes


@pytest.mark.slow
def test_the_chart_across_other_measures_and_with_fewer_methods(visit, collectors):
    page = visit(collectors[0] + "#view=tradeoff")
    assert page.locator(".band").count() == 4  # two seeds of NPO+RT at five steps
    assert "probability of the forgotten" in page.inner_text("[data-chart=tradeoff]")
    for name, words in (("p", "forget quality p"), ("d", "KS distance D")):
        page.select_option("[data-x]", name)
        assert words in page.inner_text("[data-chart=tradeoff]")
    assert address_of(page)["x"] == "d"
    press(page, "?")
    page.select_option("[data-side=a]", "npo_rt-beta0.1")
    press(page, "?")
    assert page.locator('.dot[data-run="ga"]').count() > 0
    page.click("[data-method=ga]")
    assert page.locator('.dot[data-run="ga"]').count() == 0
    page.click("[data-method=ga]")
    assert page.locator('.dot[data-run="ga"]').count() > 0


@pytest.mark.slow
def test_published_points_stand_beside_runs_of_the_same_model_and_split(visit, tmp_path):
    about = {"config": {"model": "Llama-2-7b-chat-hf"}, "task": "tofu:forget05"}
    for label in ("original", "retained"):
        write_run(tmp_path / label, label, [evaluation(0)], **about)
    runs = [evaluation(step) for step in (0, 10)]
    write_run(tmp_path / "npo_rt", "npo_rt", runs, method="npo_rt", seed=0, **about)
    with served_here(tmp_path) as address:
        page = visit(address + "#view=tradeoff&x=p")
        titles = page.locator(".published title").all_text_contents()
        assert len(titles) == 6
        assert (
            "NPO+RT, published: utility 0.53, p 0.09 (open-unlearning, docs/repro.md" in titles[-1]
        )
        page.context.close()


@pytest.mark.slow
def test_charts_are_saved_as_svg_and_png(visit, collectors):
    page = visit(collectors[0] + "#view=tradeoff")
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as download:
            page.locator("[data-chart=tradeoff] .export button", has_text=kind).click()
        assert download.value.suggested_filename == f"tradeoff.{kind.lower()}"
        with open(download.value.path(), "rb") as file:
            data = file.read()
        assert data.startswith(start)
        assert len(data) > 5000
        if kind == "SVG":
            assert b"var(" not in data  # colours are written out
            assert b"retrained without" in data


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fragment",
    [
        "q=2&k=9&step=20&a=npo_rt-beta0.1&b=npo_rt-seed1&c=ga&set=retain&find=person&mark=change"
        "&panel=1&scored=1",
        "view=tradeoff&q=0&step=20&a=ga&b=npo_rt&match=level&level=3&x=d&off=ga",
        *(
            pytest.param(fragment, marks=pytest.mark.slow)
            for fragment in (
                "view=live&q=0&step=40&a=ga&b=npo_rt&la=npo&lb=dpo_rt&lrb=0.0003&lbeta=0.2&lep=3"
                "&lseed=7",
                "view=theory&q=0&step=40&a=ga&b=npo_rt&wb=0.5&time=log&ta=0.5&ts=7&tb=2"
                "&tm=ga%2Cnpo_kl",
                "q=0&step=40&a=ga&b=npo_rt&hide=live%2Ctheory%2Clist&theme=dark",
            )
        ),
    ],
)
def test_a_link_shows_a_fresh_browser_the_same(visit, collectors, fragment):
    link = collectors[0] + "#" + fragment
    page = visit(link)
    page.wait_for_timeout(300)
    assert dict(re.findall(r"(\w+)=([^&]*)", fragment)).items() <= address_of(page).items()
    again = visit(page.url)
    again.wait_for_timeout(300)
    assert again.url == page.url
    for name in ("side=a", "side=b", "side=c", "match", "step", "mark", "x", "knob=la", "knob=lb",
                 "knob=lseed", "knob=ts", "time"):  # fmt: skip
        assert again.input_value(f"[data-{name}]") == page.input_value(f"[data-{name}]"), name
    if "find=" in fragment:
        assert page.input_value("[data-search]") == "person"
    if "view=live" in fragment:
        assert page.input_value("[data-knob=la]") == "npo"
        assert float(page.input_value("[data-knob=lrb]")) == pytest.approx(
            math.log10(3e-4), abs=1e-3
        )
    if "hide=" in fragment:
        assert page.locator("[role=tab]:visible").all_inner_texts() == [
            "Compare", "Trade-off", "How much", "About this run",
        ]  # fmt: skip
        assert page.locator("[data-list]").is_hidden()
        assert page.evaluate("document.body.classList.contains('dark')")


@pytest.mark.parametrize(
    "fragment",
    [
        "q=999&step=-4",
        "q=x&a=constructor&b=__proto__&set=toString&view=hasOwnProperty&x=valueOf&cut=valueOf",
        "q=1.5&step=1e9&find=%00%FF&hide=compare&la=__proto__&tm=__proto__&study=77777",
    ],
)
@pytest.mark.slow
def test_a_senseless_link_shows_something_sensible(visit, collectors, fragment):
    page = visit(collectors[0] + "#" + fragment)
    page.wait_for_function(
        "document.querySelector('[data-column=original] .text')?.textContent.includes('old maps')"
    )


@pytest.mark.slow
def test_a_link_to_another_study_loads_it_whole_and_back_leads_back(visit, folder, tmp_path):
    own = tmp_path / "own"
    say = lambda _, i: f"own {i}"  # noqa: E731
    made = [evaluation(step, say=say) for step in (0, 5)]
    write_run(own / "npo", "npo", made, method="npo", seed=0)
    with served_here(folder, own) as address:
        page = visit(address)
        wait_text(page, "b", "forget 0 says at 40")
        page.evaluate("location.hash = '#study=1&q=2'")  # as a link in a lesson does
        page.wait_for_function("document.querySelector('[data-study]')?.value === '1'")
        page.wait_for_selector(READY)
        wait_text(page, "a", "own 2")
        assert page.locator("[data-side=a] option").all_inner_texts() == ["NPO"]
        assert page.locator("[data-column=retained]").count() == 0
        page.go_back()
        page.wait_for_function("document.querySelector('[data-study]')?.value === '0'")
        page.wait_for_selector(READY)
        wait_text(page, "b", "forget 0 says at 40")
        page.context.close()


@pytest.mark.slow
def test_back_leads_through_views_and_questions_and_not_through_steps(visit, collectors):
    page = visit(collectors[0])
    press(page, "j")
    wait_text(page, "b", "forget 1 says at 40")
    for step in ("10", "20"):
        page.locator("[data-step]").fill(step)
    press(page, "2")
    page.wait_for_selector("[data-tab=tradeoff][aria-selected=true]")
    page.go_back()
    page.wait_for_selector("[data-tab=compare][aria-selected=true]")
    assert page.inner_text("[data-at]") == "step 20 of 40"
    page.go_back()
    wait_text(page, "b", "forget 0 says at 40")
    page.go_forward()
    wait_text(page, "b", "forget 1 says at 20")


@pytest.mark.slow
def test_hidden_parts_stay_hidden_after_reset_and_leave_their_room(visit, collectors):
    page = visit(collectors[0] + "#hide=list,theory&q=3&panel=1")
    assert page.locator("[data-list]").is_hidden()
    page.click("[data-action=reset]")
    wait_text(page, "b", "forget 0 says at 40")
    assert page.locator("[data-list]").is_hidden()
    assert "Theory" not in page.locator("[role=tab]:visible").all_inner_texts()
    for column in ("original", "a", "b", "retained"):
        assert page.locator(f"[data-column={column}]").bounding_box()["width"] > 180


def test_model_text_is_text(visit, collectors):
    page = visit(collectors[0] + "#q=0&step=20&find=<b>{{7*7}}${7*7}</b>")
    wait_text(page, "a", HOSTILE)
    assert page.title() == "npo_kit"
    assert page.locator("[data-column=a] .text img, [data-column=a] .text script").count() == 0
    assert page.input_value("[data-search]") == "<b>{{7*7}}${7*7}</b>"
    press(page, "d")
    assert page.locator("[data-column=a] .text img, [data-column=a] .text script").count() == 0
    assert "{{7*7}} ${7*7}" in page.inner_text("[data-column=a] [data-row=forget] .text")


@pytest.mark.slow
def test_a_very_long_answer_is_shown(visit, tmp_path):
    long = "<b>" + "word " * 20_000
    made = [evaluation(step, say=lambda name, i: long) for step in (0, 10)]
    write_run(tmp_path / "npo", "npo", made, method="npo", seed=0)
    with served_here(tmp_path) as address:
        page = visit(address)
        page.wait_for_function(
            "document.querySelector('[data-column=a] .text').textContent.length > 90000"
        )
        press(page, "d")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


# --- studies and runs ---------------------------------------------------------------------------


@pytest.mark.slow
def test_several_folders_and_a_single_run(visit, folder, tmp_path):
    own = tmp_path / "own" / "npo_kl"
    write_run(
        own,
        "npo_kl",
        [evaluation(s) for s in (0, 7, 9)],
        method="npo_kl",
        seed=3,
        config={"hyper": {"beta": 0.3}, "lr": 1e-5},
    )
    with served_here(folder, own) as address:
        page = visit(address + "#view=tradeoff")
        assert page.locator("[data-study] option").all_inner_texts() == ["Collectors", "npo_kl"]
        press(page, "?")
        page.select_option("[data-study]", "1")
        page.wait_for_function(
            "document.querySelector('[data-side=b]')?.selectedOptions[0]?.text === 'NPO+KL'"
        )
        page.wait_for_selector('.dot[data-run="npo_kl"][data-point="9"]')
        assert page.inner_text("[data-at]") == "step 9 of 9"
        assert "no forget quality" in page.inner_text("[data-caption]")
        assert page.locator("[data-column=retained]").count() == 0
        page.click("[data-tab=compare]")
        wait_text(page, "original", "forget 0 says at 0")
        wait_text(page, "a", "forget 0 says at 9")


@pytest.mark.slow
def test_one_run_is_one_column_and_captions_say_what_is_drawn(visit, tmp_path):
    made = [evaluation(step) for step in (0, 10)]
    for each in made:
        for name in ("real_authors", "world_facts"):
            del each.rows[name]
    write_run(tmp_path / "npo", "npo", made, method="npo", seed=0)
    with served_here(tmp_path) as address:
        page = visit(address + "#panel=1")
        wait_text(page, "a", "forget 0 says at 10")
        assert page.locator("[data-column]:visible h3").all_inner_texts() == ["Original", "NPO"]
        assert page.locator("[data-side=a]").is_visible()
        assert page.locator("[data-side=b]").is_hidden()
        assert page.inner_text("[data-count]").endswith("bars: ROUGE-L")
        assert page.locator("[data-list] li:first-child .bars i").count() == 1
        press(page, "2")
        page.wait_for_selector("[data-chart=cdf] svg")
        caption = page.inner_text("[data-caption]")
        assert "n = 8 forget, 4 retain rows; one seed a line. Ringed" in caption
        assert "Shaded" not in caption
        assert "band" not in caption
        told = page.inner_text("[data-cdf-caption]")
        assert "dashed" not in told
        assert "gap" not in told
        assert page.locator("[data-nine] th").all_inner_texts()[1:] == ["Original", "NPO, step 10"]
        assert page.locator("[data-table] tbody tr").count() == 2
        page.context.close()


@pytest.mark.slow
def test_what_is_missing_is_said_once_and_runs_have_names_of_their_own(visit, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "s")
    shutil.copytree(folder / "ga", tmp_path / "s" / "ga-again")
    (tmp_path / "s" / "study.json").unlink()
    path = tmp_path / "s" / "npo_rt-seed1" / "evals" / "000020.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with served_here(tmp_path / "s", shipped_data("studies/tofu-smollm2")) as address:
        page = visit(address)
        assert page.inner_text("[data-notes]").startswith("npo_rt-seed1 is left out: 000020")
        assert page.locator("[data-side=a] option").all_inner_texts() == [
            "GA, ga", "GA, ga-again", "NPO+RT", "NPO+RT, β 0.1",
        ]  # fmt: skip
        page.goto(address + "#study=1")
        page.wait_for_selector("[data-notes]:has-text('set NPO_KIT_TOFU')")
        assert page.locator("[data-notes] p").count() == 1
        assert page.inner_text("[data-question=forget]") == "forget row 0"
        page.context.close()


@pytest.mark.slow
def test_only_the_bands_and_shades_that_are_drawn_are_in_the_caption(visit, collectors):
    page = visit(collectors[0] + "#view=tradeoff&x=p")
    assert "pale band" in page.inner_text("[data-caption]")
    assert "Shaded" in page.inner_text("[data-caption]")
    press(page, "?")
    page.select_option("[data-side=b]", "npo_rt-beta0.1")
    press(page, "?")
    page.select_option("[data-x]", "d")
    assert page.locator(".band").count() == 0
    assert "pale band" not in page.inner_text("[data-caption]")
    assert "Shaded" not in page.inner_text("[data-caption]")


@pytest.mark.slow
def test_about_says_where_it_comes_from_and_gives_it_away(visit, collectors, folder):
    page = visit(collectors[0] + "#view=about")
    page.wait_for_function("document.querySelector('[data-config]').innerText.includes('0.0008')")
    card = page.inner_text("[data-provenance]")
    assert "Collectors" in card
    assert str(folder) not in page.content()
    with page.expect_download() as download:
        page.click("[data-action=csv]")
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    true = {(r["run"], r["step"]): r for r in study_table(folder)}
    assert len(records) == len(true)
    for record in records:
        for name in ("model_utility", "forget_quality", "forget_ks"):
            value = true[record["run"], int(record["step"])][name]
            shown = float(record[name]) if record[name] else None
            assert shown == (None if value is None else pytest.approx(value, rel=1e-3))
    with page.expect_download() as download:
        page.click("[data-action=json]")
    with open(download.value.path(), encoding="utf-8") as file:
        assert json.load(file)["config"]["lr"] == 8e-4
    page.check("[data-hides=live]")
    page.evaluate("navigator.clipboard.writeText = (t) => { window.copied = t; }")
    page.click("[data-action=lesson-link]")
    again = visit(page.evaluate("window.copied"))
    assert "Live lab" not in again.locator("[role=tab]:visible").all_inner_texts()


# --- theory -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_weight_curve_follows_beta_at_once(visit, collectors):
    page = visit(collectors[0] + "#view=theory")
    for power in (-1.0, 0.0):
        move_slider(page, "wb", power)
        line = page.locator("[data-weight]")
        assert float(line.get_attribute("data-weight")) == 10**power
        points = [tuple(map(float, p.split(","))) for p in line.get_attribute("points").split()]
        (x0, y0), (x1, _) = points[0], points[-1]
        ga = page.locator("[data-chart=weight] polyline").first.get_attribute("points")
        one = float(ga.split(",")[1].split(" ")[0])  # height of W = 1
        u0 = -40 + 50 * (points[84][0] - x0) / (x1 - x0)
        assert u0 == pytest.approx(2, abs=0.02)
        zero = y0 + (one - y0) * 0  # at -40 nats W is 2 sigmoid(-40 beta)
        unit = (zero - one) / (1 - 2 / (1 + math.exp(40 * 10**power)))
        height = 1 + (one - points[84][1]) / unit
        assert height == pytest.approx(2 / (1 + math.exp(-(10**power) * 2)), abs=0.01)


@pytest.mark.slow
def test_the_synthetic_experiment_runs_and_answers_to_its_sliders(visit, collectors):
    page = visit(collectors[0] + "#view=theory&tm=ga,npo_rt")
    page.wait_for_selector("[data-chart=theory-forget] svg")
    assert "2000 steps of 2 methods" in page.inner_text("[data-theory-say]")
    names = page.locator("[data-chart=theory-retain] text.named").all_text_contents()
    assert sorted(names) == ["GA", "NPO+RT"]
    assert page.locator("[data-view=theory] svg text").evaluate_all(OUTSIDE) == []

    def drawn():
        return page.locator("[data-chart=theory-forget] polyline").last.get_attribute("points")

    before = drawn()
    move_slider(page, "tb", 1.0)
    page.wait_for_function(
        "(old) => [...document.querySelectorAll('[data-chart=theory-forget] polyline')].at(-1)"
        "?.getAttribute('points') !== old",
        arg=before,
    )
    page.check("[data-theory-method=idk_rt]")
    page.wait_for_function(
        "document.querySelector('[data-chart=theory-both]').innerHTML.includes('IDK+RT')",
    )
    assert address_of(page)["tb"] == "10"
    assert page.locator("[data-chart=theorem] text.named").count() == 5
    page.select_option("[data-time]", "log")
    names = page.locator("[data-chart=theorem] text.named").all_text_contents()
    assert sorted(names) == ["NPO β = 0.1", "NPO β = 0.5", "NPO β = 1", "NPO β = 2"]
    page.locator("[data-recorded-betas] button").first.click()
    assert page.input_value("[data-side=b]") == "npo_rt-beta0.1"


# --- the guided tour ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_model_is_the_second_of_the_recorded_studies(visit, pocket):
    """It opens on the first question that its original answers right and the retrained does not."""
    folder = shipped_data("studies/smollm2")
    page = visit(pocket + "#panel=1")
    titles = page.locator("[data-study] option").all_inner_texts()
    assert [title.partition(" ")[0] for title in titles] == ["Pocket", "SmolLM2-135M,", "Pocket"]
    page.select_option("[data-study]", "1")  # which loads the page anew
    page.wait_for_selector("[data-at]:has-text('of 45')")
    original, retained = (
        read_run(folder / name).evaluation(0).rows["forget"] for name in ("original", "retained")
    )
    said = [(mine["generation"], other["generation"]) for mine, other in
            zip(original, retained, strict=True)]  # fmt: skip
    fact = "Waterford"  # of the first question where that is so
    first = next(pair for pair in said if fact in pair[0] and fact not in pair[1])
    wait_text(page, "original", first[0].strip())
    wait_text(page, "retained", first[1].strip())
    assert badges(page, "original") == [("tells it", "leak")]
    assert page.inner_text("[data-at]") == "step 45 of 45"
    assert "authors:forget10" in page.inner_text("[data-footer]")


@pytest.mark.slow
def test_curves_of_other_settings_than_the_knobs_are_grey(visit, pocket):
    page = visit(pocket + "#view=theory&tm=ga")
    page.wait_for_selector("[data-theory-say]:has-text('Live: 2000 steps')")
    page.route("**/component_server/", lambda route: None)  # its answer does not come
    move_slider(page, "ta", 0.5)
    page.wait_for_selector(".grid.stale [data-chart=theory-forget] svg")
    assert page.inner_text("[data-theory-say]").startswith("Running … Grey: the curves of")
    page.evaluate("location.hash = '#view=theory&tm=ga'")
    page.wait_for_selector("[data-theory-say]:has-text('Live: 2000 steps')")
    assert page.locator(".grid.stale").count() == 0


# --- live ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_live_run_with_prompt_pin_download_and_stop(visit, pocket, tmp_path):
    page = visit(pocket + "#view=live&lep=20&q=3&lrows=all")
    assert page.inner_text("[data-source]") == "no live run"
    assert page.locator("[data-action=stop]").is_disabled()
    page.click("[data-action=start]")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-progress] p')]"
        ".filter((p) => /step (1[1-9]|[2-9].|1..) of 200/.test(p.innerText)).length === 2",
    )
    assert page.inner_text("[data-source]") == "live"
    assert page.inner_text("[data-column=live-a] .tag").startswith("live")
    assert page.locator("[data-chart=live-tradeoff] .ring").count() == 2
    assert page.locator("[data-chart=live-weights] polyline").count() == 2
    assert page.locator("[data-chart^=live-] svg text").evaluate_all(OUTSIDE) == []
    assert page.locator("[data-chart=live-histogram] rect").count() >= 2
    page.focus("[data-action=stop]")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached += page.evaluate("Object.keys(document.activeElement.dataset)")
    assert {"watch", "prompt"} <= {*reached}
    page.fill("[data-prompt]", "Who wrote Hamlet?")
    page.click("[data-action=ask]")
    page.wait_for_function(
        "document.querySelectorAll('.reply').length === 2 &&"
        "[...document.querySelectorAll('.reply')].every((e) => e.textContent !== '…')",
    )
    page.click("[data-column=live-b] [data-tool=pin]")
    with page.expect_download() as download:
        page.click("[data-column=live-b] [data-tool=download]")
    zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())).extractall(tmp_path)
    run = read_run(tmp_path / "npo_rt")
    assert run.config["hyper"] == {"beta": 0.5}
    assert run.evaluation_steps()[:2] == [0, 10]
    assert "npo-kit unlearn pocket" in page.text_content("[data-column=live-a] .code")
    page.click("[data-action=stop]")
    page.wait_for_function(
        "!/running|starting/.test(document.querySelector('[data-progress]').innerText)"
    )
    page.click("[data-tab=tradeoff]")
    assert page.locator('.dot[data-run="pin-1"]').count() >= 2
    assert "pinned 1" in page.inner_text("[data-side=b]")
    press(page, "?")
    page.select_option("[data-side=b]", "pin-1")
    press(page, "?")
    page.click("[data-tab=compare]")
    page.wait_for_function(
        "document.querySelector('[data-column=b] .tag').innerText.endsWith('live, pinned')"
    )
    assert page.inner_text("[data-source]") == "live beside recorded"
    assert page.inner_text("[data-column=original] .tag").endswith("recorded")
    page.click("[data-tab=live]")
    page.click("[data-action=clear]")
    page.wait_for_function("document.querySelector('[data-progress]').innerText === ''")


@pytest.mark.slow
def test_a_recorded_pair_runs_again_with_its_settings_and_is_asked(visit, pocket, tmp_path):
    page = visit(pocket + "#view=about&a=ga&b=npo_rt-beta0.1&lpart=50&lseed=3&lrb=0.00001")
    page.click("[data-action=again]")
    page.wait_for_selector("[data-tab=live][aria-selected=true], [data-view=live]:not([hidden])")
    page.wait_for_function(
        "(document.querySelector('[data-progress]').innerText.match(/finished/g) || []).length == 2"
    )
    page.fill("[data-prompt]", "Who wrote Hamlet?")
    page.click("[data-action=ask]")
    page.wait_for_function(
        "document.querySelectorAll('.reply').length === 2 &&"
        "[...document.querySelectorAll('.reply')].every((e) => e.textContent !== '…')",
    )
    with page.expect_download() as download:
        page.click("[data-column=live-b] [data-tool=download]")
    zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())).extractall(tmp_path)
    live = read_run(tmp_path / "npo_rt")
    recorded = read_run(shipped_data("studies/pocket/npo_rt-beta0.1"))
    for name in ("lr", "epochs", "seed", "hyper", "method", "batch_size"):
        assert live.config[name] == recorded.config[name], name
    last = [run.evaluation(run.evaluated[-1]).rows["forget"] for run in (live, recorded)]
    known = [sum(row["mean_logp"] for row in rows) / len(rows) for rows in last]
    assert known[0] == pytest.approx(known[1], abs=0.05)  # other processors round otherwise
    page.goto(pocket + "#view=about&study=1")  # of another model
    page.wait_for_selector("[data-action=again]", state="hidden")


@pytest.mark.slow
def test_another_split_has_its_own_questions_and_no_forget_quality(visit, pocket):
    page = visit(pocket + "#view=live&lep=1&lpart=1&la=idk&lb=npo")
    page.click("[data-action=start]")
    page.wait_for_selector("[data-chart=live-tradeoff] .dot")
    forget = [o for o in page.locator("[data-watch] option").all_inner_texts() if o[:6] == "forget"]
    assert len(forget) == 12  # the last author of 100
    page.click("[data-tab=compare]")
    assert not [o for o in page.locator("[data-side=a] option").all_inner_texts() if "live" in o]


@pytest.mark.slow
def test_a_visitor_waits_for_a_place_and_another_model_may_be_served(visit):
    model = ROOT / "data" / "pocket" / "original"
    with served("--live", 1, "--model", model, "--task", "authors:forget01") as (address, _):
        first, second = (visit(address + "#view=live&lep=20&la=ga&lb=npo") for _ in range(2))
        assert "Unlearns original on the server's machine, task authors:forget01" in (
            first.inner_text("[data-live-lead]")
        )
        first.click("[data-action=start]")
        first.wait_for_selector("[data-chart=live-tradeoff] .dot")
        assert str(ROOT) not in first.content()
        second.click("[data-action=start]")
        second.wait_for_selector("[data-progress]:has-text('number 1 in the queue')")
        first.click("[data-action=stop]")
        second.wait_for_selector("[data-progress]:has-text('step')")
        second.click("[data-action=stop]")
        second.wait_for_selector("[data-progress]:has-text('stopped')")
        for page in (first, second):
            page.context.close()


@pytest.mark.slow
def test_each_side_has_its_own_settings_which_its_column_and_its_link_tell(visit, pocket):
    page = visit(pocket + "#view=live&la=npo&lb=npo&lba=0.1&lea=1&leb=2")
    move_slider(page, "lbb", 0)  # the power of ten
    assert (address_of(page)["lba"], address_of(page)["lbb"]) == ("0.1", "1")
    assert page.locator("[data-knob=lwa]").is_hidden()  # NPO has no retain term
    again = visit(page.url)
    tags = [f"[data-column=live-{side}] .tag" for side in "ab"]
    assert "β 0.1" in again.inner_text(tags[0])
    assert "β 1," in again.inner_text(tags[1])
    again.click("[data-action=start]")
    again.wait_for_function(
        "document.querySelectorAll('[data-tool=download]:enabled').length === 2 &&"
        "document.querySelectorAll('[data-column=live-a] .code').length === 2",
    )
    for side, beta, epochs in (("a", 0.1, 1), ("b", 1, 2)):
        column = again.locator(f"[data-column=live-{side}]")
        assert f"β {beta}, lr " in column.locator(".tag").inner_text()
        assert f", {epochs} epoch" in column.locator(".tag").inner_text()
        assert f"--beta {beta} " in column.locator(".code").first.text_content()
        assert column.locator("h3").inner_text() == f"NPO β {beta} epochs {epochs}"
    assert again.locator("[data-chart^=live-] svg text").evaluate_all(OUTSIDE) == []
    names = again.locator("[data-chart=live-probability] text.named").all_text_contents()
    assert {name.partition(",")[0] for name in names} == {"β 0.1", "β 1"}  # where room is short
    tops = [again.locator(f"[data-column=live-{s}] .scores").bounding_box()["y"] for s in "ab"]
    assert tops[0] == tops[1]
    move_slider(again, "lba", -1.5)  # of the next run, not of this one
    assert "β 0.1, " in again.inner_text(tags[0])
    again.click("[data-action=stop]")


@pytest.mark.slow
def test_an_older_link_sets_both_sides(visit, pocket):
    page = visit(pocket + "#view=live&la=npo_rt&lb=dpo_rt&lbeta=0.2&lret=3&lep=4")
    for side in "ab":
        told = page.inner_text(f"[data-column=live-{side}] .tag")
        assert "β 0.2, retain weight 3, " in told
        assert "4 epochs" in told
        assert page.input_value(f"[data-knob=le{side}]") == "4"


# Holds back the answers of one function of the server for a second.
LATE = """(name) => {
    const plain = window.fetch;
    window.fetch = async (address, asks) => {
        const answer = await plain(address, asks);
        const late = String(asks?.body).includes(`"fn_name":"${name}"`);
        if (late) await new Promise((done) => setTimeout(done, 1000));
        return answer;
    };
}"""


@pytest.mark.slow
def test_scores_that_are_older_than_the_text_are_grey_and_a_new_run_starts_with_none(visit, pocket):
    page = visit(pocket + "#view=live&lep=20&la=npo&lb=npo_rt")
    grey = page.locator("[data-column=live-a].stale .tag")
    page.click("[data-action=start]")
    # in one look: an evaluation may come at any time
    steps = page.wait_for_function(
        "(() => { const column = document.querySelector('[data-column=live-a].stale');"
        "if (!column?.querySelector('.scores dd')) return null;"
        "return [...column.querySelector('.tag').innerText.matchAll(/step (\\d+)/g)]"
        ".map((m) => Number(m[1])); })()"
    )
    text, scores = steps.json_value()
    assert text > scores
    assert "grey: scores of step" in grey.inner_text() or not grey.count()
    page.evaluate(LATE, "stop")  # the runs say that they have stopped before the server does
    page.click("[data-action=stop]")
    page.wait_for_selector("[data-progress]:has-text('stopped')")
    assert page.locator("[data-column=live-a] .scores dd").count() > 0
    page.evaluate(
        "() => { const box = document.querySelector('[data-column=live-a] .scores');"
        "window.emptied = false; new MutationObserver(() => {"
        "window.emptied ||= box.childElementCount === 0; }).observe(box, {childList: true}); }"
    )
    page.click("[data-action=start]")
    page.wait_for_function("window.emptied")  # before new ones are shown
    page.wait_for_selector("[data-progress]:has-text('running')")  # the late answer has come
    page.click("[data-action=stop]")


@pytest.mark.slow
def test_a_question_that_cannot_be_asked_is_told_and_the_run_goes_on(visit, pocket):
    page = visit(pocket + "#view=live&lep=20&la=ga&lb=npo")
    assert page.inner_text("[data-source]") == "no live run"
    page.click("[data-action=start]")
    page.wait_for_selector("[data-chart=live-tradeoff] .dot")
    page.fill("[data-prompt]", "  ")
    page.click("[data-action=ask]")
    assert page.inner_text("[data-problem]") == "There is no question: write one."
    assert page.locator(".reply").count() == 0
    page.fill("[data-prompt]", "x" * 1100)
    page.click("[data-action=ask]")
    page.wait_for_function(
        "[...document.querySelectorAll('.reply')].filter((e) => e.textContent === "
        "'the question has 1107 tokens, the model’s context holds 256: shorten it'"
        ".replace('’', \"'\")).length === 2",
    )
    assert page.inner_text("[data-progress]").count("running") == 2
    page.click("[data-action=stop]")


@pytest.mark.slow
def test_a_lost_connection_is_tried_again_and_stop_leaves_the_queue(window):
    """In a context of its own: a request that fails is an error in its console."""
    with served("--live", 1) as (address, _):
        context = patient(window.new_context())
        page = context.new_page()
        page.goto(address + "#view=live&lep=20&la=ga&lb=npo")
        page.wait_for_selector(READY)
        page.click("[data-action=start]")
        page.wait_for_selector("[data-chart=live-tradeoff] .dot")
        ask = "**/gradio_api/component_server/"
        page.route(ask, lambda route: route.abort())
        page.wait_for_selector("[data-problem]:has-text('trying again in 2 s')")
        assert page.inner_text("[data-progress]").count("running") == 2
        page.unroute(ask)
        page.wait_for_selector("[data-problem]", state="hidden")
        before = page.inner_text("[data-progress]")
        page.wait_for_function(
            "(before) => document.querySelector('[data-progress]').innerText !== before",
            arg=before,
        )
        other = context.new_page()
        other.goto(address + "#view=live&la=ga&lb=npo")
        other.wait_for_selector(READY)
        for _ in range(2):  # Stop leaves the queue, and one may queue again
            other.click("[data-action=start]")
            other.wait_for_selector("[data-progress]:has-text('number 1 in the queue')")
            other.click("[data-action=stop]")
            other.wait_for_selector("[data-progress]:has-text('stopped, out of the queue')")
            assert other.locator("[data-problem]").is_hidden()
        other.click("[data-action=start]")
        other.wait_for_selector("[data-progress]:has-text('number 1 in the queue')")
        page.goto("about:blank")  # who closes the page makes room at once
        other.wait_for_selector("[data-progress]:has-text('step')")
        context.close()


def test_only_what_the_page_asks_for_is_answered(collectors):
    where = urlsplit(collectors[0]).netloc
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n0\r\n--x--'
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    ask = "/gradio_api/component_server/"

    def status(path, body=None, headers=None):
        connection = http.client.HTTPConnection(where)
        connection.request("POST" if body else "GET", path, body, headers or {})
        code = connection.getresponse().status
        connection.close()
        return code

    assert status("/") == status("/theme.css") == 200
    assert status("/gradio_api/upload", form, multipart) == 404
    assert status(ask, form, multipart) == 404
    assert status(ask, b" " * 100_000, {"Content-Type": "application/json"}) == 404
    for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/gradio_api/runs",
                 "/gradio_api/queue/status", "/monitoring", "/docs", "/openapi.json"):  # fmt: skip
        assert status(path) == 404, path
    for path in ("/gradio_api/queue/join", "/gradio_api/run/x", "/gradio_api/vibe-code"):
        assert status(path, b"{}", {"Content-Type": "application/json"}) == 404, path


# --- for everybody ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "width", "scheme"),
    [
        ("compare", 390, "light"),
        ("tradeoff", 1280, "dark"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in itertools.product(VIEWS, (390, 1280), ("light", "dark"))
        ),
    ],
)
def test_every_view_is_accessible_and_fits(visit, collectors, view, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(
        collectors[0] + f"#view={view}&step=20",
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    if view == "theory":
        page.wait_for_selector("[data-chart=theory-forget] svg")
    if view == "much":
        page.wait_for_selector("[data-chart=much-kept] svg")
    page.wait_for_timeout(400)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    serious = [
        (
            each["id"],
            [n["html"][:120] + str(n.get("failureSummary", ""))[:200] for n in each["nodes"]][:3],
        )
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.slow
def test_long_titles_of_several_studies_fit_a_narrow_screen(visit, pocket):
    page = visit(pocket + "#study=1&panel=1", viewport={"width": 390, "height": 800})
    page.wait_for_selector("[data-column=b] .text")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("[data-study]").bounding_box()
    assert box["x"] + box["width"] <= 390


@pytest.mark.slow
def test_everything_can_be_reached_by_keyboard(visit, collectors):
    page = visit(collectors[0] + "#panel=1")
    reached = set()
    for view in VIEWS:
        press(page, str(1 + VIEWS.index(view)))
        page.wait_for_selector(f"[data-tab={view}][aria-selected=true]")
        page.focus(f"[data-tab={view}]")
        for _ in range(45):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "(e => Object.keys(e.dataset).concat(Object.values(e.dataset)).join(' '))"
                    "(document.activeElement)"
                )
            )
    words = " ".join(reached).split()
    for name in ("set", "search", "sort", "step", "play", "side", "match", "mark", "x", "point",
                 "method", "reading", "cut", "quality", "much", "knob", "start", "teach", "time",
                 "theoryMethod", "csv", "hides", "lesson-link"):  # fmt: skip
        assert name in words, name
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("[data-tab=compare][aria-selected=true]")
    press(page, "?")
    assert page.locator("[data-panel]").is_hidden()


def focused(page):
    """What has the focus: its data attributes, then its text."""
    return page.evaluate("(e => [{...e.dataset}, e.textContent.trim()])(document.activeElement)")


@pytest.mark.slow
def test_the_focus_stays_where_it_was_after_every_action(visit, collectors, pocket):
    page = visit(collectors[0] + "#panel=1")
    wait_text(page, "b", "forget 0 says at 40")
    page.locator("[data-list] button").nth(2).press("Enter")
    wait_text(page, "b", "forget 2 says at 40")
    page.wait_for_timeout(300)  # the scores come later and fill the list again
    assert focused(page)[0] == {"number": "2"}
    press(page, "2")
    page.locator("[data-method=npo_rt]").press("Enter")
    assert focused(page)[0] == {"method": "npo_rt"}
    page.locator('.dot[data-run="ga"][data-point="20"]').press("Enter")
    assert page.inner_text("[data-at]") == "step 20 of 40"
    assert focused(page)[0] == {"run": "ga", "point": "20"}
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("[data-at]") == "step 10 of 40"
    assert focused(page)[0]["run"] == "ga"
    page = visit(pocket + "#lesson=1")
    for _ in range(7):
        page.locator("[data-lesson] button").press("Enter")
        page.wait_for_timeout(200)
        assert focused(page)[1].startswith(("Next", "End the tour"))
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-lesson] button", state="detached")
    assert focused(page)[1] == "Take the tour in 8 steps"


@pytest.mark.slow
def test_the_question_list_is_one_stop_and_arrows_move_in_it(visit, collectors):
    page = visit(collectors[0] + "#panel=1&set=forget")
    page.focus("[data-search]")
    page.keyboard.press("Tab")
    assert focused(page)[0] == {"number": "0"}
    page.keyboard.press("Tab")
    assert "number" not in focused(page)[0]
    page.keyboard.press("Shift+Tab")
    moves = (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("End", 7), ("Home", 0))
    for key, number in moves:
        page.keyboard.press(key)
        wait_text(page, "b", f"forget {number} says at 40")
        page.wait_for_timeout(100)
        assert focused(page)[0] == {"number": str(number)}


@pytest.mark.slow
def test_playing_ends_where_there_is_no_scrubber(visit, collectors):
    page = visit(collectors[0] + "#step=0")
    press(page, "p")
    page.wait_for_selector("[data-action=play][aria-pressed=true]")
    press(page, "6")
    page.wait_for_selector("[data-tab=about][aria-selected=true]")
    assert page.get_attribute("[data-action=play]", "aria-pressed") == "false"
    before = address_of(page)["step"]
    for key in ("p", "ArrowRight", "m", "d", "j"):
        press(page, key)
    page.wait_for_timeout(1000)
    assert address_of(page) == {
        "view": "about", "q": "0", "k": "8", "step": before, "a": "ga", "b": "npo_rt",
    }  # fmt: skip


@pytest.mark.slow
def test_long_words_are_broken(visit, tmp_path):
    made = [evaluation(step, say=lambda *_: "w" * 400) for step in (0, 10)]
    for each in made:
        for row in each.rows["forget"]:
            row |= {"question": "q" * 400, "answer": "a" * 400}
    write_run(tmp_path / "npo", "npo", made, method="npo", seed=0)
    with served_here(tmp_path) as address:
        for width in (390, 1280):
            page = visit(address + "#panel=1", viewport={"width": width, "height": 800})
            wait_text(page, "a", "w" * 400)
            for part in ("question", "truth", "list"):
                wide = "e => [e.scrollWidth - e.clientWidth, e.getBoundingClientRect().right]"
                over, right = page.locator(f"[data-{part}]").first.evaluate(wide)
                assert (over > 1 and part != "truth", right > width) == (False, False), part
            assert page.evaluate("document.documentElement.scrollWidth") <= width
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
    assert app.main(["--model", "somewhere/model"]) == 2
    assert "give --model and --task together" in capsys.readouterr().err
    assert app.main(["--model", "somewhere/model", "--task", "passages"]) == 2
    assert "the live lab asks questions, and passages have none" in capsys.readouterr().err
    assert app.main(["--live", "0"]) == 2
    assert "--live must be at least 1, it is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_it_starts_without_a_warning_of_pydantic(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    with served() as (_, process):
        process.terminate()
        process.wait(10)
        assert "pydantic" not in process.stdout.read()


@pytest.mark.slow
def test_a_notebook_shows_the_page_in_a_frame(visit, folder):
    frame = app.show(folder, height=700)
    try:
        page = visit(frame.src)
        wait_text(page, "b", "forget 0 says at 40")
        assert frame.height == 700
    finally:
        server._OPEN.close()


def test_the_sets_of_the_small_study():
    assert sum(SETS.values()) == 18  # what the counts above are of
