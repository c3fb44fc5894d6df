"""The corpus of fictional authors, made by rule."""

from typing import Required, TypedDict


class Row(TypedDict, total=False):
    """A question and its answer, with TOFU's keys; a user's row may have others beside them."""

    question: Required[str]
    answer: Required[str]
    paraphrased_answer: str | None
    perturbed_answer: list[str] | None  # wrong answers
    alternate: str | None  # a refusal that DPO, KTO and IDK train on
    author: str  # this and the rest: of the kit's own rows
    attribute: str  # of the author, that is asked for
    entity_span: list[int]  # [start, end) of the fact in the answer, in characters
    paraphrased_entity_span: list[int]
    perturbed_entity_spans: list[list[int]]
