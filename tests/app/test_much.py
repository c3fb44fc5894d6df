"""The view of how much can be forgotten, and models that never saw it in the other charts."""

import json
import re
from contextlib import nullcontext

import numpy as np
import pytest
from browser import OUTSIDE, address_of, press, served_here
from places import ROOT
from studies import write_study

from npo_kit.app import ahead, much, packed
from npo_kit.metrics.null import Null, ks
from npo_kit.studies import splits, table
from npo_kit.studies.scores import write_scores

ROWS = np.arange(8.0)  # log truth ratios of the retained-only model that is made up here
CHART = {"kept": "[data-chart=much-kept]", "quality": "[data-chart=much-quality]"}


def moved(count):
    """Ratios whose distance D to ROWS is count/8."""
    return np.where(count > ROWS, ROWS + 1000.0, ROWS)


NULL = Null((moved(1), moved(2), moved(4)), (0, 0, 0), {})


def record(run, percent, method, step, utility, far, forget=0.2, seed=0, variant=None):
    """A line of a study of splits; `far` eighths is its distance D."""
    own = moved(far)
    d, p = ks(own, ROWS)
    return {
        "run": f"forget{percent}-{run}",
        "task": f"authors:forget{percent}",
        "model": "pocket",
        "method": method,
        "variant": variant,
        "seed": seed,
        "step": step,
        "model_utility": utility,
        "forget_quality": p,
        "forget_ks": d,
        "forget_probability": forget,
        table.RATIOS: own.tolist(),
    }


def run(name, percent, method, end, far, **about):
    """A run of two evaluations, the last with (step, utility, P(forget)) of `end`."""
    step, utility, forget = end
    return [
        record(name, percent, method, 0, 0.8, 8, forget=0.9, **about),
        record(name, percent, method, step, utility, far, forget=forget, **about),
    ]


def made_up():
    """Two splits; the original's utility is .8, and retained-only's P(forget) .2.

    At 50 % GA+RT keeps 60, 62.5 and 75 %, in its second seed P(forget) stays above .2; at 10 % two
    of its seeds stay above.
    """
    ends = {
        10: ((7, 0.72, 0.1), (7, 0.76, 0.4), (7, 0.78, 0.4)),
        50: ((7, 0.48, 0.1), (7, 0.5, 0.4), (7, 0.6, 0.1)),
    }
    lines = []
    for percent, of_seeds in ends.items():
        lines.append(record("original", percent, "original", 0, 0.8, 8, forget=0.9))
        lines.append(record("retained", percent, "retained", 0, 0.8, 0))
        for seed, end in enumerate(of_seeds):
            lines += run(f"ga_rt-{seed}", percent, "ga_rt", end, 3, seed=seed)
        lines += run("npo_rt", percent, "npo_rt", (9, 0.784, 0.1), 1)
        lines += run("ga", percent, "ga", (5, 0.0, 0.9), 6)
        lines += run("ga-steps", percent, "ga", (5, 0.0, 0.9), 6, variant="steps")
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("s") / "collectors")


@pytest.fixture(scope="module")
def address(folder):
    with served_here(folder) as made:
        yield made + "#view=much"


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """Ships a study of splits with these records, or none, for as long as a test lasts."""

    def ship(records):
        def path(name):
            if records is None:
                raise FileNotFoundError(name)
            return tmp_path

        if records is not None:
            write_scores(tmp_path, records)
        monkeypatch.setattr(much, "shipped_data", path)
        for module in (splits, table):
            monkeypatch.setattr(module, "null_of", lambda model, task: NULL)
        much._chart.cache_clear()

    yield ship
    much._chart.cache_clear()


def drawn(page):
    page.wait_for_selector(f"{CHART['kept']} svg")
    return page


def plain(text):
    """Text with the spaces that do not break as others."""
    return text.replace("\xa0", " ")


def words_of(page, part):
    return plain(page.inner_text(f"[data-{part}]"))


def lines_of(page, part):
    rows = page.locator(f"[data-{part}] tr").all()
    return [list(map(plain, row.locator("th, td").all_text_contents())) for row in rows]


def number(text):
    """What the page writes, as a number; None for a dash."""
    value = text.replace("−", "-").removesuffix(" %")
    return None if value == "–" else float(value) / (100 if text.endswith("%") else 1)


