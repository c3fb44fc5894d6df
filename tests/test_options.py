"""Options: one declaration, and the same value on the command line, in Python and in a copy."""

import argparse
import math

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from npo_kit.cli import main
from npo_kit.errors import KitError
from npo_kit.losses.combine import COMBINERS
from npo_kit.losses.methods import METHODS
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import Option, add_options, given, option, options_of, words
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

numbers = st.floats(1e-9, 1e9, allow_nan=False)


def values_of(about: Option) -> st.SearchStrategy:
    """Values that an option takes."""
    if about.choices:
        return st.sampled_from(about.choices)
    found = {
        bool: st.booleans(),
        int: st.integers(1, 10**9),
        float: numbers,
        str: st.text("abc äß漢 '\"-$", min_size=1).map(lambda text: "x" + text),
    }[about.kind]
    return found | st.none() if about.none else found


settings = st.fixed_dictionaries(
    {},
    optional={
        name: values_of(about)
        for name, about in options_of(UnlearnConfig).items()
        if name not in ("method", "retain_weight", "forget_weight", "combine")
    },
)


@drawn(settings, st.sampled_from(sorted(METHODS)), numbers, st.sampled_from(COMBINERS))
def test_what_is_written_as_a_command_is_read_back(chosen, name, weight, combine):
    if combine != "ngdiff":
        chosen = chosen | {"forget_weight": weight}
    if METHODS[name].retain:
        weighed = {} if combine == "ngdiff" else {"retain_weight": weight}
        chosen = chosen | {"combine": combine} | weighed
    config = UnlearnConfig(method=name, **chosen)
    options = options_of(UnlearnConfig)
    parser = argparse.ArgumentParser()
    add_options(parser, options)
    parsed = given(parser.parse_args(words(vars(config), options)), options)
    assert UnlearnConfig(**parsed) == config
    usual = vars(UnlearnConfig())
    assert parsed == {n: v for n, v in vars(config).items() if n in options and v != usual[n]}


@pytest.mark.parametrize("config", [UnlearnConfig, FinetuneConfig, EvaluationConfig])
def test_the_help_says_the_default_of_the_dataclass(config):
    parser = argparse.ArgumentParser()
    add_options(parser, options_of(config))
    help_of = {action.dest: action.help for action in parser._actions}
    for name, about in options_of(config).items():
        value = getattr(config(), name)
        assert value == about.default
        if value is not None and about.kind is not bool:
            said = help_of[about.flag[2:].replace("-", "_") if about.flag else name]
            assert f"(default: {value:g})" in said if about.kind is float else f"{value}" in said


@pytest.mark.parametrize(
    ("about", "value", "problem"),
    [
        (Option("", 1.0, float, above=0), -1e-5, "must be above 0"),
        (Option("", 1.0, float, above=0), math.nan, "must be above 0"),
        (Option("", 1.0, float), "1", "must be a number"),
        (Option("", 1.0, float), True, "must be a number"),
        (Option("", 1, int, least=1), 0, "must be at least 1"),
        (Option("", 1, int, least=0), -1, "must not be negative"),
        (Option("", 1, int), 1.5, "must be a whole number"),
        (Option("", None, int), None, None),
        (Option("", 1, int), None, "must be a whole number"),
        (Option("", "a", choices=("a", "b")), "c", "must be one of a, b"),
    ],
)
def test_a_value_out_of_range_has_a_sentence(about, value, problem):
    assert about.problem(value) == problem


def test_of_a_visitor_only_usual_values_are_taken():
    about = Option("", 1.0, float, above=0, usual=(0.1, 10))
    assert about.problem(100.0) is None
    assert about.unusual(100.0) == "must be 0.1 to 10"
    assert about.unusual(math.inf) == about.unusual("1") == about.unusual(100.0)
    assert about.unusual(10) is None


def test_a_setting_is_refused_by_name_with_the_value():
    with pytest.raises(KitError, match=r"batch_size must be a whole number, it is 2\.5"):
        UnlearnConfig(batch_size=2.5)
    assert option(3, "rows").metadata["option"].kind is int


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bata", "1"], "npo-kit unlearn: no option --bata, did you mean --beta?"),
        (["--lr", "fast"], "npo-kit unlearn: argument --lr: must be a number, it is 'fast'"),
        (["--lr", "-1e-5"], "npo-kit: lr must be above 0, it is -1e-05"),
        (["--seed", "-3.5"], "argument --seed: must be a whole number, it is '-3.5'"),
    ],
)
def test_a_slip_gets_one_sentence(words, sentence, capsys):
    try:
        code = main(["unlearn", "pocket", "--task", "authors:forget10", "--out", "x", *words])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code == 2
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
