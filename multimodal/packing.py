"""Linear maps packed for reading: a model in, the same model out, faster on a CPU and no longer to be trained.

Writing one token after the other reads every weight once a token, so bytes and their order in memory are what it costs.
fp32 and bf16: the weights are laid out once as oneDNN's products want them, instead of at every product. int8: weights are
rounded to 255 levels, a scale a row (Dettmers et al. 2022, section 2, without the outliers apart), and what comes in is
rounded likewise, a scale a position: no row depends on what it is computed beside. Elsewhere than on a CPU, or where torch
was built without these products, maps stay as they are in fp32 and bf16, and small ones do in fp32; queries, keys and values
are one map all the same.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimodal.cli import UserError

PRECISIONS = ("fp32", "bf16", "int8")
SMALL = 2**19  # weights: of fewer in fp32 a call of the packed product costs more than its layout saves
# without these instructions the products of 8-bit numbers run over in pairs: then activations take 7 bits
WIDE = ("avx512_vnni", "avx_vnni", "amx_int8")


class Packed(nn.Module):
    """A linear map in oneDNN's own layout; or as it lies, where the `shared` weight stays in memory for something else: in
    fp32 that is as fast to one part in twenty."""

    def __init__(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None, shared: bool = False):
        super().__init__()
        self.shape = tuple(weight.shape)
        weight = weight.detach().contiguous()
        if not shared or weight.dtype != torch.float32:
            # the layout is that for few rows, which is what writing has
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        self.packed = weight
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Rounded(nn.Module):
    """A linear map with weights of 8 bits."""

    def __init__(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None, levels: int):
        super().__init__()
        self.shape, self.levels = tuple(weight.shape), levels
        weight = weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12).double() / 127
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch would rather have this in a package of its own, which is no dependency
            rounded = torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(self.levels)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(x / scale, 1.0, 128, self.packed)
        y = y.mul_(scale)
        return y if self.bias is None else y.add_(self.bias)


def pack(model: nn.Module, precision: str) -> nn.Module:
    """Packs the linear maps of `model` in place, each giving up its old memory, those of attention as one; returns it.

    `precision` is fp32, bf16 (everything is computed in it) or int8 (norms and attention stay fp32).
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision} is unknown: allowed are {', '.join(PRECISIONS)}.")
    device = next(model.parameters()).device
    if precision == "int8" and (device.type != "cpu" or "x86" not in torch.backends.quantized.supported_engines):
        raise UserError(f"precision int8 is for x86 processors, and this is computed on {device}: take fp32 or bf16.")
    model.eval().requires_grad_(False).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    for module in list(model.modules()):
        if hasattr(module, "fuse"):
            module.fuse()
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return model
    make = Packed if precision != "int8" else lambda w, b, shared=False: Rounded(w, b, levels())
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and (precision != "fp32" or child.weight.numel() >= SMALL):
                setattr(module, name, make(child.weight, child.bias))
    if hasattr(model, "pack_head"):
        model.pack_head(make)
    return model


def levels() -> int:
    """Largest activation that the machine's products of 8-bit numbers take."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read(65_536)
    except OSError:
        return 63
    return 127 if any(flag in flags for flag in WIDE) else 63
