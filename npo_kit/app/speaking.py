"""Answers to questions by a model of a live run, as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError, without_paths
from npo_kit.records.files import Json

LEAST_ROOM = 3  # tokens of the context that a question leaves for its answer
Send = Callable[[Json], None]


class Speaker:
    """Answers questions with a model as it is now; `about` goes with each token that it sends.

    `known` has the true answers of some questions, which are asked as evaluations ask them: the
    tokens of a prompt end before its last space where the answer's first token has that space, as
    with most words, and behind it where it has not, as with Chinese or an emoji.
    """

    def __init__(
        self,
        model,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        send: Send,
        about: Json | None = None,
        known: Mapping[str, str] | None = None,
    ):
        self.model, self.format, self.max_new_tokens = model, prompt_format, max_new_tokens
        self.send, self.about, self.known = send, about or {}, known or {}
        self.step = 0  # that the model is at

    def of(self, model) -> Speaker:
        """Return one that asks another model alike."""
        return Speaker(model, self.format, self.max_new_tokens, self.send, known=self.known)

    def answer(self, prompt: str, number: int) -> None:
        """Answer a prompt token by token: `token` events with the text so far, the last `whole`.

        Where the model cannot be asked this, the last one says why in `problem`.
        """

        def said(text: str, **more: Any) -> None:
            about = self.about | {"number": number, "step": self.step, "text": text}
            self.send({"event": "token", **about, "whole": False, **more})

        try:
            said(self.text(prompt, said), whole=True)
        except KitError as error:
            said("", whole=True, problem=without_paths(str(error)))

    def text(self, question: str, so_far: Callable[[str], None] = lambda _: None) -> str:
        """Return the greedy answer; `so_far` gets the text after each token.

        Raises KitError for a question that leaves no room for an answer.
        """
        from npo_kit.models.generation import generate

        context, count = self.format.context, self._tokens(question)
        if context and count + LEAST_ROOM > context:
            raise KitError(
                f"the question has {count} tokens, the model's context holds {context}: shorten it"
            )
        (said,) = generate(
            self.model,
            [self._prompt(question)],
            self.format.end_id,
            max_new_tokens=self.max_new_tokens,
            token=lambda ids: so_far(self.format.decode(ids)),
        )
        return self.format.decode(said)

    def texts(self, questions: Sequence[str]) -> list[str]:
        """Return the greedy answers to several questions that leave room for one."""
        from npo_kit.models.generation import generate

        prompts = [self._prompt(question) for question in questions]
        said = generate(self.model, prompts, self.format.end_id, self.max_new_tokens)
        return [self.format.decode(ids) for ids in said]

    def _prompt(self, question: str) -> tuple[int, ...]:
        answer = self.known.get(question.strip())
        if answer is None:
            return self.format.encode_prompt(question)
        encoded = self.format.encode(question.strip(), answer)
        return encoded.ids[: encoded.prompt_length]

    def _tokens(self, question: str) -> int:
        """Count the tokens of a question in its prompt."""
        special = self.format.style != "chat"  # a chat template writes its own
        text = self.format.prompt(question)
        return len(self.format.tokenizer(text, add_special_tokens=special)["input_ids"])
