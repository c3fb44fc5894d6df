"""Prompt formats, which turn questions and answers into tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from npo_kit.data.rows import question_of
from npo_kit.errors import KitError


class PromptError(KitError):
    """A tokenizer, prompt style or row that cannot be used."""


PROMPT_STYLES = {
    "qa": "Question: {question}\nAnswer: ",  # TOFU's for Phi-1.5 and base models
    "llama2": "[INST] {question} [/INST]",  # TOFU's for Llama-2-chat: the answer follows unspaced
}
PINNED_DATE = "26 Jul 2024"  # that a chat template prints for today, so that prompts stay the same
DATE_FORM = "%d %b %Y"  # of a date given instead
_CODES = [f"%{letter}" for letter in "dbBmYyaAjFHIMSpT"]  # of a date or time in a template
_PROBE, _ANSWER = "A question?", "An answer."
_MARKER = re.compile(r"</?[^<>\s]+>|\[/?[A-Z_]+\]")  # <think>, <|channel|>, [/INST]
ENCODED_KEPT = 1 << 15  # rows that a format remembers, since every evaluation reads the same ones


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and an answer.

    An answer's end with the end token. A passage is an answer whose prompt is what precedes its
    first token that can be predicted: the beginning token, or else its own first token.
    """

    ids: tuple[int, ...]
    prompt_length: int  # ids[:prompt_length] is the prompt, the rest the answer

    @property
    def answer_length(self) -> int:
        """Tokens of the answer, end token included."""
        return len(self.ids) - self.prompt_length


