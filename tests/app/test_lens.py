"""The weight lens in a browser: its curves beside autograd of the losses, its dots, its address."""

import math
from itertools import pairwise

import pytest
import torch
from browser import OUTSIDE, READY, address_of, patient, served_here
from studies import write_study

from npo_kit.app.onefile import page, recorded
from npo_kit.app.opening import STUDIES
from npo_kit.app.packed import packed_studies
from npo_kit.app.page import RecordedAnswers
from npo_kit.data.shipped import shipped_data
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.lens import LENS, REFERENCE, SUMMED, TOKENS
from npo_kit.losses.listing import forget_terms
from npo_kit.losses.looks import look_of
from npo_kit.losses.objectives import roles
from npo_kit.records.run import read_run

DECADES = 6  # of probabilities that are drawn, from 1 down
CHECKED = (0.97, 0.8, 0.5, 0.3, 0.1, 0.03, 1e-3, 1e-5)


def by_autograd(term, p, tokens, reference, **settings):
    """The derivative of the loss of one answer by its mean log-probability, from the loss alone."""
    mask = torch.ones(1, tokens, dtype=torch.long)
    labels = torch.zeros_like(mask)
    others = 5  # tokens of a vocabulary that share what is left
    logits = torch.full((tokens, 1 + others), math.log((1 - p) / others), dtype=torch.float64)
    logits[:, 0] = math.log(p)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)  # of each log-probability
    # what moves log p by `shift`: the direction one-hot minus softmax, scaled to do so
    away = -logits.softmax(-1)
    away[:, 0] += 1
    moved = logits + shift * away / (away * away).sum(-1, keepdim=True)
    batch = {
        "forget": Answers.of_tokens(moved, labels, mask, True),
        "forget_ref": Answers(torch.full((1, tokens), math.log(reference)).double(), labels, mask),
        "alternate": Answers(torch.full((1, tokens), -1.0).double(), labels, mask),
    }
    objective = forget_terms()[term].terms["forget"]
    values = objective(**{role: batch[role] for role in roles(objective)}, **settings)
    (weight,) = torch.autograd.grad(reduce(values, mask), shift)
    return weight.item() / (tokens if term in SUMMED else 1)


def curves(shown):
    """Term -> its drawn (p, weight) values, from the pixels."""
    drawn = shown.locator("[data-chart=lens] polyline").evaluate_all(
        "all => all.map((e) => [e.dataset.lens, e.getAttribute('points')])"
    )
    pixels = {t: [tuple(map(float, at.split(","))) for at in text.split()] for t, text in drawn}
    (left, one), (right, _) = pixels["ga"][0], pixels["ga"][-1]
    zero = float(shown.locator("[data-chart=lens] line.axis").first.get_attribute("y1"))
    return {
        term: [(10 ** (-DECADES * (x - left) / (right - left)), (zero - y) / (zero - one))
               for x, y in points]
        for term, points in pixels.items()
    }  # fmt: skip


def drawn_at(points, p):
    """The weight that a curve shows at a probability, between its points."""
    for (p0, w0), (p1, w1) in pairwise(points):
        if p0 >= p >= p1 and p0 > p1:
            return w0 + (w1 - w0) * math.log(p0 / p) / math.log(p0 / p1)
    return None


@pytest.fixture(scope="module")
def collectors(tmp_path_factory):
    with served_here(write_study(tmp_path_factory.mktemp("s") / "collectors")) as address:
        yield address


SETTINGS = [
    (TOKENS, REFERENCE, {}),
    (
        *(40, 0.5),
        {
            "npo": {"beta": 0.02},
            "simnpo": {"beta": 1.0, "gamma": 2.0},
            "tnpo": {"beta": 1.0},
            "wtnpo": {"beta": 0.5, "alpha": 0.4},
            "wga": {"alpha": 3.0},
            "satimp": {"beta1": 1.0, "beta2": 1.5},
        },
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "reference", "chosen"), SETTINGS)
def test_every_curve_is_the_derivative_of_the_loss(visit, collectors, tokens, reference, chosen):
    own = "".join(f"&lens_{t}_{name}={v}" for t, of in chosen.items() for name, v in of.items())
    shown = visit(collectors + f"#view=theory&ln={tokens}&lref={reference}{own}")
    found = curves(shown)
    assert set(found) == set(LENS)
    compared = 0
    for term, points in found.items():
        for p in CHECKED:
            true = by_autograd(term, p, tokens, reference, **chosen.get(term, {}))
            if true > 1.95:  # where the chart ends
                assert (drawn_at(points, p) or 2) > 1.9
                continue
            compared += 1
            # a tenth of a pixel, and what a steep line does between two of its points
            assert drawn_at(points, p) == pytest.approx(true, abs=0.02), (term, p)
    assert compared > 70
    names = shown.locator("[data-chart=lens] text.named").all_text_contents()
    assert sorted(names) == sorted(look_of(term).label for term in LENS)


