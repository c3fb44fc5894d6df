"""Figures as SVG: described, readable on light and dark pages and on a phone, always the same."""

import ast
import re
from types import SimpleNamespace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from places import ROOT

from npo_kit.audit.figures import cards_figure, relearning_figure
from npo_kit.course import figures as course
from npo_kit.course.family_figures import norm_bars, weight_lens
from npo_kit.course.null_figures import null_distances, null_p_values
from npo_kit.course.seeds_figure import mean_and_seeds
from npo_kit.course.step_lengths import step_lengths
from npo_kit.data.shipped import shipped_data
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS
from npo_kit.records.run import read_run
from npo_kit.studies.splits import split_runs
from npo_kit.studies.table import null_of, study_table
from npo_kit.style import LOOK, SMALL, WIDTH, alt_text, described, label_ends, one_panel, power
from npo_kit.svg import LINE, TEXT, ink_share, mixed, svg
from npo_kit.theory import figures as theory
from npo_kit.theory.experiment import read_experiment, synthetic_curves
from npo_kit.theory.theorems import divergence_demo, limit_demo

PAGES = (("#ffffff", "#222222"), ("#ffffff", "#000000"))  # light, then dark ones: page and ink
PAGES += (("#111111", "#ffffff"), ("#1e1e1e", "#d4d4d4"), ("#0d1117", "#e6edf3"))
SVG = "{http://www.w3.org/2000/svg}"


def run(name):
    return read_run(shipped_data("studies/pocket") / name)


def runs(*names):
    return {name: list(run(name).evaluations()) for name in names}


def retained():
    return run("retained").evaluation(0)


def frame():
    return read_experiment()["unlearning"]


def sweep(*methods):
    found = read_experiment()["beta_sweep"]
    return found[found.method.isin(methods)]


def alike():
    both = sweep("ga", "npo")
    return both[both.beta.isna() | (both.beta == 1.0)]


def norms():
    values = {"forget": [0.3, 20.0, np.nan], "retain": [0.4, np.nan, 0.5]}
    return pd.DataFrame({"method": ["ga_rt", "ceu", "npo_kl"], "level": "row"} | values)


def lengths():
    columns = {"step": [0, 1, 2], "weight": 1.0, "gradient": [9, 1, 0.1], "moved": [9, 8, 7]}
    return pd.DataFrame(columns)


def readings():
    curve = {"tested": [[-4.0, None], [-3.0, -2.0]], "taught": [-4.0, -0.1]}
    detail = {"sets": dict.fromkeys(("own", "template", "unrelated"), curve)}
    reading = SimpleNamespace(detail=detail | {"settings": {"steps": [0, 8]}})
    return dict.fromkeys(("original", "retained-only", "suspect A"), reading)


def cards():
    card = {"title": "Says it", "unit": "nats", "band": [0.1, 0.3], "points": [0.2, None]}
    card |= {"original": 0.9, "value": 0.5, "lower": 0.4, "upper": 0.6}
    return {"cards": {"verbatim": card, "leak": card | {"value": float("nan"), "band": None}}}


def distances():
    return null_distances(null_of("pocket", "authors:forget10"), {"npo_rt": 0.13, "idk_rt": 0.37})


FIGURES = {
    "distance_curves": lambda: theory.distance_curves(frame()),
    "drift_curves": lambda: theory.drift_curves(frame()),
    "trade_off": lambda: theory.trade_off(frame()),
    "seeds_apart": lambda: theory.seeds_apart(frame()),
    "beta_sweep_curves": lambda: theory.beta_sweep_curves(sweep("ga", "npo")),
    "averaging": lambda: theory.averaging(sweep("ga_rt", "npo_rt")),
    "divergence": lambda: theory.divergence(divergence_demo(steps=300)),
    "limit": lambda: theory.limit(limit_demo()),
    "synthetic_curves": synthetic_curves,
    "weight_curves": course.weight_curves,
    "run_curves": lambda: course.run_curves(runs("ga", "npo_rt")),
    "trade_off of runs": lambda: course.trade_off(runs("ga", "npo_rt"), retained()),
    "ratio_curves": lambda: course.ratio_curves({"ga": run("ga").evaluation(20)}, retained()),
    "utility_and_weight": lambda: course.utility_and_weight([run("ga"), run("npo-beta0.5")]),
    "how_much": lambda: course.how_much(
        split_runs(study_table(shipped_data("studies/pocket-splits")))
    ),
    "weight_lens": weight_lens,
    "norm_bars": lambda: norm_bars(norms()),
    "null_distances": distances,
    "null_p_values": lambda: null_p_values(null_of("pocket", "authors:forget10")),
    "mean_and_seeds": lambda: mean_and_seeds(alike()),
    "step_lengths": lambda: step_lengths({"ga": lengths(), "npo": lengths()}),
    "cards_figure": lambda: cards_figure(cards()),
    "relearning_figure": lambda: relearning_figure(readings()),
}


