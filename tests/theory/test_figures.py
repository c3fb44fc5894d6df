"""The figures: what is drawn is what the frames say, and every figure says what it must."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from npo_kit.errors import KitError
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS
from npo_kit.style import FAMILIES, label_ends
from npo_kit.theory import figures
from npo_kit.theory.experiment import SyntheticRecord, experiment_figures
from npo_kit.theory.theorems import divergence_demo, limit_demo

STEPS = np.arange(0, 201, 25)
SEEDS = (1, 2, 3)


def made_up(methods, betas=(np.nan,), alphas=(1.0, 0.0)):
    """A frame in the experiment's form: smooth curves that differ by method, beta and seed."""
    parts = []
    for alpha in alphas:
        for seed in SEEDS:
            for i, name in enumerate(methods):
                for k, beta in enumerate(betas if name.startswith("npo") else (np.nan,)):
                    decay = np.exp(-STEPS / (40 + 10 * i + 5 * k + 3 * seed))
                    part = {"alpha": alpha, "seed": seed, "method": name, "beta": beta, "lr": 0.1}
                    part |= {"step": STEPS, "forget_distance": decay + 0.01 * seed}
                    part |= {"retain_distance": 0.5 - 0.4 * decay + 0.01 * i}
                    part |= {"forget_drift": STEPS * 0.01, "retain_drift": STEPS * 0.001}
                    parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def record():
    sweep = made_up(("npo", "ga", "npo_rt", "ga_rt"), (0.01, 1.0), (1.0,))
    frames = {"unlearning": made_up(tuple(METHODS)), "beta_sweep": sweep}
    frames |= {"divergence": divergence_demo(steps=300), "limit": limit_demo()}
    return SyntheticRecord(frames, {}, "recorded")


@pytest.fixture(scope="module")
def drawn(record):
    return experiment_figures(record)


def words(figure):
    texts = [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))]
    return "\n".join(" ".join(text.split()) for text in texts)  # notes are wrapped


def placed(figure):
    """The texts that the kit places; ticks are matplotlib's."""
    for axes in figure.axes:
        yield from (axes.xaxis.label, axes.yaxis.label, *axes.texts)
        yield from axes.get_legend().get_texts() if axes.get_legend() else ()
    for legend in figure.legends:
        yield from legend.get_texts()
    yield from figure.texts


def test_every_figure_says_n_the_seeds_the_source_and_which_way_is_better(drawn):
    assert len(drawn) == 14
    for name, figure in drawn.items():
        assert isinstance(figure, Figure)
        said = words(figure)
        assert "n = " in said, name
        assert "· recorded" in said, name
        assert any(arrow in said for arrow in "↓←↕"), name
        if name not in ("divergence", "limit"):
            assert "3 seeds (1, 2, 3)" in said, name
        for axes in figure.axes:
            shared = figure.get_supxlabel() and figure.get_supylabel()
            across = [each.get_xlabel() for each in axes.get_shared_x_axes().get_siblings(axes)]
            assert shared or (any(across) and axes.get_ylabel()), name  # written below the last


def test_nothing_is_cut_off_and_the_ground_of_files_is_white(drawn):
    for name, figure in drawn.items():
        FigureCanvasAgg(figure).draw()
        width, height = figure.bbox.size
        assert figure.get_facecolor() == (1, 1, 1, 1)
        for text in placed(figure):
            box = text.get_window_extent()
            inside = box.x0 > -1 and box.x1 < width + 1 and box.y0 > -1 and box.y1 < height + 1
            assert inside, (name, text.get_text())
        *_, note = figure.texts
        labels = [axes.xaxis.label for axes in figure.axes] + figure.texts[:-1]
        box = note.get_window_extent()
        for text in labels:
            assert not (text.get_text() and box.overlaps(text.get_window_extent())), name


def test_lines_are_the_seeds_and_their_median(record):
    frame = record["unlearning"]
    axes = figures.distance_curves(frame, 1.0, ("npo", "ga")).axes[0]
    lines = [np.asarray(line.get_ydata()) for line in axes.get_lines()]
    assert len(lines) == 2 * (len(SEEDS) + 1)
    npo = frame[(frame.alpha == 1) & (frame.method == "npo")]
    each = [npo[npo.seed == seed].forget_distance.to_numpy() for seed in SEEDS]
    for expected, got in zip([*each, np.median(each, axis=0)], lines[:4], strict=True):
        assert got == pytest.approx(expected)
    assert to_rgb(axes.get_lines()[3].get_color()) == to_rgb(look_of("npo").colour)


