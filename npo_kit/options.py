"""Options: dataclass fields that carry their own description, unit and range.

The command line, the page's controls and the copied command are made from them, so that an option
and its default stand in one place.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from numbers import Integral, Real
from typing import Any

from npo_kit.errors import KitError

_METAVARS = {int: "N", float: "X", str: "TEXT"}
_KINDS = {int: "a whole number", float: "a number", bool: "True or False"}


@dataclass(frozen=True)
class Option:
    """An option's description, default and limits."""

    help: str  # a phrase that describes it, with its unit
    default: Any = None
    kind: type = str  # int, float, bool or str
    above: float | None = None  # a value must be above this
    least: float | None = None  # a value must be at least this
    usual: tuple[float, float] | None = None  # sensible values, which the page offers
    label: str | None = None  # on the page, if not the field's name
    step: float | None = None  # of the page's control; None: logarithmic
    choices: tuple[str, ...] = ()
    none: str | None = None  # how None is written on the command line
    flag: str | None = None  # on the command line, if not the field's name
    metavar: str | None = None
    group: str | None = None  # its heading in the help

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, as the end of a sentence, or None."""
        if value is None and (self.default is None or self.none):
            return None
        if self.kind is str and not self.choices and not isinstance(value, str):
            return "must be text"
        if self.kind is bool and not isinstance(value, bool):
            return f"must be {_KINDS[bool]}"
        numeric = {int: Integral, float: Real}.get(self.kind)
        if numeric and (isinstance(value, bool) or not isinstance(value, numeric)):
            return f"must be {_KINDS[self.kind]}"
        if self.above is not None and not value > self.above:
            return f"must be above {self.above:g}"
        if self.least is not None and not value >= self.least:
            return "must not be negative" if self.least == 0 else f"must be at least {self.least:g}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}"
        return None

    def control(self, name: str) -> dict[str, Any]:
        """Return what the page needs for a control, as JSON."""
        low, high = self.usual or (None, None)
        label = self.label or name.replace("_", " ").capitalize()
        about = {"label": label, "help": self.help, "usual": self.default, "step": self.step}
        return about | {"low": low, "high": high, "whole": self.kind is int}

    def unusual(self, value: Any) -> str | None:
        """Return what is wrong with a value that a visitor of the page chose, or None."""
        if self.usual and (self.problem(value) or not self.usual[0] <= value <= self.usual[1]):
            whole = "a whole number, " * (self.kind is int)
            return f"must be {whole}{self.usual[0]:g} to {self.usual[1]:g}"
        return self.problem(value)


def option(default: Any, help: str, **about: Any) -> Any:
    """Make a dataclass field that is an option; its kind is the default's, unless that is None."""
    if default is not None:
        about = {"kind": type(default)} | about
    return field(default=default, metadata={"option": Option(help, default, **about)})


def options_of(config: Any) -> dict[str, Option]:
    """Return the options of a dataclass, or of an instance of one, by field name."""
    return {f.name: f.metadata["option"] for f in fields(config) if "option" in f.metadata}


def check(values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """Raise KitError for a value that is not within its option's range."""
    for name, about in options.items():
        if name in values and (problem := about.problem(values[name])):
            raise KitError(f"{name} {problem}, it is {values[name]!r:.60}")


# --- the command line ---------------------------------------------------------------------------


def flag(name: str, about: Option) -> str:
    """Return how an option is written on the command line."""
    return about.flag or f"--{name.replace('_', '-')}"


def add_options(parser: argparse._ActionsContainer, options: Mapping[str, Option]) -> None:
    """Add options to a parser; one that is not given is absent from the parsed options."""
    groups: dict[str | None, argparse._ActionsContainer] = {None: parser}
    for name, about in options.items():
        if about.group not in groups:
            groups[about.group] = parser.add_argument_group(about.group)
        common: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(about)}
        if about.kind is bool:
            common["action"] = (
                "store_true" if about.default is False else argparse.BooleanOptionalAction
            )
        else:
            kind = f"{{{','.join(about.choices)}}}" if about.choices else _METAVARS[about.kind]
            common |= {"type": partial(_read, about), "metavar": about.metavar or kind}
        groups[about.group].add_argument(flag(name, about), **common)


def given(parsed: argparse.Namespace, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return the values of the options that were given, by name."""
    said = vars(parsed)
    places = {name: flag(name, about)[2:].replace("-", "_") for name, about in options.items()}
    return {name: said[place] for name, place in places.items() if place in said}


def words(values: Mapping[str, Any], options: Mapping[str, Option]) -> list[str]:
    """Return the words of a command for the values that differ from their options' defaults."""
    found: list[str] = []
    for name, about in options.items():
        if name in values and values[name] != about.default:
            found += _written(flag(name, about), about, values[name])
    return found


def _written(name: str, about: Option, value: Any) -> list[str]:
    if about.kind is bool:
        return [name if value else f"--no-{name[2:]}"]
    if isinstance(value, float) and float(f"{value:g}") == value:
        return [name, f"{value:g}"]
    return [name, str(about.none if value is None else value)]


def _read(about: Option, text: str) -> Any:
    try:
        value = about.kind(text)
    except ValueError:
        problem = f"must be {_KINDS[about.kind]}, it is {text!r}"
        raise argparse.ArgumentTypeError(problem) from None
    return None if about.none is not None and value == about.kind(about.none) else value


def _help(about: Option) -> str:
    usual = f"; usually {about.usual[0]:g} to {about.usual[1]:g}" if about.usual else ""
    value = about.default
    if isinstance(value, float):
        value = f"{value:g}"
    shown = f" (default: {value})" if value is not None and about.kind is not bool else ""
    return f"{about.help}{usual}{shown}".replace("%", "%%")
