"""The memory that training takes, and the largest model that a device can train.

`Memory` counts by formula what a step of unlearning holds. The sizes come from a `Shape` before
anything is downloaded, and in `npo_kit.trainer.estimates` from the model itself, with a measurement
of what a token keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from npo_kit.errors import KitError

ROWS, TOKENS = 16, 100  # of a training forward: 8 forget and 8 retain rows of TOFU, with prompts
ANSWER_TOKENS = 45  # of these, in the answer
RANK = 16  # of the adapters with LoRA
FULL, HALF = 4, 2  # bytes of a number in full and in half precision
NF4 = 0.52  # bytes of a weight in 4 bits, with its scales (arXiv 2305.14314, section 3)


@dataclass(frozen=True)
class Memory:
    """The sizes of a model in training, from which the bytes that a step holds follow."""

    weights: float  # bytes of all weights, trained or not
    copied: bool  # whether a frozen copy of the model is held too
    trained: int  # trained parameters, all in full precision
    cast: int  # full-precision parameters of which autocast holds a copy; 0 without it
    token: float  # bytes that a token keeps for the backward pass, without logits
    vocabulary: int
    gradients: int = 1  # numbers held of a trained parameter for its gradient; combiners hold more
    moments: int = 2  # numbers that the optimizer keeps of a trained parameter: AdamW two, SGD none

    @classmethod
    def of_model(
        cls,
        model: PreTrainedModel,
        token: float,
        *,
        copied: bool,
        half: bool,
        recomputing: bool,
        gradients: int = 1,
        moments: int = 2,
    ) -> Memory:
        """Take the sizes from a model in the state in which it is trained.

        `token`: bytes that a token keeps without gradient checkpointing (`kept_bytes`).
        `recomputing`: with gradient checkpointing, so that less is kept. `half`: forwards compute
        in half precision.
        """
        parameters, head = list(model.parameters()), model.get_output_embeddings().weight
        cast = [p for p in parameters if p.requires_grad or p is head or not recomputing]
        if recomputing:
            layers = model.config.get_text_config().num_hidden_layers
            token = recomputed(token, layers, model.dtype.itemsize * head.shape[1])
        return cls(
            weights=sum(p.numel() * p.element_size() for p in (*parameters, *model.buffers())),
            copied=copied,
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            cast=half * sum(p.numel() for p in cast if p.ndim > 1 and p.dtype == torch.float32),
            token=token,
            vocabulary=head.shape[0],
            gradients=gradients,
            moments=moments,
        )

    def step(self, tokens: int, answers: int) -> dict[str, int]:
        """Return the bytes at the peak of a step, by what holds them.

        The peak is at the beginning of the backward pass over `tokens`. Each of the `answers`, the
        predicted tokens, then has its logits, their log-softmax and its gradient in full precision,
        and autocast's logits.
        """
        return {
            "weights": round(self.weights),
            "frozen copy": round(self.weights) if self.copied else 0,
            "AdamW": self.moments * FULL * self.trained,
            "gradients": self.gradients * FULL * self.trained,
            "weights in half precision": HALF * self.cast,
            "activations": round(tokens * self.token),
            "logits": answers * self.vocabulary * (3 * FULL + (HALF if self.cast else 0)),
        }


def recomputed(token: float, layers: int, entering: int) -> float:
    """Return the bytes that a token keeps with gradient checkpointing.

    These are the bytes `entering` each layer, and all of one layer. `token`: those without it.
    """
    return layers * entering + token / layers


def kept_bytes(model: PreTrainedModel, forward: Callable[[], object]) -> int:
    """Measure the bytes that autograd keeps of a forward for its backward pass.

    Weights, their copies in half precision, and tensors as wide as the vocabulary do not count.
    """
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    weights = {shape for p in model.parameters() for shape in (p.shape, p.shape[::-1])}
    vocabulary = model.get_output_embeddings().weight.shape[:1]
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        copy = tensor.dtype != torch.float32 and tensor.shape in weights
        if storage.data_ptr() not in own and not copy and tensor.shape[-1:] != vocabulary:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def readable_bytes(count: float) -> str:
    """Write a number of bytes such as 512 MB or 14.2 GB, in powers of ten."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