def test_averaging_shows_means_then_the_seeds(record):
    sweep = record["beta_sweep"]
    sweep = sweep[sweep.method.isin(["npo", "ga"])]
    first, *others = figures.averaging(sweep).axes
    assert len(others) == len(SEEDS)
    ga = sweep[sweep.method == "ga"].groupby("step")[["forget_distance", "retain_distance"]]
    line = first.get_lines()[-1]
    assert np.asarray(line.get_xdata()) == pytest.approx(ga.mean().forget_distance.to_numpy())
    assert np.asarray(line.get_ydata()) == pytest.approx(ga.mean().retain_distance.to_numpy())
    of_seed = sweep[(sweep.method == "ga") & (sweep.seed == 2)].forget_distance.to_numpy()
    assert np.asarray(others[1].get_lines()[-1].get_xdata()) == pytest.approx(of_seed)


def test_no_two_methods_look_the_same():
    looks = [look_of(name) for name in METHODS]
    assert len({(look.line, look.marker) for look in looks}) == len(METHODS)  # without colour
    assert len({look.label for look in looks}) == len(METHODS)
    assert look_of("npo_rt").label == "NPO+RT"
    colours = [look_of(f"ga{suffix}").colour for suffix in ("", "_rt", "_kl")]
    assert colours[0] == FAMILIES["ga"][0][0]
    lightness = [luminance(colour) for colour in colours]
    assert lightness[0] > 1.5 * lightness[1] > 2.2 * lightness[2]  # members differ in lightness
    assert look_of("unheard_of").colour == look_of("somebody_elses").colour
    assert look_of("original").colour == "#7F7F7F"
    assert look_of("retained").line == "--"


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_colours_stand_out_from_white():
    for name in (*METHODS, "original", "retained", "other"):
        assert 1.05 / (luminance(look_of(name).colour) + 0.05) >= 3, name  # WCAG 1.4.11


def test_labels_at_the_edge_do_not_touch():
    axes = Figure().subplots()
    axes.set_ylim(0, 1)
    for label, y in {"a": 0.5, "b": 0.5, "c": 0.51, "d": 0.0, "lost": np.nan, "_thin": 1}.items():
        axes.plot([0, 1], [1, y], "r" if label == "a" else "k", label=label)
    label_ends(axes)
    assert [t.get_text() for t in axes.texts if to_rgb(t.get_color()) == (1, 0, 0)] == ["a"]
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert set(heights) == {"a", "b", "c", "d"}
    ordered = sorted(heights.values())
    assert np.diff(ordered).min() > 0.05
    assert heights["d"] == pytest.approx(0)
    assert heights["c"] == max(ordered)


def test_labels_below_zero_stand_at_their_lines():
    axes = Figure().subplots()
    axes.set_ylim(-10, 0)
    for label, y in {"low": -8.0, "middle": -5.0, "high": -1.0}.items():
        axes.plot([0, 1], [-2, y], label=label)
    label_ends(axes)
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert heights == pytest.approx({"low": 0.2, "middle": 0.5, "high": 0.9})


def test_what_is_not_there_is_told(record):
    with pytest.raises(KitError, match=r"nothing to draw at alpha 0\.5: the frame has alpha 1, 0"):
        figures.trade_off(record["unlearning"], 0.5)


def test_what_is_drawn_at_the_floor_is_said_to_be(record, drawn):
    frame = record["unlearning"].copy()
    assert "floor" not in words(drawn["distance_alpha_1"])
    frame.loc[(frame.method == "ga") & (frame.step == STEPS[-1]), "forget_distance"] = 1e-9
    for draw in (figures.distance_curves, figures.seeds_apart, figures.trade_off):
        figure = draw(frame, 1.0, ("ga", "npo"))
        axes = figure.axes[0]
        said = [text for text in axes.texts if text.get_text().strip() == "floor: 1e-5 or less"]
        (line,) = [line for line in axes.get_lines() if line.get_label().startswith("_floor")]
        along = line.get_xdata() if draw is figures.trade_off else line.get_ydata()
        assert len(said) == 1
        assert set(along) == {1e-5}


def test_figures_say_the_learning_rates(record, drawn):
    assert "learning rate: 0.1 for GA, GA+RT, NPO" in words(drawn["distance_alpha_1"])
    frame = record["unlearning"].copy()
    frame.loc[frame.method == "npo", "lr"] = 1.0
    said = words(figures.distance_curves(frame, 1.0, ("ga", "npo", "ga_rt")))
    assert "learning rate: 0.1 for GA, GA+RT; 1 for NPO" in said
