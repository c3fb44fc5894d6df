"""The view of the audits: its numbers in their places, its cards, what it says of its controls."""

import itertools
import json
import re

import pytest
from audited import (
    BANDS,
    BITS,
    CARD_NAMES,
    MODELS,
    NPO,
    ORIGINAL,
    ROWS,
    audits,
    band_of,
    controls,
    points_of,
    write_audits,
)
from browser import OUTSIDE, address_of, press, served_here
from studies import write_study

from npo_kit.app import audits as packed
from npo_kit.app import packed as studies
from npo_kit.app.onefile import fitted
from npo_kit.app.opening import open_studies
from npo_kit.app.page import RecordedAnswers
from npo_kit.audit.cards import CARDS
from npo_kit.errors import KitError

EDGE = 6  # percent of a cell before its scale begins
FIGURES = {  # a word of each card's figure
    "verbatim": "From the original to this model, by question",
    "leak": "Ask k times",
    "formats": "Asked in another form",
    "relearning": "Teach the other half of the facts",
    "compression": "Facts to keep",
    "depth": "Where has the fact gone",
    "mixing": "UWC point 0.70",
    "membership": "PrivLeak",
    "guards": "Are its answers still language?",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("s") / "collectors")


@pytest.fixture(scope="module")
def served(folder):
    patched = pytest.MonkeyPatch()
    patched.setattr(studies.PackedStudy, "models", ["small"])
    with served_here(folder) as made:
        yield made
    patched.undo()


@pytest.fixture
def ship(monkeypatch, tmp_path):
    """Ships a study of audits for as long as a test lasts, or none."""

    def ships(there=True, **about):
        def path(name):
            if not there:
                raise FileNotFoundError(name)
            return write_audits(tmp_path, **about)

        monkeypatch.setattr(packed, "shipped_data", path)
        packed._read.cache_clear()

    monkeypatch.setattr(studies.PackedStudy, "models", ["small"])
    yield ships
    packed._read.cache_clear()


def drawn(page):
    page.wait_for_selector("[data-audit-grid] table")
    return page


def opened(page):
    page.wait_for_selector(".audit-card .parts")
    return page


def plain(text):
    return text.replace("\xa0", " ").replace("−", "-")


def words_of(page, selector):
    return plain(page.locator(selector).first.inner_text())


def scale_of(card):
    """Where a value lies in its cell, percent from the left: by the rule of the view."""
    ends = [ORIGINAL[card], *BANDS[card]]
    least, most = min(ends), max(ends)
    span = most - least
    before, after = (0.3, 0.12) if CARDS[card].more else (0.12, 0.3)
    low, high = least - before * span, most + after * span
    if CARDS[card].bounded or not CARDS[card].more:
        low, high = max(0, low), min(1, high)
    if card == "guards":
        low = 0

    def at(value):
        share = (value - low) / (high - low)
        return EDGE + (100 - 2 * EDGE) * (share if CARDS[card].more else 1 - share)

    return at


# --- what is packed -----------------------------------------------------------------------------


def test_the_grid_and_the_bands_are_the_recorded_numbers(ship):
    ship()
    grid = packed.recorded_audits()
    assert [card["name"] for card in grid["cards"]] == list(CARD_NAMES)
    for name in CARD_NAMES:
        assert grid["points"][name] == pytest.approx(points_of(name), abs=0.011)
        assert grid["audits"][0]["cards"][name]["band"] == pytest.approx(band_of(name), abs=1e-3)
    assert [a["detailed"] for a in grid["audits"]] == [True, True, True, True, False]
    assert packed.audit_detail("retained", "last", "leak")["curve"][0] == pytest.approx(
        [band_of("leak")[0], band_of("leak")[1]],
        abs=0.02,  # rows are rounded to whole samples
    )
    before = packed.audit_detail("retained", "last", "compression")["start"]
    assert before == pytest.approx(band_of("verbatim"), abs=1e-3)
    bits = packed.audit_detail("s/npo_rt", "last", "compression")["bits"]
    for name, lost in BITS.items():
        assert bits[name]["forget"] == pytest.approx(NPO["verbatim"] - lost)
    with pytest.raises(KitError, match="open another run"):
        packed.audit_detail("s/npo_rt-seed1", "last", "leak")
    with pytest.raises(KitError, match="open one of the grid's"):
        packed.audit_detail("original", "last", "leaks")