@pytest.mark.slow
def test_the_focus_and_its_own_sliders_are_in_the_address(visit, collectors):
    shown = visit(collectors + "#view=theory")
    for term in LENS:
        shown.select_option("[data-knob=lens]", term)
        settable = {n for n, about in forget_terms()[term].settable.items() if about.usual}
        sliders = shown.locator("[data-lens-of]:visible input").evaluate_all(
            "all => all.map((e) => e.dataset.knob)"
        )
        assert set(sliders) == {f"lens_{term}_{name}" for name in settable}
        for name in settable:
            told = shown.locator(f"[data-knob=lens_{term}_{name}] + output").inner_text()
            assert float(told) == forget_terms()[term].settable[name].default
        widths = shown.locator("[data-chart=lens] polyline").evaluate_all(
            "all => Object.fromEntries(all.map((e) => [e.dataset.lens, "
            "Number(e.getAttribute('stroke-width'))]))"
        )
        assert max(widths, key=widths.get) == term
        assert shown.locator("[data-lens-says]").inner_text().startswith(look_of(term).label)
    shown.select_option("[data-knob=lens]", "wga")
    shown.locator("[data-knob=lens_wga_alpha]").evaluate(
        "e => { e.value = 2.5; e.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    told = address_of(shown)
    assert (told["lens"], told["lens_wga_alpha"]) == ("wga", "2.5")
    again = visit(shown.url)
    assert curves(again) == curves(shown)
    assert again.input_value("[data-knob=lens]") == "wga"


def forget_probabilities(run, step):
    rows = read_run(shipped_data("studies/pocket") / run).evaluation(step).rows["forget"]
    return [math.exp(row["mean_logp"]) for row in rows]


def dots(shown, run):
    """The centres of a run's dots, and the probabilities that they stand for."""
    return shown.locator(f"[data-chart=lens] [data-rows='{run}'] path").evaluate_all(
        "all => all.map((e) => { const b = e.getBBox(); "
        "return [b.x + b.width / 2, b.y + b.height / 2, Number(e.dataset.p)]; })"
    )


@pytest.mark.slow
def test_each_row_to_forget_is_a_dot_on_the_curve_of_its_method(visit, pocket):
    shown = visit(pocket + "#view=theory&step=20&a=ga&b=npo_rt")
    shown.wait_for_selector("[data-chart=lens] [data-rows=npo_rt] path", state="attached")
    found = curves(shown)
    pixels = shown.locator("[data-chart=lens] polyline[data-lens=ga]").get_attribute("points")
    (left, one), (right, _) = (
        tuple(map(float, pixels.split()[place].split(","))) for place in (0, -1)
    )
    zero = float(shown.locator("[data-chart=lens] line.axis").first.get_attribute("y1"))
    for run, term in (("ga", "ga"), ("npo_rt", "npo")):
        true = forget_probabilities(run, 20)
        drawn = dots(shown, run)
        assert sorted(p for *_, p in drawn) == pytest.approx(sorted(true), rel=1e-3)
        for x, y, p in drawn:
            inside = max(p, 10**-DECADES)
            assert x == pytest.approx(left - math.log10(inside) * (right - left) / DECADES, abs=0.5)
            height = (zero - y) / (zero - one)
            if inside > 10**-DECADES:
                assert height == pytest.approx(drawn_at(found[term], inside), abs=0.02)
            else:
                assert height == pytest.approx(found[term][-1][1], abs=0.02)
        assert f"{len(true)} answers" in shown.inner_text("[data-lens-dots]")
    assert "recorded" in shown.inner_text("[data-lens-dots]")
    before = dots(shown, "npo_rt")
    shown.focus("[data-step]")
    shown.keyboard.press("ArrowRight")  # the next step that was evaluated
    assert dots(shown, "npo_rt") != before
    shown.evaluate("location.hash = '#view=theory&a=idk_rt&b=npo_rt'")
    shown.wait_for_selector("[data-lens-dots]:has-text('IDK+RT has no curve here')")


@pytest.mark.parametrize(("width", "theme"), [(1920, "light"), (1280, "dark"), (390, "light")])
@pytest.mark.slow
def test_it_is_accessible_and_its_words_are_inside(visit, pocket, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    shown = visit(
        pocket + f"#view=theory&step=40&theme={theme}", viewport={"width": width, "height": 900}
    )
    shown.wait_for_selector("[data-chart=lens] [data-rows=npo_rt] path", state="attached")
    assert shown.locator("[data-chart=lens] svg text").evaluate_all(OUTSIDE) == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(shown).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


@pytest.mark.slow
def test_it_works_in_a_file_without_a_server(window, tmp_path):
    studies = packed_studies(shipped_data(STUDIES[0]))
    told = RecordedAnswers(studies)
    file = tmp_path / "page.html"
    file.write_bytes(page(recorded(told, 0)))
    context = patient(window.new_context(viewport={"width": 1280, "height": 900}))
    shown = context.new_page()
    shown.goto(file.as_uri() + "#view=theory&step=20&a=ga&b=npo_rt&lens=tnpo")
    shown.wait_for_selector(READY)
    shown.wait_for_selector("[data-chart=lens] [data-rows=npo_rt] path", state="attached")
    assert set(curves(shown)) == set(LENS)
    assert len(dots(shown, "npo_rt")) == len(forget_probabilities("npo_rt", 20))
    context.close()
