"""The shared backbone: (b n d) features in, (b n d) features out; GPT, DALL·E and both CLIP towers are wrappers.

A block is x + attention(norm(x)), then x + mlp(norm(x)) (GPT-2, Radford et al. 2019), and one final norm; or norm(x +
attention(x)), then norm(x + mlp(x)), and none (GPT-1, Radford et al. 2018).
With a `side` the blocks see a picture at the end of the sequence by rows and columns (Ramesh et al. 2021, as Child et
al. 2019). What differs between the families is in `TransformerConfig`. Rotary positions: Su et al. 2021, with the pairs of a
head shared out over up to three coordinates, so that text (one), a grid (two) and text before a grid (three) rotate
by one rule. Value residual: Zhou et al. 2024. Legend: b batch, n positions here, m positions seen (cached and here),
h heads, d features, a coordinates of a position.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from multimodal.config import TransformerConfig

AROUND = 5  # places to each side that the last block of a sparse transformer sees: 11 x 11
MAX_SCORES = 2**25  # attention scores that may be kept for the backward pass: 64 MB a layer in bf16
FUSED_FROM = 128  # positions seen from which on torch's fused attention trains faster on a CPU in fp32


class KVCache:
    """Keys and values of the positions already seen: allocated once, written in place, never concatenated."""

    def __init__(self, config: TransformerConfig, batch: int, length: int, device="cpu", dtype=torch.float32):
        shape = (config.depth, 2, batch, config.heads, length, config.head_width)
        self.memory = torch.zeros(shape, device=device, dtype=dtype)
        self.capacity = length
        self.length = 0

    def extend(
        self, layer: int, keys: Float[Tensor, "b h n e"], values: Float[Tensor, "b h n e"]
    ) -> tuple[Float[Tensor, "b h m e"], Float[Tensor, "b h m e"]]:
        """Writes this layer's new keys and values after the `length` known ones; returns all of them."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, {end} were asked for.")
        stored = self.memory[layer]
        stored[0, :, :, self.length : end] = keys
        stored[1, :, :, self.length : end] = values
        return stored[0, :, :, :end], stored[1, :, :, :end]

    def select(self, rows: Shaped[Tensor, "r"]) -> "KVCache":
        """A cache with these rows of the batch, repeated as named: one prefill serves many samples."""
        copy = object.__new__(KVCache)
        copy.memory = self.memory[:, :, rows]
        copy.capacity, copy.length = self.capacity, self.length
        return copy


def rotation(
    positions: Shaped[Tensor, "b n a"], head_width: int
) -> tuple[Float[Tensor, "b 1 n p"], Float[Tensor, "b 1 n p"]]:
    """Cosine and sine for the p = head_width // 2 pairs; the pairs are dealt out evenly to the coordinates."""
    pairs, axes = head_width // 2, positions.shape[-1]
    angles = []
    for axis in range(axes):
        count = pairs // axes + (axis < pairs % axes)
        # base 10,000 as in the paper: the slowest pair turns once in about 60,000 positions
        speed = 10_000.0 ** -(torch.arange(count, device=positions.device, dtype=torch.float32) / count)
        angles.append(positions[..., axis, None].float() * speed)
    angle = rearrange(torch.cat(angles, dim=-1), "b n p -> b 1 n p")
    return angle.cos(), angle.sin()


def rotate(x: Float[Tensor, "*t b h n e"], cos: Tensor, sin: Tensor) -> Float[Tensor, "*t b h n e"]:
    """Turns the pair (i, i + e/2) of every head by its angle; an odd last feature stays."""
    pairs = cos.shape[-1]
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, first * sin + second * cos, rest), dim=-1)


def attention_mask(
    n: int, m: int, causal: bool, valid: Bool[Tensor, "b m"] | None, device, band: int = 0
) -> Bool[Tensor, "#b 1 n m"] | None:
    """True where query i (the last n of m positions) may look at key j; None where all may. With a `band` it looks at
    that many places back at most, itself included.

    A padded query sees itself, so that no row is empty (an empty row would be NaN).
    """
    here = torch.arange(m - n, m, device=device)[:, None]
    there = torch.arange(m, device=device)[None, :]
    mask = (there <= here)[None, None] if causal and n > 1 else None
    if band and m > band:
        near = (there > here - band)[None, None]
        mask = near if mask is None else mask & near
    if valid is not None:
        seen = rearrange(valid, "b m -> b 1 1 m") | (there == here)
        mask = seen if mask is None else mask & seen
    return mask


def picture_mask(
    kind: Literal["row", "column", "around"], n: int, m: int, prefix: int, side: int, device
) -> Bool[Tensor, "1 1 n m"]:
    """True where query i (the last n of m positions) may look at key j, when a picture of side x side positions in
    raster order follows the prefix. All see the prefix, as far as it is behind them; in the picture a position sees
    itself and, behind it, `row` the last `side` positions, up to the one above it; `column` those above it; `around`
    those at most 5 rows and columns away (Ramesh et al. 2021, figure 11).
    """
    here = torch.arange(m - n, m, device=device)[:, None]
    there = torch.arange(m, device=device)[None, :]
    if kind == "row":
        seen = here - there <= side
    elif kind == "column":
        seen = (here - there) % side == 0
    else:
        rows = (here - prefix) // side - (there - prefix) // side
        columns = (here - prefix) % side - (there - prefix) % side
        seen = (rows <= AROUND) & (columns.abs() <= AROUND)
    return ((there <= here) & (seen | (there < prefix)))[None, None]


