"""How questions and answers become tokens and batches for one tokenizer."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from npo_kit.errors import KitError


class PromptError(KitError):
    """A tokenizer, a prompt style or a row that cannot be used; names it."""


PROMPT_STYLES = {
    "qa": "Question: {question}\nAnswer: ",  # TOFU's for Phi-1.5 and base models
    "llama2": "[INST] {question} [/INST]",  # TOFU's for Llama-2-chat: the answer follows unspaced
}
PINNED_DATE = "26 Jul 2024"  # what a chat template prints for today, so that prompts stay the same
PINNED_CLOCK = {  # the same for templates that ask for the time by strftime's codes
    "%d": "26", "%-d": "26", "%e": "26", "%b": "Jul", "%B": "July", "%m": "07", "%-m": "7",
    "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday", "%j": "208", "%F": "2024-07-26",
    "%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%T": "00:00:00",
}  # fmt: skip
_STRFTIME = "".join(f"|replace({code!r}, {text!r})" for code, text in PINNED_CLOCK.items())
_PIN = "{%- macro strftime_now(format) %}{{ format" + _STRFTIME + " }}{%- endmacro %}\n"
_PROBE = "A question?"
ENCODED_KEPT = 1 << 15  # rows that a format remembers: an evaluation's come back at the next one


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and an answer; the answer's end with the end token."""

    ids: tuple[int, ...]
    prompt_length: int  # ids[:prompt_length] is the prompt, the rest the answer

    @property
    def answer_length(self) -> int:
        """Tokens of the answer, end token included."""
        return len(self.ids) - self.prompt_length