@pytest.mark.parametrize(
    ("original", "like", "failed"),
    [
        ("remembers", 40, []),
        ("remembers", 33, []),  # 7 of 40 where a tenth may: chance .10
        ("remembers", 32, ["Only 32 of 40"]),  # 8: chance .04
        ("suppressed", 32, ["The original, which knows", "Only 32 of 40"]),
    ],
)
def test_controls_that_come_out_wrong_are_told(original, like, failed):
    words = {"retained-like": like - 1, "retained-like, damaged": 1, "suppressed": 40 - like}
    told = packed.failed_controls(audits(original=original, words=words))
    assert len(told) == len(failed)
    assert all(line.startswith(start) for line, start in zip(told, failed, strict=True))


@pytest.mark.slow
def test_only_a_study_of_its_task_and_model_has_audits(ship, folder):
    ship()
    assert packed.audited("own:x", ["other", "small"])
    assert not packed.audited("own:y", ["small"])
    assert not packed.audited("own:x", ["smaller"])
    ship(there=False)
    assert not packed.audited("own:x", ["small"])
    assert packed.recorded_audits() == {}
    index = RecordedAnswers(open_studies([folder])[0]).index(0)
    assert index["absent"] == ["audit"]


# --- the grid -----------------------------------------------------------------------------------


def test_dots_bands_and_arrows_stand_at_their_numbers(visit, served, ship):
    ship()
    page = drawn(visit(served + "#view=audit&checkpoint=last"))

    def middle(found, cell):
        box, own = found.bounding_box(), cell.bounding_box()
        return 100 * (box["x"] + box["width"] / 2 - own["x"]) / own["width"]

    for name in CARD_NAMES:
        at = scale_of(name)
        cell = page.locator(f'[data-cell="s/npo_rt {name}"] svg.cell')
        assert middle(cell.locator("[data-dot]"), cell) == pytest.approx(at(NPO[name]), abs=1.2)
        assert middle(cell.locator("[data-tick]"), cell) == pytest.approx(
            at(ORIGINAL[name]), abs=1.2
        )
        band = cell.locator(".null").bounding_box()
        own = cell.bounding_box()
        ends = sorted(map(at, band_of(name)))
        left = 100 * (band["x"] - own["x"]) / own["width"]
        assert left == pytest.approx(ends[0], abs=1.2)
        assert 100 * band["width"] / own["width"] == pytest.approx(
            max(1, ends[1] - ends[0]),
            abs=2.5,  # its outline is 2 pixels
        )
    gone = page.locator('[data-cell="s/ga verbatim"] [data-dot]')
    assert gone.get_attribute("data-beyond") == "-1"
    seed = page.locator('[data-cell="s/npo_rt verbatim"] [data-seed="1"]')
    cell = page.locator('[data-cell="s/npo_rt verbatim"] svg.cell')
    assert middle(seed, cell) == pytest.approx(scale_of("verbatim")(-3.0), abs=1.2)
    assert page.locator("[data-retained-row] .point").count() == MODELS * len(CARD_NAMES)
    row = words_of(page, "[data-retained-row] th")
    assert "38 of 40 retained-like" in row
    assert "2 over-forgotten" in row
    assert page.locator("[data-audit-failed]").is_hidden()
    lead = words_of(page, "[data-audit-lead]")
    assert lead.startswith("NPO+RT no longer says it, but holds it. GA broke and keeps less than")
    page.select_option("[data-checkpoint]", "best")
    assert address_of(page).get("checkpoint") is None
    lead = words_of(page, "[data-audit-lead]")
    assert lead.startswith("NPO+RT still tells it in some way of asking. GA broke")
    dot = page.locator('[data-cell="s/npo_rt verbatim"] [data-dot]')
    assert middle(dot, cell) == pytest.approx(scale_of("verbatim")(-2.0), abs=1.2)
    assert "seed 1: suppressed" in words_of(page, "tr:has([data-verdict='s/npo_rt']) th")