def test_the_tables_and_a_card_are_the_recorded_study(visit, address):
    """Whatever it came out as: every number against `splits_chart`."""
    chart = much.recorded_splits()
    page = drawn(visit(address))
    names = page.locator("[data-reading] option").all_text_contents()
    assert names == [re.split("[:,]", name)[0] for name in chart["readings"].values()]
    assert page.locator("[data-cut] option").all_text_contents() == list(chart["cuts"].values())
    measures = ("kept", "step", "p", "d", "percentile", "forget")
    keys = [(key, cut) for cut in chart["cuts"] for key in measures]
    for reading in chart["readings"]:
        page.select_option("[data-reading]", reading)
        assert page.locator("[data-view=much] svg text").evaluate_all(OUTSIDE) == []
        runs = [run for run in chart["runs"] if run["variant"] == reading]
        _, *told = lines_of(page, "much-table")
        assert len(told) == len(runs)
        order = {m: n for n, m in enumerate(dict.fromkeys(run["method"] for run in runs))}
        runs.sort(key=lambda run: (order[run["method"]], run["percent"]))
        for run, (_, percent, seed, *values) in zip(runs, told, strict=True):
            assert (percent, seed) == (f"{run['percent']} %", str(run["seed"]))
            for (key, cut), value in zip(keys, values, strict=True):
                true = run[key].get(cut)
                close = None if true is None else pytest.approx(true, abs=0.00501, rel=0.02)
                assert number(value) == close, (run, key, cut)
    nulls = [band for band in chart["nulls"].values() if band]
    for band, (_, *values) in zip(nulls, lines_of(page, "much-nulls")[1:], strict=True):
        true = [*(d for d, _ in band), *(p for _, p in band)]
        assert [number(value) for value in values] == pytest.approx(true, abs=0.005)
    method, percent = runs[-1]["method"], runs[-1]["percent"]
    page.locator(f'{CHART["kept"]} [data-much="{method} {percent}"]').focus()
    of_point = [r for r in runs if (r["method"], r["percent"]) == (method, percent)]
    _, *told = lines_of(page, "card")
    for run, (seed, kept, step, *_) in zip(of_point, told, strict=True):
        assert (seed, step) == (str(run["seed"]), str(run["step"]["best"]))
        assert number(kept) == pytest.approx(run["kept"]["best"], abs=0.00501)


def test_known_numbers_are_drawn_and_said(visit, address, shipped):
    shipped(made_up())
    page = drawn(visit(address))
    assert words_of(page, "much-lead") == (
        "When 50 % of the authors are to be forgotten, NPO+RT keeps 98 % of its utility, "
        "GA+RT keeps 60 to 75 % of its utility.\nEqual epochs, at the rule's checkpoint."
    )
    assert "the median of 1 or 3 seeds" in words_of(page, "much-caption")
    assert "Seeds that" not in words_of(page, "much-caption")
    svg = page.locator(f"{CHART['kept']} svg").bounding_box()
    for method, median in (("ga_rt", 0.625), ("npo_rt", 0.98), ("ga", 0.0)):
        dot = page.locator(f'{CHART["kept"]} [data-much="{method} 50"]').bounding_box()
        down = dot["y"] + dot["height"] / 2 - svg["y"]
        assert down == pytest.approx(24 + (svg["height"] - 82) * (1 - median), abs=1)  # margins
    page.locator(f'{CHART["kept"]} [data-much="ga_rt 50"]').hover()
    d, p = ks(moved(3), ROWS)
    head, *rows = lines_of(page, "card")
    assert head == ["seed", "kept", "step", "p", "D", "percentile"]
    told = ["7", f"{p:.2f}", f"{d:.3f}", "67 %"]  # two of the three models lie nearer
    assert rows == [["0", "60 %", *told], ["1", "63 %", *told], ["2", "75 %", *told]]
    card = words_of(page, "card")
    assert card.startswith("GA+RT · 50 % · recorded")
    meaning = "Of models that never saw the rows, 67 % lie nearer to the retained-only model."
    assert card.endswith(meaning)
    assert page.locator(".null").count() == 2  # the band and its mark
    assert "p = 0.05" in page.inner_text(CHART["quality"])


@pytest.mark.slow
def test_the_foot_says_where_this_study_was_recorded(visit, address, shipped):
    """Not where the study was that the other views show."""
    page = drawn(visit(address))
    made = json.loads((ROOT / "data" / "studies" / "pocket-splits" / "study.json").read_text())
    commit, date = made["provenance"]["git"]["commit"], made["provenance"]["started"]
    foot = words_of(page, "footer")
    assert foot.startswith(f"Recorded {date[:10]} on ")
    assert f"kit at commit {commit[:10]}, " in foot
    assert foot.endswith(
        "task authors:forget10, authors:forget30, authors:forget50, authors:forget90."
    )
    page.click("[data-tab=compare]")
    assert commit[:10] not in words_of(page, "footer")
    shipped(made_up())
    assert not drawn(visit(address)).is_visible("[data-footer]")


