"""The processes that train one model together: what they tell each other, how the model is shared.

A launcher (`accelerate launch`, `torchrun`) starts them, each with the same arguments; where it
started one only, everything here is a matter of course. Every process must come to each call that
several take part in, in the same order.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
)
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from npo_kit.errors import KitError
from npo_kit.processes import launched

Value = TypeVar("Value")
_KINDS = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.FSDP,
)


# --- what they tell each other ------------------------------------------------------------------


def rank() -> int:
    """The number of this process, from 0, which is the main one."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Value) -> list[Value]:
    """The value of each process, in their order; it must be picklable, its tensors on the CPU."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def everywhere(holds: bool) -> bool:
    """Tell whether something holds in every process."""
    return all(gather(bool(holds)))


def my_share(items: Sequence[Value]) -> Sequence[Value]:
    """Return every n-th item of a list, of n processes: this one's part of the work."""
    return items[rank() :: count()]


def whole(share: Sequence[Value]) -> list[Value]:
    """The list of which each process has its share, or what it made of it, in order."""
    shares = gather(share)
    result: list[Any] = [None] * sum(map(len, shares))
    for number, part in enumerate(shares):
        result[number :: len(shares)] = part
    return result


def in_main(work: Callable[[], Value]) -> Value | None:
    """Do some work in the main process; returns None in others. All raise its KitError."""
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
    """Meet the processes that the launcher started, if it started several."""
    if launched()[1] > 1:
        state = PartialState(cpu=device.type == "cpu")
        if state.num_processes == 1:
            raise KitError(
                f"several processes were started, which {device} cannot serve: start one, or "
                "choose the device cpu"
            )


def start_accelerator(device: torch.device, precision: str) -> Accelerator:
    """An accelerator for one run; its process-wide state of an earlier run is cleared.

    Several processes hold a copy of the model each (DDP) or, where accelerate's configuration asks
    for FSDP, a part. KitError for ways of training that the kit does not know.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    join(device)
    # every process comes with the whole model, where accelerate would read it in the main one only
    plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False) if in_parts() else None
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="fp16" if precision == "fp16" else "no",
        fsdp_plugin=plugin,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if plugin and device.type == "cpu":  # where accelerate leaves FSDP out, and torch does not
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    if accelerator.distributed_type not in _KINDS:
        raise KitError(
            f"the kit trains with DDP or FSDP, not with {accelerator.distributed_type.value}: "
            "change accelerate's configuration"
        )
    return accelerator


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def refuse_unlike(model: nn.Module) -> None:
    """KitError unless all processes start from the same weights."""
    weights = [p for p in model.parameters() if p.is_floating_point()]
    norms = gather(norm(weights).item()) if count() > 1 else []
    if len(set(norms)) > 1:
        raise KitError(
            f"the processes start from models of different norms ({', '.join(map(str, norms))}): "
            "load the same weights in each"
        )


# --- a model in parts ---------------------------------------------------------------------------


def in_parts() -> bool:
    """Tell whether each process is to hold a part of the model: accelerate is configured for FSDP.

    KitError for an FSDP that the kit does not know.
    """
    if launched()[1] == 1 or not _asked("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2" or _asked("FSDP_OFFLOAD_PARAMS"):
        raise KitError(
            "of FSDP the kit knows version 2 without offloading: set fsdp_version: 2 and "
            "fsdp_offload_params: false in accelerate's configuration"
        )
    return True


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all together, not finite if a number in them is not."""
    return full(nn.utils.get_total_norm([tensor.detach() for tensor in tensors]))


def full(value: Tensor) -> Tensor:
    """A tensor of which each process may hold a part, complete in all of them."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def outline(model: nn.Module) -> nn.Module:
    """A copy of a model without its weights, to be `filled`."""
    memo = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def filled(empty: nn.Module, sharded: nn.Module) -> nn.Module:
    """The outline of a model with the weights of the parts, whole in each process."""
    model = copy.deepcopy(empty)
    options = StateDictOptions(full_state_dict=True)
    model.load_state_dict(get_model_state_dict(sharded, options=options), assign=True)
    return model


def whole_weights(model: nn.Module) -> dict[str, Tensor] | None:
    """The weights of a model in parts, in the main process; None where it holds them all itself."""
    if not isinstance(model, FSDPModule):
        return None
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model, options=options)
