"""Layouts of rows that a model computes correctly: judged by its layers, then tested on rows.

An attention mask and position ids keep apart rows packed in one line, and answers laid out as a
tree. That works where every layer is attention that takes both and sees the whole row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

Forward = Callable[[], torch.Tensor]
TOLERANCE = 1e-4  # nats per token between two layouts of the same answer, in fp32 or wider
HALF_TOLERANCE = 0.05  # the same in fewer bits: two layouts of SmolLM2 in bf16 are up to 0.03 apart

UNFIT = (  # errors that a forward raises when it does not take a layout
    *(RuntimeError, ValueError, TypeError, IndexError),
    *(AttributeError, AssertionError, NotImplementedError),
)
_STATES = {"linear_attention", "conv", "mamba", "recurrent", "hybrid"}  # layers that carry a state
_WINDOWS = {  # kind of layer -> the setting for the number of tokens that it sees
    "sliding_attention": "sliding_window",
    "local_attention": "sliding_window",
    "chunked_attention": "attention_chunk_size",
}
_proved: WeakKeyDictionary[nn.Module, dict[tuple[str, str], tuple[int, bool]]] = WeakKeyDictionary()


def is_recurrent(model: nn.Module) -> bool:
    """Tell whether some layer carries a state from token to token: a recurrence or a convolution.

    Such layers also read what precedes a row: another row, or padding.
    """
    module: Any = getattr(model, "module", model)
    config = module.config.get_text_config()
    return bool(_STATES & set(getattr(config, "layer_types", None) or ())) or any(
        isinstance(module, nn.Conv1d) or getattr(module, "_is_stateful", False)
        for module in model.modules()
    )


def reach(model: nn.Module) -> float:
    """Return the longest row, in tokens, that may share a line with others; 0: none may.

    Infinite for full attention, else the smallest window, which hides nothing of a row within it. 0
    for recurrent layers and for ALiBi, which counts distances along the line.
    """
    module: Any = getattr(model, "module", model)
    config = module.config.get_text_config()
    mpt = getattr(config, "attn_config", None)
    alibi = getattr(config, "alibi", False) or getattr(mpt, "alibi", False)
    if is_recurrent(model) or alibi or "bloom" in config.model_type:
        return 0
    if kinds := getattr(config, "layer_types", None):
        others = {*kinds} - {"full_attention"}
        windows = [getattr(config, _WINDOWS.get(kind, ""), None) or 0 for kind in others]
        return min(windows, default=math.inf)
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        return config.window_size
    sliding = getattr(config, "sliding_window", None)
    return sliding if sliding and getattr(config, "use_sliding_window", True) else math.inf


def proved(
    model: PreTrainedModel, layout: str, longest: int, laid_out: Forward, alone: Forward
) -> bool:
    """Tell whether rows may share a line: the model's layers allow it, and then it `agrees`."""
    attention = getattr(model, "module", model).config._attn_implementation
    if attention not in ("sdpa", "eager") or longest > reach(model):
        return False
    return agrees(model, layout, longest, laid_out, alone)


def agrees(
    model: PreTrainedModel,
    layout: str,
    longest: int,
    laid_out: Forward,
    alone: Forward,
    half: float = HALF_TOLERANCE,
) -> bool:
    """Test whether a model gives rows in a `layout` the same log-probs as each row alone.

    `laid_out`, called first, and `alone` return the mean log-probs of the same answers in nats per
    token, which may differ by TOLERANCE, or by `half` if the weights have fewer bits than fp32. A
    test on rows as long as the `longest`, or longer, is remembered and not repeated.
    """
    inner = getattr(model, "module", model)
    known, key = _proved.setdefault(inner, {}), (layout, inner.config._attn_implementation)
    length, holds = known.get(key, (0, True))
    if length < longest and holds:
        tolerance = TOLERANCE if is_exact(inner) else half
        with torch.no_grad(), torch.autocast(inner.device.type, enabled=False):
            if holds := (together := tried(laid_out)) is not None:
                pair = together.cpu().double(), alone().cpu().double()
                holds = torch.allclose(*pair, 0, tolerance, equal_nan=True)  # nan: it diverged
        known[key] = longest, holds
    return holds


def is_exact(model: PreTrainedModel) -> bool:
    """Tell whether a model's weights have fp32's bits or more."""
    return model.dtype in (torch.float32, torch.float64) and not is_quantized(model)


def is_quantized(model: PreTrainedModel) -> bool:
    """Tell whether transformers holds a model's weights in 4 or 8 bits."""
    return getattr(model, "is_quantized", False)


def tried(work: Forward) -> torch.Tensor | None:
    """Return the result of a forward, None if the model does not take it.

    Running out of memory says nothing about the model, and is raised.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        raise
    except UNFIT as error:
        if "memory" in str(error):  # of the CPU
            raise
        return None
