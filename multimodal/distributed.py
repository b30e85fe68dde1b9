"""Several processes that train one model, started by `torchrun --nproc-per-node N -m clip.train ...`.

Each has its share of every batch; gradients are averaged (DistributedDataParallel), process 0 alone writes. Without
torchrun there is one process and everything here does nothing. `gather` lets a loss compare with the pairs of all
processes, with gradient: what flows back to a row is the sum over all processes that used it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

from multimodal import devices


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def together(device: str = "auto") -> Iterator[str]:
    """Meets the other processes that torchrun has started, if it has; gives the device of this one, and parts at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield device
        return
    where = devices.pick(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield str(where)
    finally:
        dist.destroy_process_group()


@contextmanager
def folder(run: Path, state: str) -> Iterator[Path]:
    """The run directory, of process 0; of any other one that nobody keeps, in which the `state` of that run can be read."""
    if rank() == 0:
        yield run
        return
    with tempfile.TemporaryDirectory() as aside:
        if (run / state).exists():
            link = Path(aside) / state
            link.parent.mkdir(parents=True)
            link.symlink_to((run / state).resolve())
        yield Path(aside)


def wait() -> None:
    """Until all processes have come here."""
    if world() > 1:
        dist.barrier()


def wrap(model: nn.Module) -> nn.Module:
    """The model, whose gradients are then the mean over the processes; its weights are those of process 0. It must see
    one forward pass for one backward pass."""
    return nn.parallel.DistributedDataParallel(model) if world() > 1 else model


def mean(value: Shaped[Tensor, ""]) -> Shaped[Tensor, ""]:
    """Of a number over the processes, without gradient."""
    if world() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world()


def first(value: float) -> float:
    """The number as process 0 has it: clocks differ, and all must decide alike."""
    if world() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=_where())
    dist.broadcast(shared, 0)
    return shared.item()


def anywhere(true: bool) -> bool:
    """Whether it is true in any process."""
    if world() == 1:
        return true
    shared = torch.tensor(int(true), device=_where())
    dist.all_reduce(shared)
    return bool(shared.item())


def _where() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def gather(rows: Shaped[Tensor, "b *d"]) -> Shaped[Tensor, "a *d"]:
    """The rows of all processes, process by process; each must bring as many."""
    return _Gather.apply(rows) if world() > 1 else rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(world())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(world())[rank()]
