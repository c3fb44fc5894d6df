"""Texts to be written in an evaluation: answers to questions, continuations of passages."""

from __future__ import annotations

from dataclasses import dataclass

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import Row, question_of

PASSAGE_TOKENS = 128  # of a passage's beginning, and of what is written and compared, at the most


@dataclass(frozen=True)
class Writing:
    """A prompt to write from, the most tokens to write, and the text that is expected."""

    prompt: tuple[int, ...]
    most: int
    given: str  # the question, or the beginning of a passage
    expected: str  # the answer, or what follows in the passage


def writing(row: Row, prompts: PromptFormat, max_new_tokens: int) -> Writing:
    """Return what is written for a row, in at most `max_new_tokens` tokens.

    A passage is continued from its first 128 tokens, or from half of a shorter one, and compared
    with its next 128 tokens or those that are left; no more are written. This is VerbMem of MUSE
    (arXiv 2407.06460, `verbmem` in github.com/swj0419/muse_bench: greedy, 128 new tokens, the truth
    cut to 128), except that MUSE's files have beginnings of about a thousand tokens and no short
    texts. Without generations (0) the expected text is the one that 128 would be compared with.
    """
    text = row["answer"]
    if (question := question_of(row)) is not None:
        encoded = prompts.encode(question, text)
        prompt = encoded.ids[: encoded.prompt_length]
        return Writing(prompt, max_new_tokens, question, text)
    ids, spans = prompts.encode(None, text).ids, prompts.answer_spans(None, text)
    before = min(PASSAGE_TOKENS, len(spans) // 2)
    most = min(max_new_tokens or PASSAGE_TOKENS, PASSAGE_TOKENS, len(spans) - before)
    start, end = spans[before][0], spans[before + most - 1][1]
    prompt = ids[: len(ids) - len(spans) + before]
    return Writing(prompt, min(most, max_new_tokens), text[:start].strip(), text[start:end].strip())
