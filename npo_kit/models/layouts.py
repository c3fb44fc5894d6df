"""Which layouts of several rows a model computes right: decided by its layers, then proved on rows.

Rows packed in one line, and answers laid out as a tree, are kept apart by an attention mask and by
position ids. That works where every layer is attention that sees the whole row and takes both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

TOLERANCE = 1e-4  # nats per token between two layouts of the same answer, in fp32 or wider
HALF_TOLERANCE = 0.02  # the same where the weights have fewer bits, and rounding is most of it

_WINDOWS = {  # kind of layer -> the setting that says how many tokens it sees
    "sliding_attention": "sliding_window",
    "local_attention": "sliding_window",
    "chunked_attention": "attention_chunk_size",
}
_proved: WeakKeyDictionary[nn.Module, dict[tuple[str, str], tuple[int, bool]]] = WeakKeyDictionary()


def is_recurrent(model: nn.Module) -> bool:
    """Whether some layer carries a state from token to token: a recurrence or a convolution.

    Such layers see what stands before a row, be it another row or padding.
    """
    return any(
        isinstance(module, nn.Conv1d) or getattr(module, "_is_stateful", False)
        for module in model.modules()
    )


def reach(model: nn.Module) -> float:
    """Return how many tokens a row may have so that rows may share a line; 0: none may.

    Infinite for full attention; the window where a layer has one, since within it a window hides
    nothing. 0 for recurrent layers and for ALiBi, which counts distances along the line.
    """
    config = getattr(model, "module", model).config.get_text_config()
    if is_recurrent(model) or _has_alibi(config):
        return 0
    if kinds := getattr(config, "layer_types", None):
        return min(_window(config, kind) for kind in kinds)
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        return config.window_size
    sliding = getattr(config, "sliding_window", None)
    return sliding if sliding and getattr(config, "use_sliding_window", True) else math.inf


def _window(config, kind: str) -> float:
    if kind == "full_attention":
        return math.inf
    return getattr(config, _WINDOWS.get(kind, ""), None) or 0


def _has_alibi(config) -> bool:
    attention = getattr(config, "attn_config", None)  # MPT
    named = "bloom" in config.model_type or getattr(attention, "alibi", False)
    return bool(named or getattr(config, "alibi", False))


def proved(
    model: PreTrainedModel,
    layout: str,
    longest: int,
    laid_out: Callable[[], torch.Tensor],
    alone: Callable[[], torch.Tensor],
    tokens: Sequence[int],
) -> bool:
    """Whether a model says the same of rows in a `layout` as of each alone, within TOLERANCE.

    `laid_out` and `alone` give the log-probs of the same answers, which have so many `tokens`;
    `longest` is the length of the longest row. What was proved on rows of this length or longer is
    remembered. Running out of memory is no answer and is raised.
    """
    inner = getattr(model, "module", model)
    attention = inner.config._attn_implementation
    if attention not in ("sdpa", "eager") or longest > reach(model):
        return False
    known = _proved.setdefault(inner, {})
    length, agrees = known.get((layout, attention), (0, True))
    if length < longest and agrees:
        agrees = _agrees(inner, laid_out, alone, tokens)
        known[layout, attention] = longest, agrees
    return agrees


@torch.no_grad()
def _agrees(
    model: PreTrainedModel,
    laid_out: Callable[[], torch.Tensor],
    alone: Callable[[], torch.Tensor],
    tokens: Sequence[int],
) -> bool:
    exact = model.dtype in (torch.float32, torch.float64)
    exact = exact and not getattr(model, "is_quantized", False)
    with torch.autocast(model.device.type, enabled=False):
        try:
            together = laid_out()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if "memory" in str(error):  # of the CPU
                raise
            return False  # its forward takes no 4-D mask or no position ids
        gaps = (together - alone()).abs() / torch.tensor(tokens, device=together.device)
    return bool(gaps.max() <= (TOLERANCE if exact else HALF_TOLERANCE))
