"""The discrete VAE: pictures (b 3 s s) in [0, 1] -> codes (b n), n = grid * grid, and codes -> pictures in [0, 1].

Follows DALL·E's first stage (Ramesh et al. 2021, section 2.1 and appendix A) with two changes for small machines: the
picture is cut into patches first, so that no convolution runs at full resolution, and the codes may come from FSQ (see
quantize.py). What is painted before it is a picture are k channels: 3, the picture itself, or 6, mu and ln b of a
logit-Laplace distribution of every pixel.
"""

import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalle import openai
from dalle.presets import DVAEConfig
from dalle.quantize import FSQ, Gumbel, relax
from multimodal import checkpoint


def picture(painted: Float[Tensor, "b k s s"]) -> Float[Tensor, "b 3 s s"]:
    """The picture in [0, 1] of what is painted: of three channels themselves, of six the median of their distribution."""
    if painted.shape[1] == 6:
        return openai.unmap_pixels(painted[:, :3].sigmoid())
    return painted.clamp(0, 1)


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
        painted = 2 * pixels if config.likelihood == "logit_laplace" else pixels
        self.into = nn.Conv2d(pixels, config.width, 1)
        self.encoder = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.depth)))
        gumbel = config.quantizer == "gumbel"
        self.quantizer = Gumbel(config.width, config.codes) if gumbel else FSQ(config.width, config.levels)
        self.decoder = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.depth)))
        self.out = nn.Conv2d(config.width, painted, 1)
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

    def paint(self, quantised: Float[Tensor, "b d g g"]) -> Float[Tensor, "b k s s"]:
        """What `picture` makes a picture of, from quantised features."""
        p = self.config.patch
        x = self.decoder(self._resize(quantised, self.config.size // p).contiguous(memory_format=torch.channels_last))
        x = rearrange(self.out(x), "b (c p q) y x -> b c (y p) (x q)", p=p, q=p).float()
        return x if self.config.likelihood == "logit_laplace" else (x + 1) / 2

    def forward(
        self, image: Float[Tensor, "b 3 s s"], temperature: float = 1.0, straight_through: bool = False
    ) -> tuple[Float[Tensor, "b k s s"], Float[Tensor, ""]]:
        """What is painted from relaxed codes, and the KL in nats a picture."""
        quantised, kl = self.quantizer(self.features(image), temperature, straight_through)
        return self.paint(quantised), kl

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Int[Tensor, "b n"]:
        return rearrange(self.quantizer.codes(self.features(image)), "b y x -> b (y x)")

    def decode(self, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b 3 s s"]:
        grid = rearrange(codes, "b (y x) -> b y x", y=self.config.grid)
        return picture(self.paint(self.quantizer.lookup(grid)))


def logit_laplace(x: Float[Tensor, "*b"], mu: Float[Tensor, "*b"], ln_b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Density at x in (0, 1) of a number whose logit is Laplace distributed about mu with width b, as its -ln in nats."""
    return math.log(2) + ln_b + x.log() + (1 - x).log() + (x.logit() - mu).abs() * (-ln_b).exp()


def loss(
    model: nn.Module,
    image: Float[Tensor, "b 3 s s"],
    temperature: float,
    kl_weight: float,
    straight_through: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """-ln of the likelihood a pixel and channel plus kl_weight times the KL, likewise a pixel and channel.

    Of three painted channels it is the squared error, of six the logit-Laplace distribution's.
    """
    painted, kl = model(image, temperature, straight_through)
    if painted.shape[1] == 6:
        mu, ln_b = painted.chunk(2, dim=1)
        error, squared = logit_laplace(openai.map_pixels(image), mu, ln_b).mean(), F.mse_loss(picture(painted), image)
    else:
        error = squared = F.mse_loss(painted, image)
    if kl_weight:  # without it no backward pass through all logits once more
        error = error + kl_weight * kl / image[0].numel()
    return error, {"mse": squared.detach(), "kl": kl.detach()}


def annealed(done: int | float, over: int | float, first: float, last: float) -> float:
    """From `first` to `last` by a cosine until `over` is `done`, then constant (Ramesh et al. 2021, appendix A.2)."""
    part = min(done / over, 1.0) if over else 1.0
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


def temperature_at(done: int | float, over: int | float, final: float) -> float:
    """Of the relaxed codes: from 1 to `final`."""
    return annealed(done, over, 1.0, final)


class Published(nn.Module):
    """The published dVAE, `network`, with the forward pass that its training needs."""

    def __init__(self, config: DVAEConfig):
        super().__init__()
        sizes = {"width": config.width, "blocks": config.depth, "vocabulary": config.codes}
        self.network = openai.OpenAIDVAE(openai.OpenAIConfig(config.size, **sizes))
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d):  # as OpenAI's classes begin
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)

    def forward(
        self, image: Float[Tensor, "b 3 s s"], temperature: float = 1.0, straight_through: bool = False
    ) -> tuple[Float[Tensor, "b 6 s s"], Float[Tensor, ""]]:
        """What is painted from relaxed codes, and the KL in nats a picture."""
        decoder, pixels = self.network.decoder, openai.map_pixels(image).contiguous(memory_format=torch.channels_last)
        soft, kl = relax(self.network.encoder(pixels), temperature, straight_through)
        with torch.autocast(soft.device.type, enabled=False):
            x = decoder.input(rearrange(soft, "b y x v -> b v y x"))
        return decoder.paint(x).float(), kl


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