# --- models by their shape ----------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder, from its config.json."""

    hidden: int
    layers: int
    inner: int  # width of the MLP
    key_value: int  # width of keys and values, over all heads
    vocabulary: int
    tied: bool  # whether the head is the embedding
    gated: bool = True  # an MLP of three matrices, like Llama's, or of two
    biases: int = 0  # in each layer

    @property
    def linear(self) -> int:
        """Weights of the linear layers except the head."""
        attention = 2 * self.hidden * (self.hidden + self.key_value)
        return self.layers * (attention + (2 + self.gated) * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        norms = (2 * self.layers + 1) * self.hidden
        tables = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return self.linear + norms + tables + self.layers * self.biases

    @property
    def adapter(self) -> int:
        """Parameters of an adapter of RANK on every linear layer except the head."""
        attention = 4 * self.hidden + 2 * (self.hidden + self.key_value)
        mlp = (2 + self.gated) * (self.hidden + self.inner)
        return RANK * self.layers * (attention + mlp)

    @property
    def token(self) -> int:
        """Bytes that a token keeps in all layers under autocast, as autograd counts for a Llama.

        In full precision: inputs and outputs of the two norms. In half: the inputs of six matrices,
        queries, keys and values over all heads, and four tensors of the MLP's inner width.
        """
        return self.layers * (FULL * 4 * self.hidden + HALF * (9 * self.hidden + 4 * self.inner))


@dataclass(frozen=True)
class Suggestion:
    """A model that fits, and the way to train it."""

    name: str  # on the hub
    lora: bool  # an adapter on 4-bit weights, with gradient checkpointing; else all weights
    parameters: int
    memory_bytes: int

    def __str__(self) -> str:
        how = "LoRA on 4-bit weights" if self.lora else "all weights"
        size = f"{self.parameters / 1e9:.2f} billion parameters"
        return f"{self.name} ({size}), {how}: about {readable_bytes(self.memory_bytes)}"


LLAMA2 = "meta-llama/Llama-2-7b-chat-hf"
SHAPES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Shape(576, 30, 1536, 192, 49152, tied=True),
    "HuggingFaceTB/SmolLM2-360M-Instruct": Shape(960, 32, 2560, 320, 49152, tied=True),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(896, 24, 4864, 128, 151936, tied=True, biases=1152),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(2048, 16, 8192, 512, 128256, tied=True),
    "microsoft/phi-1_5": Shape(2048, 24, 8192, 2048, 51200, tied=False, gated=False, biases=16384),
    LLAMA2: Shape(4096, 32, 11008, 4096, 32000, tied=False),
}


def training_bytes(shape: Shape, lora: bool) -> int:
    """Return the peak memory of an NPO+RT step on ROWS rows in half precision, in bytes.

    Training all weights counts the frozen copy that judges generations. LoRA has linear layers in 4
    bits, the rest in full precision as `load_model` leaves it, gradient checkpointing and no copy.
    An evaluation makes do with what is left: it halves its batches where memory runs out.
    """
    trained = cast = shape.parameters
    weights: float = FULL * shape.parameters
    token: float = shape.token
    if lora:
        trained = shape.adapter
        cast = trained + shape.vocabulary * shape.hidden
        weights = NF4 * shape.linear + FULL * (shape.parameters - shape.linear + trained)
        token = recomputed(token, shape.layers, FULL * shape.hidden)
    memory = Memory(weights, not lora, trained, cast, token, shape.vocabulary)
    return sum(memory.step(ROWS * TOKENS, ROWS * ANSWER_TOKENS).values())


def suggest_model(free_bytes: float, lora: bool = True) -> Suggestion:
    """Return the largest of SHAPES that trains in so much free memory, and the way to train it.

    Llama-2-7b trains with LoRA on 4-bit weights, unless `lora=False` leaves it out; the others with
    all weights. Example: `suggest_model(torch.cuda.mem_get_info()[0])`. KitError where none fits.
    """
    ways = [
        Suggestion(name, name == LLAMA2, shape.parameters, training_bytes(shape, name == LLAMA2))
        for name, shape in SHAPES.items()
        if lora or name != LLAMA2
    ]
    fitting = [way for way in ways if way.memory_bytes <= free_bytes]
    if not fitting:
        least = min(way.memory_bytes for way in ways)
        raise KitError(
            f"{readable_bytes(free_bytes)} are free and the smallest of these models needs "
            f"{readable_bytes(least)}: take the pocket model, or free some memory"
        )
    return max(fitting, key=lambda way: way.parameters)
