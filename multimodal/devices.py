"""Where and in which precision to compute: a device by name or by itself, bf16 where the machine does it natively."""

import contextlib
from functools import cache

import torch

from multimodal.cli import UserError


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
def native_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products are computed, not emulated: many CPUs do, many do not."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # oneDNN has bf16 matmuls from AVX512-BW on, but only AVX512-BF16 or AMX make them faster than fp32.
        with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
            flags = file.read(65_536)
            return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def autocast(device: torch.device, precision: str = "auto"):
    """A context for the forward pass: bf16 for `bf16`, or for `auto` where it is native; else nothing."""
    if precision == "bf16" or (precision == "auto" and native_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