@pytest.mark.slow
def test_a_failed_control_stands_at_the_head_and_verdicts_have_two_sentences(visit, served, ship):
    ship(original="suppressed", words={"retained-like": 20, "suppressed": 20})
    page = drawn(visit(served + "#view=audit&checkpoint=last"))
    head = words_of(page, "[data-audit-failed]")
    assert head.startswith("A control of this audit failed. The original, which knows every fact,")
    assert "Only 20 of 40 models" in head
    page.locator('[data-verdict="s/npo_rt"]').focus()
    told = words_of(page, "[data-card]")
    assert "It says nothing that is surely above the models that never saw it, by verbatim." in told
    assert "Hides line of s/npo_rt." in told


@pytest.mark.slow
def test_the_cells_are_one_stop_and_arrows_and_keys_open_and_close(visit, served, ship):
    ship()
    page = drawn(visit(served + "#view=audit&checkpoint=last"))

    def at():
        return page.evaluate("document.activeElement.dataset.cell")

    page.locator('[data-cell="original verbatim"]').focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    assert at() == "s/npo_rt verbatim"
    assert page.locator('[data-cell][tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    opened(page)
    assert at() == "s/npo_rt verbatim"
    assert {"run": "s%2Fnpo_rt", "card": "verbatim"}.items() <= address_of(page).items()
    again = opened(visit(page.url))
    assert words_of(again, ".card-head h3") == "NPO+RT · Verbatim"
    page.keyboard.press("Escape")
    assert page.locator(".audit-card").count() == 0
    assert at() == "s/npo_rt verbatim"


# --- its cards ----------------------------------------------------------------------------------


def card_address(served, card, run="s/npo_rt"):
    return f"{served}#view=audit&checkpoint=last&run={run}&card={card}"


def test_a_card_says_its_numbers_and_shows_texts_as_text(visit, served, ship):
    ship()
    page = opened(visit(card_address(served, "leak")))
    card = words_of(page, ".audit-card")
    assert "recorded" in card
    band = band_of("leak")
    assert f"0.020 (95 %: -0.030 to 0.040), share of samples; 90 % of {MODELS} models" in card
    assert f"that never saw it: {band[0]:.3f} to {band[1]:.3f}; the original: 0.500." in card
    assert "It lies in the band." in card
    assert "NPO+RT, a sample that tells it\ns/npo_rt told 0 <b>kept as text</b>" in card.replace(
        "NPO+RT told", "s/npo_rt told"
    )
    page.select_option("[data-probe]", "3")
    page.wait_for_selector("text=told 3 <b>kept as text</b>")
    assert address_of(page)["probe"] == "3"
    curve = page.locator("[data-chart=audit-leak] polyline").last.get_attribute("points")
    _, y = map(float, curve.split()[-1].split(","))
    height = 360 - 24 - 58  # margins of the axes
    share = 1 - (1 - NPO["leak"]) ** 32
    assert y == pytest.approx(24 + height * (1 - share), abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["s/npo_rt", "s/ga", "original"])
def test_every_card_opens_its_figure(visit, served, ship, run):
    ship()
    page = visit(card_address(served, "verbatim", run))
    for name in CARD_NAMES:
        if not page.locator(f'[data-cell="{run} {name}"][aria-expanded=true]').count():
            page.locator(f'[data-cell="{run} {name}"]').click()
        page.wait_for_selector(f".card-head h3:has-text('{CARDS[name].title}')")
        opened(page)
        assert FIGURES[name] in words_of(page, ".audit-card") or name == "mixing"
        assert page.locator(".audit-card svg text").evaluate_all(OUTSIDE) == [], name
        assert page.locator(".audit-card .chip").inner_text() == "recorded"
        strip = page.locator(f"[data-chart=audit-strip-{name}]")  # right is more, as in the grid
        first, band = (strip.locator(part).bounding_box() for part in (".original", ".null"))
        assert (first["x"] > band["x"]) == (scale_of(name)(ORIGINAL[name]) > 50), name
    assert page.locator("[data-problem]").is_hidden()


@pytest.mark.slow
def test_figures_have_a_mark_for_each_number(visit, served, ship):
    ship()
    page = opened(visit(card_address(served, "verbatim")))
    assert page.locator("[data-dumbbell]").count() == ROWS
    page.locator('[data-of="5"]').click()
    assert address_of(page)["probe"] == "5"
    page = opened(visit(card_address(served, "depth")))
    assert page.locator("[data-square]").count() == 3 * ROWS
    page = opened(visit(card_address(served, "mixing")))
    assert "UWC point 0.70" in plain(page.text_content("[data-chart=audit-mixing]"))
    page = opened(visit(card_address(served, "formats")))
    assert page.locator("[data-form]").count() == 8 + 7 + 7  # the original is told not to, besides
    page.locator('[data-form="s/ga cloze"]').click()
    page.wait_for_selector("text=cloze question 0?")
    assert {"form": "cloze", "run": "s%2Fga"}.items() <= address_of(page).items()
    assert words_of(page, ".card-head h3") == "GA · Other formats"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "scheme", "card"),
    [
        *itertools.product((390, 1280), ("light", "dark"), ("", "leak", "formats")),
        *itertools.product((390,), ("light",), ("depth", "compression", "membership", "guards")),
    ],
)
def test_it_is_accessible_and_fits(visit, served, ship, width, scheme, card):
    from axe_playwright_python.sync_playwright import Axe

    ship()
    size = {"width": width, "height": 800}
    page = drawn(visit(card_address(served, card), viewport=size, color_scheme=scheme))
    if card:
        opened(page)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    serious = [
        (each["id"], [n["html"][:150] + str(n.get("failureSummary")) for n in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.slow
def test_in_a_lecture_the_open_card_is_all_there_is(visit, served, ship):
    ship()
    page = opened(visit(card_address(served, "leak")))
    press(page, "f")
    page.wait_for_selector(".npo.presenting")
    assert page.locator(".audit-card").is_visible()
    for away in ("[data-cell]", "[data-audit-lead]", "[data-audit-caption]"):
        assert page.locator(f"{away}:visible").count() == 0, away
    size = "e => parseFloat(getComputedStyle(e).fontSize)"
    assert page.locator(".audit-card h3").evaluate(size) >= 20


@pytest.mark.slow
def test_without_audits_there_is_no_such_view(visit, folder, ship):
    ship(there=False)
    with served_here(folder) as address:
        page = visit(address + "#view=audit")
        assert page.locator("[data-tab=audit]").is_hidden()
        assert page.get_attribute("[data-tab=compare]", "aria-selected") == "true"


@pytest.mark.slow
def test_the_page_in_one_file_has_the_audits(window, folder, ship, tmp_path):
    ship()
    html, _ = fitted(RecordedAnswers(open_studies([folder])[0]), 0, 6.0)
    (tmp_path / "page.html").write_bytes(html)
    page = window.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri() + "#view=audit&run=s/npo_rt&card=depth")
    opened(page)
    assert words_of(page, ".card-head h3") == "NPO+RT · Depth"
    page.locator('[data-cell="s/ga leak"]').click()
    page.wait_for_selector(".card-head h3:has-text('Sampled leak')")
    opened(page)
    page.close()
    assert problems == []


def test_what_stands_in_the_study_is_what_it_was_written_from():
    """The fixture's own bands, by numpy's percentiles of its controls."""
    import numpy as np

    made = controls()["retained"]
    for name in CARD_NAMES:
        rows = np.array(made[name], dtype=float)
        means = np.nanmean(rows, axis=1)
        assert np.percentile(means, (5, 95)) == pytest.approx(band_of(name))
    assert json.loads(json.dumps(audits())) == audits()
    assert re.match("own", audits()["plan"]["task"])
