"""The device and the precision that suit a model."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from npo_kit.models.errors import ModelError
from npo_kit.processes import launched

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """The device and precision in which a model computes, and the reason."""

    device: torch.device
    precision: str  # of autocast over fp32 weights: fp32 (none), bf16, or fp16 with loss scaling
    reason: str

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}: {self.reason}"


def choose_placement(
    device: str | torch.device = "auto",
    precision: str = "auto",
    weights: torch.dtype = torch.float32,
) -> Placement:
    """Choose device and precision for training, or take those asked for, and say why.

    CPU and Apple's MPS: fp32, or bf16 where the `weights` are. A CUDA device: bf16 where it is
    native, else fp16 with loss scaling (a T4). Raises ModelError for an unknown precision or an
    absent device.
    """
    if device != "auto":
        kind, why_device = device, "device as asked"
    elif torch.cuda.is_available():
        kind, why_device = "cuda", "a GPU is there"
    elif torch.backends.mps.is_available():
        kind, why_device = "mps", "Apple's GPU is there"
    else:
        kind, why_device = "cpu", "no GPU"
    if kind == "cuda" and launched()[1] > 1:
        kind = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # each process has a GPU of its own
    try:
        chosen = torch.device(kind)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device {str(device)!r} is not available ({str(error).splitlines()[0][:80]}): "
            "choose cpu, cuda, mps or auto"
        ) from None
    if precision == "auto":
        precision, why = _choose_precision(chosen, weights)
    elif precision in PRECISIONS:
        why = "precision as asked"
    else:
        raise ModelError(f"unknown precision {precision!r}: choose auto, {', '.join(PRECISIONS)}")
    if precision == "fp16" and chosen.type != "cuda":
        raise ModelError(f"fp16 needs a CUDA device, this is {chosen}: choose fp32 or bf16")
    return Placement(chosen, precision, f"{why_device}, {why}")


def _choose_precision(device: torch.device, weights: torch.dtype) -> tuple[str, str]:
    if device.type != "cuda" and weights == torch.bfloat16:
        return "bf16", "bf16 as the weights are"
    if device.type != "cuda":
        return "fp32", "fp32 is exact and fast enough there"
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "bf16 is native there"
    return "fp16", "no native bf16 there, so fp16 with loss scaling"