class PromptFormat:
    """The rules by which a question and an answer become tokens for one tokenizer.

    `style` is `chat` (the tokenizer's own template), `qa`, `llama2`, or `auto`: `chat` where the
    tokenizer has a template, else `qa`. `context` is the longest sequence that the model takes, in
    tokens; `vocabulary` the number of tokens that its embedding holds. A chat prompt is everything
    before the answer in the rendered conversation, including an empty think block, a channel or a
    space; `system_prompt` is its system turn (None: the template's own), `chat_date` the date it
    prints for today, such as 10 Apr 2025 (None: PINNED_DATE). `end_id` is the token that ends an
    answer: the chat template's where it has one, else the tokenizer's `eos_token`. Rows are data:
    text in them that looks like a special token (`</s>`) is encoded as plain text. Raises
    PromptError for an unknown style, a template that fails, an unreadable date, a tokenizer without
    character offsets or without an end token.
    """

    def __init__(
        self,
        tokenizer,
        style: str = "auto",
        context: int | None = None,
        *,
        system_prompt: str | None = None,
        chat_date: str | None = None,
        vocabulary: int | None = None,
    ):
        if style == "auto":
            style = "chat" if getattr(tokenizer, "chat_template", None) else "qa"
        if style not in ("chat", *PROMPT_STYLES):
            choices = ", ".join(("auto", "chat", *PROMPT_STYLES))
            raise PromptError(f"unknown prompt style {style!r}: choose one of {choices}")
        if style == "chat" and not getattr(tokenizer, "chat_template", None):
            raise PromptError(
                "this tokenizer has no chat template: choose prompt style qa or llama2"
            )
        if not getattr(tokenizer, "is_fast", False):
            raise PromptError("this tokenizer gives no character offsets: use its fast version")
        if style != "chat" and (system_prompt is not None or chat_date is not None):
            raise PromptError(
                f"system_prompt and chat_date belong to a chat template, prompt style {style} has "
                "none: leave them out, or choose prompt style chat"
            )
        self.tokenizer, self.style, self.context = tokenizer, style, context
        self.vocabulary = vocabulary
        self.system_prompt = system_prompt
        self.chat_date, self._clock = _pinned(PINNED_DATE if chat_date is None else chat_date)
        self._before, found, self._after = self.prompt(_PROBE).partition(_PROBE)
        if not found:
            raise PromptError(
                "this tokenizer's chat template leaves the question out: choose prompt style qa"
            )
        self.end_id = self._end_id()
        self._encode = lru_cache(ENCODED_KEPT)(self._encode_anew)
        added = tokenizer.added_tokens_decoder
        special = {*tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)}
        self._markers = {i for i, t in added.items() if _MARKER.fullmatch(t.content)}
        self._control = {i: tokenizer.convert_ids_to_tokens(i) for i in (*special, self.end_id)}

    def prompt(self, question: str) -> str:
        """Write the text before the answer."""
        if self.style == "chat":
            before, found, _ = self._conversation(question, _ANSWER).rpartition(_ANSWER)
            return before if found else self._conversation(question)  # a template of prompts only
        return PROMPT_STYLES[self.style].format_map({"question": question})

    def encode(self, question: str | None, answer: str) -> Encoded:
        """Tokenise the two together and split them at the answer's first character.

        Without a question (None) the answer is a passage: the tokenizer's beginning token, if it
        adds one, and the text's tokens, with no template around them and no end token. Raises
        PromptError that names the row if it is longer than the context, or a passage of one token.
        """
        return self._encode(question, answer)

    def _encode_anew(self, question: str | None, answer: str) -> Encoded:
        ids, spans, first = self._tokens(question, answer)
        starts = (i for i, (_, end) in enumerate(spans) if end > first)
        prompt_length = next(starts, len(ids))
        if question is None:
            row, prompt_length = f"passage {answer[:60]!r}", max(prompt_length, 1)
            if len(ids) == prompt_length:
                raise PromptError(f"the {row} is one token, which none precedes: give a longer one")
        else:
            row = f"row with question {question[:60]!r}"
            ids.append(self.end_id)
        if self.context and len(ids) > self.context:
            raise PromptError(
                f"the {row} has {len(ids)} tokens, the model's context holds {self.context}: "
                "shorten the row, leave it out, or give --long-rows split or cut (fit_rows)"
            )
        if self.vocabulary and max(ids) >= self.vocabulary:
            raise PromptError(
                f"the tokenizer writes {self.tokenizer.convert_ids_to_tokens(max(ids))!r} as token "
                f"{max(ids)}, but the model's embedding has {self.vocabulary} rows: give the "
                "tokenizer that it was trained with, choose prompt style qa if that token is of "
                "the chat template, or resize the embedding and train the new rows"
            )
        return Encoded(tuple(ids), prompt_length)

    def fitting(self, question: str | None, answer: str) -> int | None:
        """Count the characters of an answer that fit the context; None if it fits as a whole."""
        ids, spans, first = self._tokens(question, answer)
        if not self.context:
            return None
        room = self.context - (question is not None)  # for the end token, which a passage lacks
        return max(spans[room - 1][1] - first, 0) if len(ids) > room else None

    def answer_spans(self, question: str | None, answer: str) -> list[tuple[int, int]]:
        """Return the characters [start, end) of the answer that each of its tokens covers.

        The first token may begin before the answer, with a start below 0; the end token has none.
        """
        _, spans, first = self._tokens(question, answer)
        return [(start - first, end - first) for start, end in spans if end > first]

    def _tokens(
        self, question: str | None, answer: str
    ) -> tuple[list[int], list[tuple[int, int]], int]:
        """Return ids and characters of the tokens of both, and the answer's first character."""
        prompt = "" if question is None else self.prompt(question)
        tokens = self.tokenizer(
            prompt + answer,
            # a chat template writes its own
            add_special_tokens=self.style != "chat" or question is None,
            return_offsets_mapping=True,
        )
        ids, spans = list(tokens["input_ids"]), list(tokens["offset_mapping"])
        while spans and spans[-1][1] == 0:  # an end token that some tokenizers add
            ids.pop(), spans.pop()
        if any(token in (question or "") or token in answer for token in self._control.values()):
            self._control_as_text(ids, spans, prompt, prompt + answer)
        return ids, spans, len(prompt)

    def _control_as_text(
        self, ids: list[int], spans: list[tuple[int, int]], prompt: str, text: str
    ) -> None:
        """Replace special tokens in question and answer by the tokens of their text, in place.

        The template's own stay. `spans` are the characters [first, last) of each token.
        """
        if prompt and not (prompt.startswith(self._before) and prompt.endswith(self._after)):
            raise PromptError(
                f"the chat template writes {prompt[:60]!r} differently from other questions, and "
                "the row contains a special token: take that out, or choose prompt style qa"
            )
        first, last = len(self._before), len(prompt) - len(self._after)
        for i in reversed(range(len(ids))):
            start, end = spans[i]
            inside = end > len(prompt) or (end > first and start < last)
            if not inside or self._control.get(ids[i]) != text[start:end].strip():
                continue
            plain = self.tokenizer(
                text[start:end],
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
            )
            if ids[i] in plain["input_ids"]:
                said = f"question: {text[first:last][:60]!r}" if prompt else f"{text[:60]!r}"
                raise PromptError(
                    f"a row contains {self._control[ids[i]]!r}, which this tokenizer reads only as "
                    f"its special token: take it out ({said})"
                )
            ids[i : i + 1] = plain["input_ids"]
            spans[i : i + 1] = [(start + a, start + b) for a, b in plain["offset_mapping"]]

    def encode_prompt(self, question: str) -> tuple[int, ...]:
        """Return the tokens to generate from, for a question without a known answer."""
        encoded = self.encode(question, "The")
        return encoded.ids[: encoded.prompt_length]

    def encode_all(self, rows: Sequence[Mapping]) -> list[Encoded]:
        """Encode many rows; one PromptError names every row that is too long."""
        encoded, problems = [], []
        for number, row in enumerate(rows, 1):
            try:
                encoded.append(self.encode(question_of(row), row["answer"]))
            except PromptError as error:
                problems.append(f"row {number}: {error}")
        if problems:
            raise PromptError("\n".join(problems))
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special tokens and a template's markers."""
        plain = [i for i in ids if i not in self._markers]
        return self.tokenizer.decode(plain, skip_special_tokens=True).strip()

    def _conversation(self, question: str, answer: str | None = None) -> str:
        """Render a question with its answer, or up to the place of the answer, by the template."""
        said = {"system": self.system_prompt, "user": question, "assistant": answer}
        messages = [{"role": r, "content": text} for r, text in said.items() if text is not None]
        try:
            template = self.tokenizer.get_chat_template()
            return self.tokenizer.apply_chat_template(
                messages,
                chat_template=(self._clock if "strftime_now" in template else "") + template,
                tokenize=False,
                date_string=self.chat_date,
                add_generation_prompt=answer is None,
            )
        except Exception as error:  # a template is a program: anything may go wrong in it
            first = (str(error).strip().splitlines() or [""])[0][:120]
            raise PromptError(
                f"this tokenizer's chat template fails ({type(error).__name__}: {first}) for the "
                f"question {question[:60]!r}: choose prompt style qa"
            ) from error

    def _end_id(self) -> int:
        if self.style == "chat":
            _, found, after = self._conversation(_PROBE, _ANSWER).rpartition(_ANSWER)
            special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
            tokens = self.tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
            for token in tokens:
                if token in special and self.tokenizer.convert_ids_to_tokens(token).strip():
                    return token
        if self.tokenizer.eos_token_id is None:
            raise PromptError("this tokenizer has no end token: set tokenizer.eos_token")
        return self.tokenizer.eos_token_id


def _pinned(date: str) -> tuple[str, str]:
    """Return a date as templates print it, and a macro that gives it to templates with a clock."""
    try:
        day = datetime.strptime(date, DATE_FORM)
    except ValueError:
        raise PromptError(f"chat_date {date!r} is no date: write it like {PINNED_DATE!r}") from None
    codes = {code: day.strftime(code) for code in _CODES}
    codes |= {"%-d": str(day.day), "%e": f"{day.day:2d}", "%-m": str(day.month)}  # not on Windows
    replaced = "".join(f"|replace({code!r}, {text!r})" for code, text in codes.items())
    return date, "{%- macro strftime_now(format) %}{{ format" + replaced + " }}{%- endmacro %}\n"
