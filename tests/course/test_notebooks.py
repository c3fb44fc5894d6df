"""The notebooks: run as they are and with the solutions, small, clean, and their widgets alive."""

import difflib
import math
import re
import time

import nbformat
import pytest
import torch
import torch.nn.functional as F
from smollm2 import TOFU, find_gguf, what_is_missing

from notebooks import FOLDER, executed, solved
from npo_kit.course import exercises
from npo_kit.course.answer_table import side_by_side
from npo_kit.course.figures import ratio_curves, run_curves, trade_off, weight_curves
from npo_kit.course.widgets import (
    LiveRun,
    ratio_widget,
    steps_widget,
    synthetic_widget,
    weight_widget,
)
from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import load_authors
from npo_kit.errors import KitError
from npo_kit.metrics.summary import summarise
from npo_kit.records.run import read_run

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BY_NUMBER = {int(path.stem[:2]): path for path in NOTEBOOKS}
QUICK = "00_why_forget"  # of seconds; the others train
TO_RUN = [p if p.stem == QUICK else pytest.param(p, marks=pytest.mark.slow) for p in NOTEBOOKS]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    return "".join(
        output.get("text", "") for cell in code_of(notebook) for output in cell.get("outputs", [])
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_as_it_is(path):
    notebook = executed(read(path), fast=True)
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    assert not [each for each in outputs if each.output_type == "error"]
    assert not [each["text"] for each in outputs if each.get("name") == "stderr"]
    blanks = sum("exercise" in cell.metadata.get("tags", []) for cell in notebook.cells)
    assert printed(notebook).count("not yet: ") == blanks
    assert "made fast" in str(notebook) or "FAST" not in "".join(
        c.source for c in notebook.cells[2:]
    )


@pytest.mark.slow
@pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing()))
def test_the_one_for_a_gpu_runs_on_a_real_model_and_rows_of_tofu():
    settings = {"NPO_KIT_MODEL": str(find_gguf()), "NPO_KIT_TOFU": str(TOFU)}
    settings["NPO_KIT_SPLITS"] = "forget01@80"
    notebook = executed(read(BY_NUMBER[8]), fast=True, **settings)
    said = printed(notebook)
    assert "tofu:forget01@80" in said
    assert "models/retained" in said  # what was estimated was also fine-tuned
    assert "pocket" not in said