def norm(config: TransformerConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.width, eps=1e-5, elementwise_affine=config.norm_gain)


def attend(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h m e"],
    v: Float[Tensor, "b h m e"],
    mask: Bool[Tensor, "#b 1 n m"] | None,
    causal: bool,
) -> Float[Tensor, "b h n e"]:
    """Softmax attention; `causal` is for n = m without a mask.

    torch's fused kernel, except while training small things on a CPU: there the plain products, whose n x m scores are kept
    while they are small, are faster in bf16 (measured with 41 to 288 positions: 1.5 to 4 times) and, of few positions, in fp32
    (1.6 times of 16 to 48; of 288 the fused kernel is 1.6 times as fast, and keeps no scores).
    """
    b, h, n, e = q.shape
    m = k.shape[2]
    # sizes last: while a model is exported without gradients they are symbols
    if q.device.type != "cpu" or not torch.is_grad_enabled() or (q.dtype == torch.float32 and m >= FUSED_FROM) or (
        b * h * n * m > MAX_SCORES
    ):  # fmt: skip
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    if causal:
        mask = attention_mask(n, n, True, None, q.device)
    q, keys, values = (rearrange(x, "b h n e -> (b h) n e") for x in (q, k, v))
    if mask is None:
        scores = torch.bmm(q * e**-0.5, keys.transpose(1, 2))
    else:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, float("-inf"))
        bias = rearrange(bias.expand(b, h, -1, -1), "b h n m -> (b h) n m") if len(mask) > 1 else bias[0]
        scores = torch.baddbmm(bias, q, keys.transpose(1, 2), alpha=e**-0.5)
    return rearrange(torch.bmm(scores.softmax(-1), values), "(b h) n e -> b h n e", b=b)


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        # separate maps, since Muon orthogonalises each matrix by itself
        self.query = nn.Linear(config.width, config.width, config.bias)
        self.key = nn.Linear(config.width, config.width, config.bias)
        self.value = nn.Linear(config.width, config.width, config.bias)
        self.fused: nn.Module | None = None
        self.out = nn.Linear(config.width, config.width, config.bias)
        # the first layer's values are what later layers mix in, so the first has nothing to mix
        self.value_residual = nn.Parameter(torch.zeros(())) if config.shortcuts and layer else None

    def fuse(self) -> None:
        """Query, key and value become one map, for reading only: a product less each, the same numbers."""
        maps = (self.query, self.key, self.value)
        self.fused = nn.Linear(self.config.width, 3 * self.config.width, self.config.bias, device="meta")
        self.fused.weight = nn.Parameter(torch.cat([f.weight.detach() for f in maps]), requires_grad=False)
        if self.config.bias:
            self.fused.bias = nn.Parameter(torch.cat([f.bias.detach() for f in maps]), requires_grad=False)
        del self.query, self.key, self.value

    def _products(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n ted"]:
        """Queries, keys and values by one product: x is read once, and so is the gradient that comes back to it."""
        if self.fused is not None:
            return self.fused(x)
        maps = (self.query, self.key, self.value)
        bias = torch.cat([f.bias for f in maps]) if self.config.bias else None
        return F.linear(x, torch.cat([f.weight for f in maps]), bias)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        turn: tuple[Tensor, Tensor] | None,
        mask: Bool[Tensor, "#b 1 n m"] | None,
        cache: KVCache | None,
        first_values: Float[Tensor, "b h n e"] | None,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b h n e"]]:
        y = rearrange(self._products(x), "b n (t h e) -> t b h n e", t=3, h=self.config.heads)
        qk, v = y[:2], y[2]  # what queries and keys go through alike, they go through together
        if self.config.qk_norm:
            qk = F.layer_norm(qk, qk.shape[-1:])
        if turn is not None:
            qk = rotate(qk, *turn)
        q, k = qk
        if self.value_residual is not None:
            v = v + self.value_residual.to(v.dtype) * first_values
        own = v
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
            q = q.to(k.dtype)  # the query is small, what is cached is not
        causal = self.config.causal and mask is None and q.shape[2] > 1
        y = attend(q, k, v, mask, causal).to(x.dtype)
        return self.out(rearrange(y, "b h n e -> b n (h e)")), own


class SquaredReLU(torch.autograd.Function):
    """relu(x) * relu(x). Kept for the backward pass is only the result, which the map that follows keeps anyway: half the
    memory of a feed-forward half, and fewer walks over it."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        y = F.relu(x)
        y = y.mul_(y)
        context.save_for_backward(y)
        return y

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        (y,) = context.saved_tensors
        if y.dtype == torch.float32:  # the root of exact zeros, which half of them are, takes a CPU ten times as long
            y = y.clamp_min(1e-30)
        return gradient * y.sqrt().mul_(2)


class MLP(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.width, config.mlp_ratio * config.width, config.bias)
        self.down = nn.Linear(config.mlp_ratio * config.width, config.width, config.bias)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        x = self.up(x)
        if self.activation == "gelu_tanh":
            x = F.gelu(x, approximate="tanh")
        elif self.activation == "gelu":
            x = F.gelu(x)
        elif self.activation == "quick_gelu":
            x = x * torch.sigmoid(1.702 * x)
        else:
            x = SquaredReLU.apply(x) if torch.is_grad_enabled() else F.relu(x).square_()
        return self.down(x)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.attention_norm, self.attention = norm(config), Attention(config, layer)
        self.mlp_norm, self.mlp = norm(config), MLP(config)
        self.embedding_shortcut = nn.Parameter(torch.zeros(())) if config.shortcuts and layer else None
        self.dropout = nn.Dropout(config.dropout)
        self.post_norm = config.post_norm

    def forward(self, x, x0, turn, mask, cache, first_values):
        if self.embedding_shortcut is not None:
            x = x + self.embedding_shortcut.to(x.dtype) * x0
        if self.post_norm:
            y, values = self.attention(x, turn, mask, cache, first_values)
            x = self.attention_norm(x + self.dropout(y))
            return self.mlp_norm(x + self.dropout(self.mlp(x))), values
        y, values = self.attention(self.attention_norm(x), turn, mask, cache, first_values)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.mlp_norm(x))), values


class Transformer(nn.Module):
    """A stack of blocks and a final norm. `config.shortcuts` weights start at 0: the plain network at first."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = nn.Identity() if config.post_norm else norm(config)
        self.initialise()

    def initialise(self) -> None:
        """gpt2: N(0, 0.02), outputs of a branch over sqrt(2 depth). modern: 1/sqrt(fan-in), outputs of a branch 0."""
        modern = not self.config.norm_gain
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue  # gains 1, biases and shortcut weights 0 as built; linear biases below
            branch_end = name.endswith(("attention.out.weight", "mlp.down.weight"))
            if modern:
                nn.init.zeros_(parameter) if branch_end else nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            else:
                std = 0.02 / math.sqrt(2 * self.config.depth) if branch_end else 0.02
                nn.init.normal_(parameter, std=std)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        positions: Shaped[Tensor, "#b n a"] | None = None,
        valid: Bool[Tensor, "b m"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`positions`: coordinates that rotate (needed when rotary_axes > 0; 0, 1, 2 ... by default for one axis).
        `valid`: False where a seen position is padding (cached ones included). With a `cache` the n positions follow
        the cached ones and are added to it."""
        n, past = x.shape[1], cache.length if cache is not None else 0
        turn = None
        if self.config.rotary_axes:
            if positions is None:
                if self.config.rotary_axes > 1:
                    raise ValueError(f"positions with {self.config.rotary_axes} coordinates are needed.")
                positions = rearrange(torch.arange(past, past + n, device=x.device), "n -> 1 n 1")
            if positions.shape[-1] != self.config.rotary_axes:
                raise ValueError(
                    f"positions have {positions.shape[-1]} coordinates, expected {self.config.rotary_axes}."
                )
            turn = rotation(positions, self.config.head_width)
        # with nothing cached and nothing padded the kernel's own causal triangle is right, and faster than a mask
        plain = valid is None and (past == 0 or n == 1 or not self.config.causal)
        mask = banded = None if plain else attention_mask(n, past + n, self.config.causal, valid, x.device)
        if 0 < self.config.band < past + n:
            banded = attention_mask(n, past + n, self.config.causal, valid, x.device, self.config.band)
        masks = [mask if layer % 2 else banded for layer in range(self.config.depth)]
        if self.config.side and past + n > self.config.prefix:
            if valid is not None:
                raise ValueError(
                    "a picture's positions are counted from the start: nothing before them may be padding."
                )
            masks = self._picture_masks(n, past + n, x.device)
        x0, first_values = x, None
        for block, mask in zip(self.blocks, masks, strict=True):
            x, values = block(x, x0, turn, mask, cache, first_values)
            first_values = values if first_values is None else first_values
        if cache is not None:
            cache.length += n
        return self.norm(x)

    def _picture_masks(self, n: int, m: int, device) -> list[Bool[Tensor, "1 1 n m"]]:
        """Blocks 2, 6, 10 ... see columns, the last one what is around, all others rows, as in the paper."""
        depth, prefix, side = self.config.depth, self.config.prefix, self.config.side
        kinds = ["column" if layer % 4 == 1 else "row" for layer in range(depth - 1)] + ["around"]
        masks = {kind: picture_mask(kind, n, m, prefix, side, device) for kind in set(kinds)}
        return [masks[kind] for kind in kinds]