def small():
    """A figure with a line, a grey one, a marker, a bar, small print and words at the line."""
    with rc_context(LOOK):
        figure, axes = one_panel()
        axes.plot([1, 2, 3], [0.3, 2, 1], "o-", color="#004C77", label="NPO")
        axes.plot([1, 3], [1, 1], color="#777777", label="guide")
        axes.bar([1.5], [1.0], color="white", edgecolor="#555555", hatch="//")
        label_ends(axes)
    return described(figure, "A line & a bar: <made up>.")


def looks(element):
    text = element.get("style", "").replace("data:", "")
    return dict(part.split(":", 1) for part in text.split(";") if ":" in part)


def painted(root):
    """Element, property and CSS colour of what is painted, variables filled in."""
    names = looks(root)
    for element in root.iter():
        for name in ("fill", "stroke"):
            colour = looks(element).get(name)
            if colour and colour != "none" and not colour.startswith("url("):
                variable = re.fullmatch(r"var\((--c\d+)\)", colour)
                yield element, name, names[variable[1]] if variable else colour


def on_page(css, page, ink):
    """The colour #rrggbb that a browser paints on a page for CSS of the kit's."""
    if css == "currentColor":
        return ink
    grey = re.fullmatch(r"color-mix\(in srgb,currentColor (\d+)%,transparent\)", css)
    if grey:
        return mixed(page, ink, int(grey[1]))
    colour, share = re.fullmatch(
        r"color-mix\(in srgb,(#[0-9a-f]{6}),currentColor (\d+)%\)", css
    ).groups()
    return mixed(colour, ink, int(share))


def contrast(*colours):
    """The ratio of WCAG 2.2, written here once more."""
    light = []
    for colour in colours:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(light) / min(light)


def check(figure):
    """That a figure's SVG is whole, described, readable and small enough."""
    drawn = svg(figure)
    assert svg(figure) == drawn
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert root.get("aria-label") == alt_text(figure) == figure.get_label()
    for element in root.iter():
        assert "#ffffff" not in str(looks(element))
        assert element.get("fill") in (None, "currentColor")
    sizes = [float(looks(text)["font-size"].removesuffix("px")) for text in root.iter(f"{SVG}text")]
    wide = float(root.get("viewBox").split()[2])
    assert min(sizes) * 360 / wide >= 9  # pixels on a phone of 390
    for element, name, css in painted(root):
        for page, ink in PAGES:
            least = TEXT if element.tag == f"{SVG}text" else LINE
            if element.tag == f"{SVG}text" or css.startswith("color-mix(in srgb,#"):
                found = contrast(on_page(css, page, ink), page)
                assert found >= 0.97 * least, (name, css, page)  # colours are rounded
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    used = re.findall(r'(?:url\(|href=")#([\w-]+)', drawn)
    assert len(ids) == len(set(ids))
    assert set(used) == set(ids)
    assert len({name.split("-")[0] for name in ids}) == 1
    return root


def test_a_figure_is_readable_on_every_page_and_on_a_phone():
    root = check(small())
    assert root.get("aria-label") == "A line & a bar: <made up>."
    (guide,) = [e for e in root.iter(f"{SVG}text") if e.text == "guide"]
    assert guide is not None
    assert "height:auto" in root.get("style")
    assert WIDTH == 6.4
    assert SMALL * 360 / (72 * WIDTH) >= 9