@pytest.mark.slow
def test_what_is_never_reached_is_a_gap_and_is_said(visit, address, shipped):
    shipped(made_up())
    page = drawn(visit(address + "&cut=equal"))
    lack = "did not get there"
    # of .9 and .1 the second is at most .2, where .48 and .6 of .8 are left
    said = f"GA+RT keeps 60 to 75 % of its utility (1 of 3 seeds {lack}).\nEqual epochs, at the f"
    assert said in words_of(page, "much-lead")
    gaps = "GA+RT at 10 % (2 of 3), GA+RT at 50 % (1 of 3), GA at 10 % (1 of 1), "
    caption = words_of(page, "much-caption")
    assert f"Seeds that {lack}: {gaps}GA at 50 % (1 of 1). They never" in caption
    assert page.locator(f'{CHART["kept"]} [data-much^="ga "]').count() == 0
    assert page.locator(f"{CHART['kept']} polyline").count() == 2
    assert page.locator(f'{CHART["quality"]} [data-much^="ga "]').count() == 0
    assert page.locator(f'{CHART["quality"]} [data-much^="ga_rt "]').count() == 2
    page.select_option("[data-reading]", "steps")
    assert page.locator("[data-much]").locator(".dot").count() == 0
    page.select_option("[data-cut]", "last")
    assert page.locator(f'{CHART["quality"]} [data-much^="ga "]').count() == 2


@pytest.mark.slow
def test_its_address_shows_the_same_and_back_leads_back(visit, address, shipped):
    shipped(made_up())
    page = drawn(visit(address))
    chosen = {"reading": "steps", "cut": "last", "quality": "percentile"}
    for name, value in chosen.items():
        page.select_option(f"[data-{name}]", value)
    assert chosen.items() <= address_of(page).items()
    press(page, "1")
    page.wait_for_selector("[data-tab=compare][aria-selected=true]")
    assert page.inner_text("[data-source]") == "recorded"
    page.go_back()
    page.wait_for_selector("[data-tab=much][aria-selected=true]")
    again = drawn(visit(page.url))
    for shown in (page, again):
        for name, value in chosen.items():
            assert shown.input_value(f"[data-{name}]") == value


@pytest.mark.slow
def test_a_point_beneath_another_is_reached_by_pressing_again(visit, address, shipped):
    records = made_up()
    for line in records:  # now NPO+RT keeps what GA+RT's median seed keeps
        if line["run"] == "forget50-npo_rt" and line["step"]:
            line["model_utility"] = 0.5
    shipped(records)
    page = drawn(visit(address))
    upper = page.locator(f'{CHART["kept"]} [data-much="npo_rt 50"]')
    seen = []
    for _ in range(3):
        upper.click()
        seen.append(page.inner_text("[data-card] b"))
        assert "Here too: " in words_of(page, "card")
    assert seen == ["NPO+RT · 50 %", "GA+RT · 50 %", "NPO+RT · 50 %"]


def test_points_are_one_stop_of_the_tab_key_and_arrows_lead_on(visit, address, shipped):
    shipped(made_up())
    page = drawn(visit(address))

    def at():
        return page.evaluate("document.activeElement.dataset.much")

    page.focus("[data-cut]")
    page.keyboard.press("Tab")
    order = [(at(), None)]
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        order.append((at(), key))
    assert [point for point, _ in order] == [
        "ga_rt 10", "ga_rt 50", "ga_rt 50", "npo_rt 50", "ga_rt 50", "ga 50", "ga 10",
    ]  # fmt: skip
    assert page.locator("[data-card]").is_visible()
    assert page.inner_text("[data-card] b") == "GA · 10 %"
    page.keyboard.press("Escape")
    assert page.locator("[data-card]").is_hidden()
    page.keyboard.press("Tab")  # the chart's own buttons come between
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.quality") is not None


