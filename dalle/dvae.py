"""The discrete VAE: pictures (b 3 s s) in [0, 1] -> codes (b n), n = grid * grid, and codes -> pictures in [0, 1].

Follows DALL·E's first stage (Ramesh et al. 2021, section 2.1) with two changes for small machines: the picture is cut
into patches first, so that no convolution runs at full resolution, and the codes may come from FSQ (see quantize.py).
"""

import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle.presets import DVAEConfig
from dalle.quantize import FSQ, Gumbel
from multimodal import checkpoint


class ResidualBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # the identity at first, so that depth costs no stability
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "b d y x"]) -> Float[Tensor, "b d y x"]:
        return x + self.second(F.relu(self.first(F.relu(x))))


class DVAE(nn.Module):
    def __init__(self, config: DVAEConfig):
        super().__init__()
        self.config = config
        pixels = 3 * config.patch**2
        self.into = nn.Conv2d(pixels, config.width, 1)
        self.encoder = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.depth)))
        gumbel = config.quantizer == "gumbel"
        self.quantizer = Gumbel(config.width, config.codes) if gumbel else FSQ(config.width, config.levels)
        self.decoder = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.depth)))
        self.out = nn.Conv2d(config.width, pixels, 1)
        self.to(memory_format=torch.channels_last)  # what convolutions on a CPU run fastest in

    def _resize(self, x: Float[Tensor, "b d y x"], side: int) -> Float[Tensor, "b d side side"]:
        if x.shape[-1] == side:
            return x
        # antialiased interpolation exists in fp32 only
        return F.interpolate(x.float(), (side, side), mode="bilinear", antialias=side < x.shape[-1])

    def features(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d g g"]:
        """What the quantizer sees."""
        p = self.config.patch
        x = self.into(rearrange(image * 2 - 1, "b c (y p) (x q) -> b (c p q) y x", p=p, q=p))
        return self._resize(self.encoder(x.contiguous(memory_format=torch.channels_last)), self.config.grid)

    def paint(self, quantised: Float[Tensor, "b d g g"]) -> Float[Tensor, "b 3 s s"]:
        """The picture of quantised features, not yet clamped to [0, 1]."""
        p = self.config.patch
        x = self.decoder(self._resize(quantised, self.config.size // p).contiguous(memory_format=torch.channels_last))
        return (rearrange(self.out(x), "b (c p q) y x -> b c (y p) (x q)", p=p, q=p).float() + 1) / 2

    def forward(
        self, image: Float[Tensor, "b 3 s s"], temperature: float = 1.0
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, ""]]:
        """The reconstruction, not clamped (a clamp would stop the gradient), and the KL in nats a picture."""
        quantised, kl = self.quantizer(self.features(image), temperature)
        return self.paint(quantised), kl

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Int[Tensor, "b n"]:
        return rearrange(self.quantizer.codes(self.features(image)), "b y x -> b (y x)")

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 s s"]:
        grid = rearrange(codes, "b (y x) -> b y x", y=self.config.grid)
        return self.paint(self.quantizer.lookup(grid)).clamp(0, 1)


def loss(
    model: nn.Module, image: Float[Tensor, "b 3 s s"], temperature: float, kl_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error a pixel and channel, plus kl_weight times the KL, likewise a pixel and channel."""
    reconstruction, kl = model(image, temperature)
    error = F.mse_loss(reconstruction, image)
    return error + kl_weight * kl / image[0].numel(), {"mse": error.detach(), "kl": kl.detach()}


def temperature_at(step: int, steps: int, final: float) -> float:
    """From 1 to `final` by a cosine over `steps`, then constant (Ramesh et al. 2021, appendix A.2)."""
    fraction = min(step / max(steps, 1), 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * fraction)) / 2


def psnr(image: Float[Tensor, "b 3 s s"], other: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio of each picture in dB; 100 for equal pictures."""
    return -10 * (image - other).square().mean((1, 2, 3)).clamp(min=1e-10).log10()


def save(directory: Path, model: DVAE, card: str | None = None, dtype: torch.dtype | None = None) -> None:
    checkpoint.write(directory, "dvae", {"model": asdict(model.config)}, model, card=card, dtype=dtype)


def load(directory: Path, device: torch.device | str = "cpu") -> DVAE:
    """A trained dVAE from its directory. Raises UserError with what is wrong."""

    def build():
        settings = dict(config["model"])
        return DVAE(DVAEConfig(**{**settings, "levels": tuple(settings["levels"])}))

    config = checkpoint.read_config(directory, "dvae")
    model = checkpoint.load(directory, build, device)
    return model.to(memory_format=torch.channels_last)
