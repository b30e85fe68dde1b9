"""Where and in which precision to compute: a device by name or by itself, bf16 where the machine is faster with it."""

import contextlib
import ctypes
import time
from functools import cache

import torch

from multimodal.cli import UserError

# how it is found out whether bf16 is faster: products of matrices of so many rows, so often, and by how much it must be
SIDE, TURNS, GAIN = 512, 7, 1.2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def pick(device: str = "auto") -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UserError for a device this machine has not."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):
        has = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        has += ["mps"] * torch.backends.mps.is_available()
        raise UserError(f"--device {device}: this machine has {', '.join(has)}; or leave it at auto.") from None
    return found


@cache
def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products are faster than those of fp32. Many CPUs compute them natively, and of these some only
    half as fast: that is measured, once a process, in some hundredths of a second."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = ""
    if device.type == "cpu":
        with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
            flags = file.read(65_536)
    # oneDNN has bf16 matmuls from AVX512-BW on, but without these they are emulated
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        return False
    half, full = (torch.ones(SIDE, SIDE, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    taken: dict[torch.dtype, list[float]] = {half.dtype: [], full.dtype: []}
    with torch.inference_mode():
        for _ in range(TURNS):
            for matrix in (half, full):
                began = time.perf_counter()
                torch.mm(matrix, matrix)
                taken[matrix.dtype].append(time.perf_counter() - began)
    return GAIN * min(taken[half.dtype]) < min(taken[full.dtype])


def keep_memory(device: torch.device) -> None:
    """Lets this process keep what it frees for what it allocates next, on a CPU and where the C library is glibc.

    Each large tensor is otherwise new pages, which the kernel has to fill with zeros: a tenth of the time of a training step
    on a CPU (measured), for some more memory at the peak (7 % there)."""
    if device.type != "cpu":
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in M_MMAP_THRESHOLD, M_TRIM_THRESHOLD:
            mallopt(option, 2**31 - 1)


def precision(device: torch.device, asked: str = "auto") -> str:
    """What is computed in: fp32 or bf16, as asked for; for `auto` bf16 where it is faster."""
    if asked == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return asked


def autocast(device: torch.device, asked: str = "auto"):
    """A context for the forward pass: bf16 where `precision` says so, else nothing."""
    if precision(device, asked) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
