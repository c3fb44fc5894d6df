"""Processes that train one model together: how they exchange values and share the model.

A launcher (`accelerate launch`, `torchrun`) starts them, each with the same arguments; with a
single process everything here is trivial. All processes must make the same collective calls in the
same order.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    parse_flag_from_env,
)
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from npo_kit.errors import KitError
from npo_kit.processes import launched

Value = TypeVar("Value")


# --- exchange -----------------------------------------------------------------------------------


def rank() -> int:
    """Return the number of this process; 0 is the main one."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Value) -> list[Value]:
    """Return each process's value, in order; values are picklable, their tensors on the CPU."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def my_share(items: Sequence[Value]) -> Sequence[Value]:
    """Return every n-th item, where n processes share the work, from this one's number on."""
    return items[rank() :: count()]


def whole(share: Sequence[Value]) -> list[Value]:
    """Join the processes' shares of a list, or what they made of them, in the list's order."""
    shares = gather(share)
    result: list[Any] = [None] * sum(map(len, shares))
    for number, part in enumerate(shares):
        result[number :: len(shares)] = part
    return result


def in_main(work: Callable[[], Value]) -> Value | None:
    """Do some work in the main process and return None in others. All raise its KitError."""
    result, problem = None, None
    if rank() == 0:
        try:
            result = work()
        except KitError as error:
            problem = error
    problem = gather(problem)[0]
    if problem:
        raise problem
    return result


# --- start --------------------------------------------------------------------------------------


def join(device: torch.device) -> None:
    """Connect this process to the others that the launcher started, if it started several."""
    if launched()[1] > 1:
        state = PartialState(cpu=device.type == "cpu")
        if state.num_processes == 1:
            raise KitError(
                f"several processes were started, which {device} cannot serve: start one, or "
                "choose the device cpu"
            )


def start_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Return an accelerator for one run, clearing the process-wide state of an earlier one.

    Each of several processes holds a copy of the model (DDP) or, if accelerate's configuration asks
    for FSDP, a part. Raises KitError for ways of training that the kit does not know.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    join(device)
    # every process has the whole model already; accelerate would read it in the main one only
    plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False) if in_parts() else None
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="fp16" if precision == "fp16" else "no",
        fsdp_plugin=plugin,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if plugin and device.type == "cpu":  # FSDP works there, but accelerate leaves it out
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    if accelerator.distributed_type.value not in ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"):
        raise KitError(
            f"the kit trains with DDP or FSDP, not with {accelerator.distributed_type.value}: "
            "change accelerate's configuration"
        )
    return accelerator


def refuse_unlike(model: nn.Module) -> None:
    """Raise KitError unless all processes start from the same weights."""
    weights = [p for p in model.parameters() if p.is_floating_point()]
    norms = gather(norm(weights).item()) if count() > 1 else []
    if len(set(norms)) > 1:
        raise KitError(
            f"the processes start from models of different norms ({', '.join(map(str, norms))}): "
            "load the same weights in each"
        )


# --- a model in parts ---------------------------------------------------------------------------


def in_parts() -> bool:
    """Tell whether accelerate is configured for FSDP: each process is to hold a part of the model.

    Raises KitError for an FSDP that the kit does not know.
    """
    if launched()[1] == 1 or not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2" or parse_flag_from_env("FSDP_OFFLOAD_PARAMS"):
        raise KitError(
            "of FSDP the kit knows version 2 without offloading: set fsdp_version: 2 and "
            "fsdp_offload_params: false in accelerate's configuration"
        )
    return True


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all tensors together, not finite if a number in them is not."""
    return full(nn.utils.get_total_norm([tensor.detach() for tensor in tensors]))


def full(value: Tensor) -> Tensor:
    """Return the complete tensor, of which each process may hold a part."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def outline(model: nn.Module) -> nn.Module:
    """Copy a model without its weights, for `filled`."""
    memo = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def filled(empty: nn.Module, sharded: nn.Module) -> nn.Module:
    """Copy an `outline` and give it the weights of all parts, whole in each process."""
    model = copy.deepcopy(empty)
    options = StateDictOptions(full_state_dict=True)
    model.load_state_dict(get_model_state_dict(sharded, options=options), assign=True)
    return model


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """Return all weights of a model in parts, in the main process; None for a model in one."""
    if not isinstance(model, FSDPModule):
        return None
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(model, options=options))
