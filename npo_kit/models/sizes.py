"""Which model fits a device: parameters and memory of some models on the hub, by formula.

For a choice before anything is downloaded. Once a model is there, `npo_kit.trainer.estimates`
counts and measures instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from npo_kit.errors import KitError

ROWS, TOKENS = 16, 100  # of a training forward: 8 forget and 8 retain rows of TOFU, prompt included
ANSWER_TOKENS = 45  # of those, in an answer
RANK = 16  # of the adapters with LoRA
FULL, HALF = 4, 2  # bytes of a number in full and in half precision
NF4 = 0.52  # bytes of a weight in 4 bits, with its scales (arXiv 2305.14314, section 3)


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder, as its config.json gives them."""

    hidden: int
    layers: int
    inner: int  # of the MLP
    key_value: int  # width of keys and values, over all their heads
    vocabulary: int
    tied: bool  # whether the head is the embedding
    gated: bool = True  # MLP of three matrices, as Llama's, or of two
    biases: int = 0  # in a layer

    @property
    def linear(self) -> int:
        """Weights of the linear layers without the head."""
        attention = 2 * self.hidden * (self.hidden + self.key_value)
        return self.layers * (attention + (2 + self.gated) * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        norms = (2 * self.layers + 1) * self.hidden
        tables = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return self.linear + norms + tables + self.layers * self.biases

    @property
    def adapter(self) -> int:
        """Parameters of an adapter of RANK on every linear layer but the head."""
        attention = 4 * self.hidden + 2 * (self.hidden + self.key_value)
        mlp = (2 + self.gated) * (self.hidden + self.inner)
        return RANK * self.layers * (attention + mlp)


@dataclass(frozen=True)
class Suggestion:
    """A model and a way to train it that fits."""

    name: str  # on the hub
    lora: bool  # 4-bit weights and an adapter, with gradient checkpointing; else all weights
    parameters: int
    memory_bytes: int

    def __str__(self) -> str:
        how = "LoRA on 4-bit weights" if self.lora else "all weights"
        size = f"{self.parameters / 1e9:.2f} billion parameters"
        return f"{self.name} ({size}), {how}: about {self.memory_bytes / 1e9:.1f} GB"


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
    """Peak memory of an NPO+RT step on ROWS rows, in bytes, bf16 forwards.

    All weights: 4 bytes each for the weight, its gradient and each of AdamW's two moments, 4 for
    the frozen copy that judges generations, 2 for the weight in bf16. LoRA: 4 bits for the linear
    layers, 2 bytes for the rest, 16 for each weight of the adapter; checkpointing keeps the input
    of each layer, and one layer whole.
    """
    tokens = ROWS * TOKENS
    # kept in a layer for each token: norms, attention's and the MLP's inputs and outputs
    layer = HALF * (11 * shape.hidden + (3 + shape.gated) * shape.inner) + FULL * shape.hidden
    logits = ROWS * ANSWER_TOKENS * shape.vocabulary * (3 * FULL + HALF)
    if lora:
        rest = shape.parameters - shape.linear
        held = NF4 * shape.linear + HALF * rest + 4 * FULL * shape.adapter
        return round(held + tokens * (shape.layers * HALF * shape.hidden + layer) + logits)
    return (5 * FULL + HALF) * shape.parameters + tokens * shape.layers * layer + logits


def suggest_model(free_bytes: float, lora: bool = True) -> Suggestion:
    """The largest of SHAPES that trains within so much free memory, in which way.

    Llama-2-7b with LoRA on 4-bit weights, which `lora=False` leaves out, the others with all their
    weights. Such as `suggest_model(torch.cuda.mem_get_info()[0])`. Raises KitError where none fits.
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
            f"{free_bytes / 1e9:.1f} GB are free and the smallest of these models needs "
            f"{least / 1e9:.1f} GB: take the pocket model, or free some memory"
        )
    return max(fitting, key=lambda way: way.parameters)