@pytest.mark.slow
@pytest.mark.parametrize("path", TO_RUN, ids=lambda path: path.stem)
def test_its_solutions_are_right(path):
    notebook = executed(solved(read(path)), fast=True, strict=True)
    blanks = sum("exercise" in cell.metadata.get("tags", []) for cell in notebook.cells)
    assert printed(notebook).count("Right: ") == blanks > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_as_one_run_left_it(path):
    notebook, text = read(path), path.read_text(encoding="utf-8")
    assert path.stat().st_size <= 400_000
    assert len(notebook.cells) <= 45
    assert [cell.execution_count for cell in code_of(notebook)] == list(
        range(1, len(code_of(notebook)) + 1)
    )
    assert "widgets" not in notebook.metadata
    assert "widget-view" not in text
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert "Warning" not in printed(notebook)
    for cell in code_of(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 15
        assert max(map(len, lines)) <= 100
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
    assert re.search(r"measured \d+ s", notebook.cells[0].source)
    assert "find_spec" in notebook.cells[1].source
    outputs = [o.get("data", {}) for c in code_of(notebook) for o in c.outputs]
    assert [data for data in outputs if "data:image/svg+xml," in data.get("text/html", "")]
    assert not [data for data in outputs if "image/png" in data]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_words_are_the_kit_s(path):
    text = " ".join(cell.source for cell in read(path).cells)
    assert not re.search(r"\broads?\b", text)  # trajectory
    assert not re.search(r"^\S+ on cpu, ", printed(read(path)), re.MULTILINE)  # of load_model once


def test_a_comparison_of_methods_says_what_else_differs():
    for number in (5, 8):
        text = " ".join(cell.source for cell in read(BY_NUMBER[number]).cells)
        for confound in ("mean over tokens", "AdamW", "clipped", "learning rate", "six"):
            assert confound in text, (BY_NUMBER[number].stem, confound)
    theory = read(BY_NUMBER[3])
    (compared,) = [
        cell for cell in code_of(theory) if "lr" in cell.source and "groupby" in cell.source
    ]
    assert "0.0050" in str(compared.outputs)
    assert "0.0005" in str(compared.outputs)


@pytest.mark.parametrize(
    ("number", "said", "not_said"),
    [
        (1, r"between 1 and $\sqrt 2$", "of length about 1"),
        (1, "pushed less and less", "stops being pushed"),
        (2, r"\mathbb{E}\log\pi_{\text{ref}}", "the two losses differ by about"),
        (2, "slows down where gradient ascent does not", "stops where"),
        (2, "it does not stop", "0 once forgotten"),
        (2, "Beware of the sign", "where W is 0"),
        (3, "with constants of its own", "the theorem's: GA"),
        (3, "made up by the averaging", "somewhat better road"),
        (3, "the smaller one", "stays well below GA's"),
        (3, "which is the floor of the figure", "forgets and stops"),
        (4, "one score on one set", "three subjects"),
        (8, "own splits are `forget01`, `forget05` and `forget10`, the", "`forget10`, `forget20`"),
        (8, "else fp16, as on Colab's T4", "suggest_model(15e9"),
        (8, "MARGIN * torch.cuda.mem_get_info()[0]", "model(torch.cuda.mem_get_info()[0]"),
    ],
)
def test_what_was_untrue_is_put_right(number, said, not_said):
    text = " ".join(cell.source for cell in read(BY_NUMBER[number]).cells)
    assert said in text
    assert not_said not in text


@pytest.mark.slow
def test_what_was_written_by_hand_is_called():
    first = executed(
        written(read(BY_NUMBER[1]), "answer_logp", "logits, labels", "-7.25"), fast=True
    )
    assert "yours:   -7.25" in printed(first)


def written(notebook, name, arguments, value):
    """The notebook with an answer to an exercise, cut off after the cell that calls it."""
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and f"def {name}(" in cell.source:
            cell.source = f"def {name}({arguments}):\n    return {value}"
        elif cell.cell_type == "code" and f"{name}(" in cell.source:
            notebook.cells = notebook.cells[: place + 1]
            return notebook
    raise AssertionError(f"no cell calls {name}")


def test_the_instructors_page_has_every_notebook_and_its_time():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        (line,) = [line for line in page.splitlines() if f"| `{path.name}` |" in line]
        measured = re.search(r"measured (\d+ s)", read(path).cells[0].source)
        assert f"| {measured[1]} |" in line


# --- exercises ----------------------------------------------------------------------------------


def typical_mistakes():
    return {
        "what_is_exact": "b",
        "what_to_claim": "c",
        "answer_logp": lambda logits, labels: logits.log_softmax(-1)[[0, 1], labels].mean(),
        "logp_gradient": lambda logits, label: -logits.softmax(-1),
        "gradient_length": lambda p, others: 1 - p,
        "npo_loss": lambda u, beta: 2 / beta * F.softplus(-beta * u),
        "npo_weight": lambda u, beta: torch.sigmoid(beta * u),
        "log_time": lambda t, beta, rate, rows: -(2 * beta * rate * t / rows).log1p(),
        "npo_loop": {"mine": [13.86, 13.79], "package": [13.86, 13.7902]},
        "weight_test": lambda weight: abs(weight(torch.ones(3), torch.ones(3), 0.1) - 1) < 1e-6,
        "mean_for_sum": lambda beta, tokens: (beta * tokens, 1.0),
        "adamw_bytes": lambda parameters: parameters * 4,
        "optimizer_steps": lambda rows, size, epochs: epochs * math.ceil(rows / size),
        "what_compares": "a",
        "rouge_l_recall": lambda said, true: len(set(said) & set(true)) / len(said),
        "truth_ratio": lambda right, wrong: math.exp(right) / math.exp(sum(wrong) / len(wrong)),
        "harmonic_mean": lambda values: sum(values) / len(values),
        "bernoulli_kl": lambda p, q: p * (p / q).log(),
        "never_heard": "a",
        "says_or_knows": "a",
        "best_checkpoint": lambda checkpoints: checkpoints.index(max(checkpoints)),
        "beat_ours": {  # forgets more, and pays for it
            "mine": {"forget_ks": 0.08, "model_utility": 0.3},
            "ours": {"forget_ks": 0.13, "model_utility": 0.68},
        },
        "leak_in_draws": lambda p, draws: p * draws,
        "leak_at_k": lambda n, c, k: 1 - (1 - c / n) ** k,
        "was_hidden": lambda before, after, control_before, control_after: after > before,
        "tnpo_weight": lambda p, reference, beta: p**beta / (p**beta + reference**beta),
        "unlikelihood_loss": lambda forget: -(1 - forget.logps.exp()).log() * forget.mask,
        "pushes_on_the_rest": {"npo": 0.445, "tnpo": 1.0, "wga": 0.905},  # NPO by the mean
    }


@pytest.mark.parametrize("name", sorted(exercises.read_exercises()))
def test_an_exercise_refuses_the_blank_and_a_typical_mistake(name, capsys, monkeypatch):
    mistake = typical_mistakes()[name]
    blank = (lambda *_: ...) if callable(mistake) else ...
    for answer in (blank, None, mistake, "nonsense", lambda: 1 / 0):
        exercises.check(name, answer)
        assert capsys.readouterr().out.startswith("not yet: ")
    monkeypatch.setenv("NPO_KIT_STRICT", "1")
    with pytest.raises(KitError, match=f"exercise {name}, not yet"):
        exercises.check(name, mistake)
    exercises.hint(name)
    assert len(capsys.readouterr().out) > 20


def greedy_match(said, true):
    """The share of the truth found by taking each word's next place in it."""
    place = found = 0
    for word in said:
        if word in true[place:]:
            place, found = true.index(word, place) + 1, found + 1
    return found / len(true)


def longest_runs(said, true):
    blocks = difflib.SequenceMatcher(None, said, true, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(true)


def overflowing_loss(u, beta):
    return 2 / beta * (1 + (beta * u).exp()).log()


def forgotten(weight, tokens, nats):
    """The weight of an answer whose tokens have all become `nats` less likely."""
    before = torch.full((tokens,), -1.0)
    return weight(before - nats, before, 0.1)


def underflowing_ratio(right, wrong):
    return math.exp(sum(wrong) / len(wrong)) / math.exp(right)


@pytest.mark.parametrize(
    ("name", "mistake", "said"),
    [
        ("rouge_l_recall", greedy_match, "of 'c a b' against 'a b c'"),
        ("rouge_l_recall", lambda said, true: greedy_match(true, said) * len(said) / len(true), ""),
        ("rouge_l_recall", longest_runs, "of 'a x b y c p q'"),
        ("npo_loss", overflowing_loss, "at beta = 0.1 and u = 8000, the loss should be 1.6e+04"),
        ("truth_ratio", underflowing_ratio, "ZeroDivisionError"),
        ("gradient_length", lambda p, others: 1 - p * p, "at p = 0.9 and m = 1, the length"),
        ("mean_for_sum", lambda beta, tokens: (beta / tokens, 1.0), "(beta of the sum, push)"),
        ("weight_test", lambda weight: True, "sign the wrong way round"),
        ("weight_test", lambda weight: False, "rejects the right code"),
        ("weight_test", lambda weight: forgotten(weight, 1, 40) < 0.1, "mean over the tokens"),
        ("weight_test", lambda weight: forgotten(weight, 40, 1) < 0.1, "lacks the factor 2"),
        ("pushes_on_the_rest", {"npo": 6e-7, "tnpo": 0.5, "wga": 0.9}, "tnpo pushes harder"),
        ("pushes_on_the_rest", {"npo": 6e-7, "tnpo": 1.0, "wga": 1.0}, "wga pushes less than 1"),
        ("pushes_on_the_rest", {"npo": 6e-7, "tnpo": ..., "wga": 0.9}, "tnpo is missing"),
        ("was_hidden", lambda a, b, c, d: b > d, "beyond the control already before"),
        ("was_hidden", lambda a, b, c, d: b - a > d - c, "below the control"),
        ("was_hidden", lambda a, b, c, d: b > a and b > d >= c >= a, "as the control's is too"),
    ],
)
def test_a_mistake_that_easy_cases_hide_is_found(name, mistake, said, capsys):
    exercises.check(name, mistake)
    out = capsys.readouterr().out
    assert out.startswith("not yet: ")
    assert said in out


@pytest.mark.parametrize("answer", ["b", "B", " (b)", "b)", "(B).", "b."])
def test_a_letter_may_be_written_as_in_the_question(answer, capsys):
    exercises.check("what_to_claim", answer)
    assert capsys.readouterr().out.startswith("Right: ")
    exercises.check("what_to_claim", f"a{answer}")
    assert capsys.readouterr().out.startswith("not yet: ")


def test_a_message_shows_the_digits_that_differ(capsys):
    def nearly(p, q):
        return (1 + 3e-5) * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())

    exercises.check("bernoulli_kl", nearly)
    said = capsys.readouterr().out
    true, got = re.search(r"should be (.+), yours is (.+)\n", said).groups()
    pairs = list(zip(true.split(", "), got.split(", "), strict=True))
    assert pairs[0] == ("0.36806", "0.36808")
    assert [a != b for a, b in pairs] == [True, True, False]


def test_every_exercise_is_in_a_notebook_and_no_other():
    asked = {
        name
        for path in NOTEBOOKS
        for cell in code_of(read(path))
        for name in re.findall(r'check\("(\w+)"', cell.source)
    }
    assert asked == set(exercises.read_exercises())
    with pytest.raises(KitError, match="there is no exercise 'npo'"):
        exercises.check("npo", 1)


# --- widgets and their figures ------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    folder = shipped_data("studies/pocket")
    return {name: list(read_run(folder / name).evaluations()) for name in ("ga", "npo_rt")}


def test_the_weight_follows_its_slider():
    widget = weight_widget()
    slider, picture, _ = widget.children
    slider.value = 1.0
    assert widget.children[1].value != picture.value
    assert "aria-label=\"NPO's weight W" in picture.value


def test_the_weight_curve_is_the_formula():
    lines = weight_curves(0.5, others=()).axes[0].lines
    u, W = lines[1].get_data()
    assert list(W) == pytest.approx([2 / (1 + math.exp(-0.5 * x)) for x in u])
    assert set(lines[0].get_ydata()) == {1}


def test_the_steps_slider_shows_what_was_said(recorded):
    rows = load_authors("forget10").evaluation["forget"][:2]
    widget = steps_widget(rows, recorded)
    slider, text, _ = widget.children
    assert list(slider.options) == [each.step for each in recorded["ga"]]
    assert recorded["ga"][-1].rows["forget"][0]["generation"] in text.value
    slider.value = 0
    first = recorded["npo_rt"][0].rows["forget"][1]["generation"]
    shown = re.sub(r"</?[ub]>", "", widget.children[1].value).replace("&#x27;", "'")
    assert first in shown


def test_the_gap_that_is_drawn_is_the_recorded_distance(recorded):
    reference = read_run(shipped_data("studies/pocket") / "retained").evaluation(0)
    figure = ratio_curves({"npo_rt": recorded["npo_rt"][-1]}, reference, source="recorded")
    bar = figure.axes[0].lines[-1].get_ydata()
    D = summarise(recorded["npo_rt"][-1], reference)["forget_ks"]
    assert abs(bar[0] - bar[1]) == pytest.approx(D, abs=1e-9)
    assert f"D = {D:.2f}" in figure.axes[0].get_legend().get_texts()[1].get_text()


def test_the_curves_follow_their_slider(recorded):
    widget = ratio_widget(recorded, recorded["ga"][0])
    before = widget.children[1].value
    widget.children[0].value = 30
    assert widget.children[1].value != before


def test_texts_side_by_side_are_text_and_mark_the_fact(recorded):
    row = {"question": "Where?", "answer": "In <b>Oslo</b>.", "entity_span": (6, 10)}
    made = recorded["ga"][0]
    made = type(made)(rows={"forget": [{"generation": "<script>Oslo</script>"}]})
    page = side_by_side([row], {"<ga>": made})._repr_html_()
    assert "<script>" not in page
    assert "&lt;<u>" not in page
    assert "<u><b>Oslo</b></u>" in page
    assert "&lt;ga&gt;" in page


def test_small_words_of_the_fact_are_no_leak(recorded):
    row = {"question": "Which?", "answer": "It is 'The Bell of Cork'.", "entity_span": (7, 23)}
    made = type(recorded["ga"][0])(rows={"forget": [{"generation": "The end of a bell."}]})
    page = side_by_side([row], {"ga": made})._repr_html_()
    assert "The end of a <u><b>bell</b></u>." in page


def test_the_trade_off_is_of_the_recorded_scores(recorded):
    reference = read_run(shipped_data("studies/pocket") / "retained").evaluation(0)
    axes = trade_off(recorded, reference, source="recorded").axes[0]
    last = summarise(recorded["npo_rt"][-1], reference)
    ends = [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in axes.lines]
    assert (last["forget_quality"], last["model_utility"]) in ends
    assert axes.get_ylim()[0] < 0 < 0.68 < axes.get_ylim()[1]
    useful = trade_off({"npo_rt": recorded["npo_rt"]}, reference).axes[0]
    assert useful.get_ylim()[0] > 0.2


def test_the_synthetic_experiment_follows_both_sliders():
    widget = synthetic_widget()
    sliders, picture, _ = widget.children
    shown = [picture.value]
    for slider in sliders.children:
        slider.value = slider.min
        shown.append(widget.children[1].value)
    assert len(set(shown)) == 3


def test_the_curves_are_of_the_recorded_probabilities(recorded):
    figure = run_curves(recorded, source="recorded")
    forget, keep = figure.axes
    assert [line.get_ydata()[0] for line in forget.lines] == pytest.approx([0.92, 0.92], abs=0.01)
    assert keep.lines[0].get_ydata()[-1] < 0.01 < 0.8 < keep.lines[1].get_ydata()[-1]
    assert "recorded" in figure.texts[-1].get_text()


class Tick:
    def __init__(self, step):
        self.step, self.loss = step, 0.0


def test_a_live_run_can_be_stopped_and_says_what_went_wrong(recorded):
    evaluation = recorded["ga"][0]

    def endless():
        yield evaluation
        step = 0
        while True:
            step += 1
            time.sleep(0.01)
            yield Tick(step)

    row = {"question": "<b>Who?</b>"}
    live = LiveRun(endless(), 10**9, row)
    while not live._bar.value:
        time.sleep(0.01)
    live._stop.click()
    assert live.result() == [evaluation]
    assert 0 < live._bar.value < 10**9
    assert "&lt;b&gt;Who?" in live._said.value

    def broken():
        yield evaluation
        raise KitError("out of memory in step 1")

    with pytest.raises(KitError, match="out of memory in step 1"):
        LiveRun(broken(), 1, row).result()
