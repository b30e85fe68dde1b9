"""What all published tokenizers of pictures have in common: their tensors by name in, our class with them in place out;
pictures in, a few at a time and in 32 bits, codes out, and back.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
MAX_FEATURES = 2**26  # numbers of the widest layer at full size, for the pictures of one pass: 256 MB


def fill(build: Callable[[], nn.Module], theirs: Mapping[str, Tensor], names: Callable[[str], str]) -> nn.Module:
    """The module that `build` makes with the tensors of others in place, in 32 bits; `names` tells theirs from ours.

    Raises ValueError, by their names, unless these are just its tensors, in its shapes.
    """
    with torch.device("meta"):
        model = build()
    wanted = {names(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    if odd := sorted(set(wanted.items()) ^ set(found.items())):
        name = odd[0][0]
        raise ValueError(f"{name} is {found.get(name, 'missing')}, {wanted.get(name, 'not')} expected")
    for name, tensor in theirs.items():
        if tensor.dtype not in FLOATS:
            raise ValueError(
                f"{name} holds {str(tensor.dtype).removeprefix('torch.')}; 32 or 16 bit floats can be read"
            )
    model.load_state_dict({name: theirs[names(name)].float() for name in model.state_dict()}, assign=True)
    return model.eval().requires_grad_(False)


def shape(theirs: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor by which the sizes of a model are told. Raises ValueError when it is not there."""
    if name not in theirs or theirs[name].ndim != dimensions:
        found = tuple(theirs[name].shape) if name in theirs else "missing"
        raise ValueError(f"{name} is {found}, {dimensions} dimensions expected")
    return tuple(theirs[name].shape)


def in_parts(function: Callable[[Tensor], Tensor], batch: Tensor, features: int) -> Tensor:
    """`function` of a batch, for as many rows at a time as fit when each has so many `features`, always in 32 bits: codes are
    an argmax, and half precision would choose others.
    """
    with torch.autocast(batch.device.type, enabled=False):
        return torch.cat([function(rows) for rows in batch.split(max(1, MAX_FEATURES // features))])