def test_two_figures_of_a_page_share_no_name():
    one, other = small(), small()
    other.axes[0].plot([1, 2], [2, 2])
    names = [set(re.findall(r' id="([^"]+)"', svg(figure))) for figure in (one, other)]
    assert names[0]
    assert not names[0] & names[1]


def test_a_path_is_where_matplotlib_draws_it():
    figure = Figure(figsize=(5, 4))
    axes = figure.add_axes((0, 0, 1, 1))
    x, y = np.linspace(0, 1, 40), np.linspace(0, 1, 40) ** 3
    axes.plot(x, y, color="#0072B2")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    root = ElementTree.fromstring(svg(figure))
    (line,) = [e for e, name, css in painted(root) if name == "stroke" and "#0072b2" in css]
    start, steps = line.get("d").removeprefix("M").split("l")
    numbers = [np.array(re.findall(r"-?\d*\.?\d+", part), float) for part in (start, steps)]
    points = np.cumsum(np.concatenate(numbers).reshape(-1, 2), axis=0)
    found = np.interp(points[:, 0] / 360, x, y)
    assert len(points) > 8
    assert 1 - points[:, 1] / 288 == pytest.approx(found, abs=0.003)
    assert points[-1] == pytest.approx([360, 0], abs=0.1)


def test_colours_of_all_methods_stand_out_from_light_and_dark_pages():
    for name in METHODS:
        colour = look_of(name).colour.lower()
        for least in (LINE, TEXT):
            share = ink_share(colour, least)
            assert share <= 90
            for page, ink in PAGES:
                assert contrast(mixed(colour, ink, share), page) >= 0.97 * least, (name, page)
    assert ink_share("#d55e00", LINE) == ink_share("#0072b2", LINE) == 0  # as on the page


def test_powers_of_ten_are_words_of_full_size():
    said = [power(value) for value in (1.0, 0.05, 1000, 1e-6, 3e-5, 2e7)]
    assert said == ["1", "0.05", "1000", "10⁻⁶", "3 × 10⁻⁵", "2 × 10⁷"]


def test_a_figure_without_a_text_is_named_by_its_axes():
    axes = Figure().subplots()
    axes.set(title="Two clouds", xlabel="first", ylabel="second")
    assert alt_text(axes.figure) == "Figure: Two clouds, across first, up second"


def test_the_extension_shows_figures_so_and_nothing_changes_before():
    shell = InteractiveShell.instance()
    try:
        figure = small()
        assert Figure not in shell.display_formatter.formatters["text/html"].type_printers
        shell.run_line_magic("load_ext", "npo_kit.svg")
        shown, _ = shell.display_formatter.format(figure)
        assert set(shown) == {"text/html", "text/plain"}
        assert shown["text/plain"] == figure.get_label()
        image = ElementTree.fromstring(shown["text/html"].partition("<script")[0][:-1] + "/>")
        assert image.get("alt") == figure.get_label()
        assert unquote(image.get("src").partition(",")[2]) == svg(figure)
    finally:
        InteractiveShell.clear_instance()


def test_every_function_that_returns_a_figure_is_looked_at():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "npo_kit").rglob("*.py")]
    found = {
        node.name
        for text in texts
        if "-> Figure:" in text
        for node in ast.parse(text).body
        if not getattr(node, "name", "_").startswith("_")
        if isinstance(node, ast.FunctionDef) and ast.unparse(node.returns or node) == "Figure"
    }
    assert found - {"described"} == {name.split(" of ")[0] for name in FIGURES}


def placed(figure):
    """The texts that the kit places; ticks are matplotlib's."""
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.xaxis.label, axes.yaxis.label, *axes.texts, axes.title, axes._left_title)
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        yield from legend.get_texts() if legend else ()


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_of_the_kit(name):
    figure = FIGURES[name]()
    check(figure)
    assert len(figure.get_label()) > 60
    assert not re.search(r"\bnan\b|\$|inf\b", figure.get_label())
    FigureCanvasAgg(figure).draw()
    for text in placed(figure):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert -1 < box.x0 < box.x1 < figure.bbox.width + 1, text.get_text()
            assert -1 < box.y0 < box.y1 < figure.bbox.height + 1, text.get_text()