class PromptFormat:
    """How a question and an answer become tokens for one tokenizer.

    `style` is `chat` (the tokenizer's own template, dates pinned), `qa`, `llama2`, or `auto`:
    `chat` where the tokenizer has a template, else `qa`. `context` is the longest sequence the
    model takes, in tokens. `end_id` is the token that ends an answer: the chat template's where it
    has one, else the tokenizer's `eos_token`. Rows are data: what looks like a special token in
    them (`</s>`) is encoded as plain text. Raises PromptError for an unknown style, a template
    that fails, a tokenizer without character offsets, or one without an end token.
    """

    def __init__(self, tokenizer, style: str = "auto", context: int | None = None):
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
        self.tokenizer, self.style, self.context = tokenizer, style, context
        self._before, found, self._after = self.prompt(_PROBE).partition(_PROBE)
        if not found:
            raise PromptError(
                "this tokenizer's chat template leaves the question out: choose prompt style qa"
            )
        self.end_id = self._end_id()
        self._encode = lru_cache(ENCODED_KEPT)(self._encode_anew)
        added = tokenizer.added_tokens_decoder
        special = {*tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)}
        self._control = {i: tokenizer.convert_ids_to_tokens(i) for i in (*special, self.end_id)}

    def prompt(self, question: str) -> str:
        """The text before the answer."""
        if self.style == "chat":
            return self._chat(question, add_generation_prompt=True)
        return PROMPT_STYLES[self.style].format_map({"question": question})

    def encode(self, question: str, answer: str) -> Encoded:
        """Tokens of the two, tokenised together and split where the answer's first character is.

        Raises PromptError that names the row when it is longer than the context.
        """
        return self._encode(question, answer)

    def _encode_anew(self, question: str, answer: str) -> Encoded:
        prompt = self.prompt(question)
        tokens = self.tokenizer(
            prompt + answer,
            add_special_tokens=self.style != "chat",  # a chat template writes its own
            return_offsets_mapping=True,
        )
        ids, spans = list(tokens["input_ids"]), list(tokens["offset_mapping"])
        while spans and spans[-1][1] == 0:  # an end token that some tokenizers add by themselves
            ids.pop(), spans.pop()
        if any(token in question or token in answer for token in self._control.values()):
            self._control_as_text(ids, spans, prompt, prompt + answer)
        starts = (i for i, (_, end) in enumerate(spans) if end > len(prompt))
        prompt_length = next(starts, len(ids))
        ids.append(self.end_id)
        if self.context and len(ids) > self.context:
            raise PromptError(
                f"the row with question {question[:60]!r} has {len(ids)} tokens, the model's "
                f"context holds {self.context}: shorten the row or leave it out"
            )
        return Encoded(tuple(ids), prompt_length)

    def _control_as_text(
        self, ids: list[int], spans: list[tuple[int, int]], prompt: str, text: str
    ) -> None:
        """Replace, in place, special tokens inside question and answer by the tokens of their text.

        The template's own stay. `spans` are the characters (first, after last) of each token.
        """
        if not (prompt.startswith(self._before) and prompt.endswith(self._after)):
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
                raise PromptError(
                    f"a row contains {self._control[ids[i]]!r}, which this tokenizer reads only as "
                    f"its special token: take it out (question: {text[first:last][:60]!r})"
                )
            ids[i : i + 1] = plain["input_ids"]
            spans[i : i + 1] = [(start + a, start + b) for a, b in plain["offset_mapping"]]

    def encode_prompt(self, question: str) -> tuple[int, ...]:
        """Tokens to generate from, for a question without a known answer."""
        encoded = self.encode(question, "The")
        return encoded.ids[: encoded.prompt_length]

    def encode_all(self, rows: Sequence[Mapping]) -> list[Encoded]:
        """`encode` for many rows; every row that is too long is named in one PromptError."""
        encoded, problems = [], []
        for number, row in enumerate(rows, 1):
            try:
                encoded.append(self.encode(row["question"], row["answer"]))
            except PromptError as error:
                problems.append(f"row {number}: {error}")
        if problems:
            raise PromptError("\n".join(problems))
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _chat(self, question: str, answer: str | None = None, **options) -> str:
        messages = [{"role": "user", "content": question}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        try:
            template = self.tokenizer.get_chat_template()
            return self.tokenizer.apply_chat_template(
                messages,
                chat_template=(_PIN if "strftime_now" in template else "") + template,
                tokenize=False,
                date_string=PINNED_DATE,
                **options,
            )
        except Exception as error:  # a template is a program: anything may go wrong in it
            first = (str(error).strip().splitlines() or [""])[0][:120]
            raise PromptError(
                f"this tokenizer's chat template fails ({type(error).__name__}: {first}) for the "
                f"question {question[:60]!r}: choose prompt style qa"
            ) from error

    def _end_id(self) -> int:
        if self.style == "chat":
            answer = "An answer."
            _, found, after = self._chat(_PROBE, answer).rpartition(answer)
            special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
            tokens = self.tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
            for token in tokens:
                if token in special and self.tokenizer.convert_ids_to_tokens(token).strip():
                    return token
        if self.tokenizer.eos_token_id is None:
            raise PromptError("this tokenizer has no end token: set tokenizer.eos_token")
        return self.tokenizer.eos_token_id


# --- batches ------------------------------------------------------------------------------------


def shuffled_buckets(
    lengths: Sequence[int], batch_size: int, generator: random.Random
) -> list[int]:
    """A random order of rows in which runs of `batch_size` are of similar length.

    Shuffles, sorts within windows of four batches, and shuffles the batches of each window, so
    that little is padded and every batch is still random. Returns a permutation of row numbers.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    result: list[int] = []
    for start in range(0, len(order), 4 * batch_size):
        window = sorted(order[start : start + 4 * batch_size], key=lambda row: lengths[row])
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        generator.shuffle(batches)
        result += [row for batch in batches for row in batch]
    return result


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of row numbers from longest to shortest: little padding, and memory peaks first."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def steps_in(epochs: float, n_rows: int, batch_size: int) -> int:
    """Whole batches in so many passes over `n_rows` rows; batches run across epochs."""
    return math.floor(epochs * n_rows / batch_size + 1e-9)


def paired_batches(
    lengths: Sequence[int],
    partner_lengths: Sequence[int] | None,
    *,
    batch_size: int,
    epochs: float,
    seed: int,
    fixed: bool = False,
) -> list[tuple[list[int], list[int]]]:
    """Row numbers of each of floor(epochs * n / batch_size) batches, and those of their partners.

    Every epoch is a fresh permutation in buckets of similar length; batches run across the borders
    of epochs. Each row gets one partner: drawn afresh each epoch without replacement as far as
    there are enough, those of a bucket matched by length; with `fixed` the same in every epoch.
    Without `partner_lengths` the second list is empty.
    """
    if partner_lengths is not None and not partner_lengths:
        raise PromptError("there are no rows to draw partners from: give retain rows")
    n, rows, partners = len(lengths), [], []
    for epoch in range(math.ceil(epochs)):
        generator = random.Random(f"rows {seed} {epoch}")
        order = shuffled_buckets(lengths, batch_size, generator)
        rows += order
        if partner_lengths is not None:
            drawn = _draw(
                n, len(partner_lengths), random.Random(f"retain {seed}") if fixed else generator
            )
            if fixed:
                partners += [drawn[row] for row in order]
            else:
                partners += _matched(order, lengths, drawn, partner_lengths, 4 * batch_size)
    steps = steps_in(epochs, n, batch_size)
    cuts = [slice(i * batch_size, (i + 1) * batch_size) for i in range(steps)]
    return [(rows[cut], partners[cut]) for cut in cuts]


def _draw(n: int, population: int, generator: random.Random) -> list[int]:
    """`n` of `range(population)` in random order; each before any a second time."""
    drawn: list[int] = []
    while len(drawn) < n:
        drawn += generator.sample(range(population), min(population, n - len(drawn)))
    return drawn


def _matched(
    order: list[int],
    lengths: Sequence[int],
    drawn: list[int],
    partner_lengths: Sequence[int],
    window: int,
) -> list[int]:
    """The drawn partners, within each window rearranged so that long rows get long partners."""
    matched = list(drawn)
    for start in range(0, len(order), window):
        places = range(start, min(start + window, len(order)))
        by_row = sorted(places, key=lambda place: lengths[order[place]])
        by_partner = sorted(drawn[start : start + window], key=lambda i: partner_lengths[i])
        for place, partner in zip(by_row, by_partner, strict=True):
            matched[place] = partner
    return matched