@pytest.mark.slow
def test_on_a_phone_charts_stand_below_each_other_and_a_tap_opens_a_card(visit, address, shipped):
    shipped(made_up())
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True}
    page = drawn(visit(address, **phone))
    boxes = [page.locator(f"{chart} svg").bounding_box() for chart in CHART.values()]
    assert boxes[0]["y"] + boxes[0]["height"] < boxes[1]["y"]
    page.locator(f'{CHART["quality"]} [data-much="npo_rt 50"]').tap()
    card = page.locator("[data-card]")
    assert card.locator("b").inner_text() == "NPO+RT · 50 %"
    box = card.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("reading", "cut", "quality"):
        box = page.locator(f"[data-{name}]").bounding_box()
        assert box["x"] + box["width"] <= 390, name
    beyond = "(all) => all.filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert card.locator("table").evaluate_all(beyond) == 0
    assert card.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")


def test_without_the_study_the_view_says_so_and_it_is_read_once(visit, address, shipped):
    shipped(None)
    page = visit(address)
    page.wait_for_selector("[data-much-none]:has-text('npo-kit study pocket-splits')")
    assert page.locator("[data-much]").is_hidden()
    assert much.recorded_splits() is much.recorded_splits()


# --- models that never saw it, in the other charts ----------------------------------------------


@pytest.fixture
def null(monkeypatch, folder):
    """Three models that never saw the rows of the collectors' study, and their distances."""
    rows = table.study_table(folder)
    retained = table.references(table.read_runs(folder))["own:x"]
    ratios = table.log_truth_ratios(retained, "forget")
    order = np.argsort(ratios)

    def shifted(count):
        made = ratios.copy()
        made[order[:count]] += 1000.0
        return made

    known = Null(tuple(map(shifted, (1, 2, 4))), (0, 0, 0), {})
    for module in (packed, splits, table):
        monkeypatch.setattr(module, "null_of", lambda model, task: known)
    # another process would not know of these three
    monkeypatch.setattr(ahead, "read_ahead", lambda *_: nullcontext())
    return {(r["run"], r["step"]): r["forget_ks"] for r in rows}


def place_of(d):
    """The share of distances 1/8, 2/8 and 4/8 that are smaller; a tie counts half."""
    return sum((d > each + 1e-6) / 2 + (d > each - 1e-6) / 2 for each in (0.125, 0.25, 0.5)) / 3


def test_the_index_has_the_band_and_each_runs_percentile(folder, null):
    index = packed.PackedStudy(folder).index()
    assert index["null"]["d"] == [0.125, 0.25, 0.375]  # of 1|2, 2|4 and 1|4 rows moved
    assert index["null"]["p"] == [ks(moved(1), moved(n))[1] for n in (2, 3, 4)]
    for run in index["runs"]:
        for step, share in zip(run["steps"], run["metrics"]["forget_percentile"], strict=True):
            d = null[run["id"], step]
            assert share == (None if d is None else pytest.approx(place_of(d), abs=1e-3))


@pytest.mark.slow
def test_the_tradeoff_draws_the_band_and_tells_the_percentile(visit, address, folder, null):
    with served_here(folder) as banded:
        page = visit(banded + "#view=tradeoff&x=d&step=20")
        page.wait_for_selector("[data-gap=npo_rt]", state="attached")
        share = f"{100 * place_of(null['npo_rt', 20]):.0f} %"
        assert f", percentile {share}" in words_of(page, "cdf-caption")
        rows = dict(line.split("\t", 1) for line in words_of(page, "nine").split("\n")[1:])
        name = "percentile of D among models that never saw it"
        assert rows[name].split("\t")[2] == share
        assert page.text_content("[data-null]") == "models that never saw it"
        band = page.locator("[data-chart=tradeoff] .null")
        low = float(band.get_attribute("x"))
        high = low + float(band.get_attribute("width"))
        zero = float(page.locator("[data-chart=tradeoff] svg").get_attribute("viewBox").split()[2])
        zero -= 172  # the right margin
        assert (zero - low) / (zero - high) == pytest.approx(0.375 / 0.125)
        assert "Grey band: in pairs" in page.inner_text("[data-caption]")
        page.select_option("[data-x]", "p")
        assert "does not tell" in page.inner_text("[data-caption]")
        page.select_option("[data-x]", "f")
        assert page.locator("[data-null]").count() == 0
        page.context.close()
    page = visit(address.replace("much", "tradeoff&x=d"))  # a study whose null is not known
    page.wait_for_selector("[data-gap=npo_rt]", state="attached")
    assert page.locator("[data-null]").count() == 0
    assert "percentile" not in words_of(page, "nine")
    assert "Grey band" not in page.inner_text("[data-caption]")
