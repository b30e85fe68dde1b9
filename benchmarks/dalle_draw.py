"""Drawing beside DALLE-pytorch: random weights, equal shapes, in one process and in turns. Seconds a drawing.

    git clone https://github.com/lucidrains/DALLE-pytorch       (and what benchmarks/peers.py names)
    python benchmarks/dalle_draw.py --peer DALLE-pytorch
    python benchmarks/dalle_draw.py --peer DALLE-pytorch --real

Sides: DALLE-pytorch as it ships (with cond_scale 1 its cache is dropped, so every code is a forward pass of all before it);
its own cache, patched so that it is used; ours, one position a code as there. With guidance it computes two passes a code, whose
result is wrong (its caption is zeroed for both, or both share a cache); it is timed all the same. Width, depth and parameters are
equal; ours paints the pictures too, as theirs does. fp32 on both sides, and ours in bf16 besides; and ours as our models are
trained, where a position of the transformer stands for a block of 4x4 codes and a small network paints them.
The floor is what a side's weights take to be read, once a code (or a block) for all drawings, at the speed that this machine
reads memory (measured here).
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from multimodal import cards

SMALL = {"width": 256, "depth": 8, "text": 32, "words": 1000, "codes": 1024, "grid": 16, "pixels": 64}
REAL = {"width": 512, "depth": 12, "text": 256, "words": 10_000, "codes": 1024, "grid": 16, "pixels": 128}
BLOCK = 4  # side of the blocks of codes, as in the bundled model
LARGE = REAL | {"grid": 32, "pixels": 256}


class Words:
    """A tokenizer's outside for a model of random weights."""

    end = 0

    def __init__(self, length: int):
        self.length = length

    def encode(self, text: str) -> list[int]:
        return list(range(1, self.length))


def blocks_of(sizes: dict):
    """Our blocks of the same width and depth; their gated feed-forward half has as many weights as ours at 6 widths, of
    which a sixth goes to what paints codes."""
    from multimodal.config import modern

    return replace(modern(sizes["width"], sizes["depth"], sizes["width"] // 64, rotary_axes=3), mlp_ratio=5)


def ours(sizes: dict, precision: str = "fp32", block: int = 1):
    """fp32 is as `dalle.sample` computes it; bf16 with packed weights."""
    from dalle.drawing import paint, sample_codes
    from dalle.dvae import DVAE
    from dalle.model import DALLE, Artist
    from dalle.presets import DALLEConfig, DVAEConfig
    from multimodal.packing import pack
    from multimodal.sampling import Sampling

    torch.manual_seed(0)
    config = DALLEConfig(blocks_of(sizes), sizes["words"], sizes["text"], sizes["grid"], sizes["codes"], block)
    picture = DVAEConfig(
        size=sizes["pixels"], patch=sizes["pixels"] // sizes["grid"], grid=sizes["grid"], levels=(4, 4, 8, 8)
    )
    network = pack(DALLE(config), precision)
    artist = Artist(network, DVAE(picture).eval(), Words(sizes["text"]))

    def draw(count: int, guidance: float) -> None:
        *_, canvas = sample_codes(artist, ["x"], list(range(count)), guidance, Sampling(1.0, sizes["codes"] // 2))
        assert paint(artist, canvas).shape[0] == count

    network = DALLE(config)
    total = sum(p.numel() for p in network.parameters())
    painting = sum(p.numel() for module in (network.painter, network.code_head) for p in module.parameters())
    return draw, total, (total - painting) * config.blocks + painting * config.length


def theirs(module, sizes: dict, cached: bool):
    model = peers.dalle(module, sizes, cached).eval()
    text = torch.randint(1, sizes["words"], (1, sizes["text"]))

    @torch.inference_mode()
    def draw(count: int, guidance: float) -> None:
        pictures = model.generate_images(text.repeat(count, 1), cond_scale=guidance, use_cache=cached)
        assert pictures.shape[0] == count

    total = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("vae."))
    return draw, total, total * sizes["grid"] ** 2


def bandwidth() -> float:
    """Bytes a second that a product of a large matrix and a vector reads."""
    weight, x, seconds = torch.randn(16_384, 8_192), torch.randn(8_192), []
    for _ in range(8):
        began = time.perf_counter()
        weight @ x
        seconds.append(time.perf_counter() - began)
    return weight.numel() * 4 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a clone of DALLE-pytorch")
    parser.add_argument("--real", action="store_true", help="12 layers of 512, 256 text and 256 and 1,024 image tokens")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument(
        "--slowest", type=float, default=120.0,
        help="seconds: a side that took longer is not run again, and not in a larger batch that would take three times as long",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    module = peers.dalle_pytorch(options.peer) if options.peer else None
    rows, speed = [], bandwidth()
    for sizes in [REAL, LARGE] if options.real else [SMALL]:
        makers = {
            "ours fp32": ours, "ours bf16": lambda s: ours(s, "bf16"), "ours fp32, blocks": lambda s: ours(s, block=BLOCK),
        }  # fmt: skip
        if module:
            makers |= {
                "DALLE-pytorch": lambda s: theirs(module, s, False),
                "DALLE-pytorch, cache patched": lambda s: theirs(module, s, True),
            }
        for guidance in options.guidance:
            medians: dict[str, float] = {}
            for count in options.batches:
                before = medians
                seconds: dict[str, list[float]] = {}
                parameters, reads = {}, {}
                for turn in range(options.repeats):
                    for name, make in makers.items():
                        if count * before.get(name, 0.0) > 3 * options.slowest or (
                            turn and count * max(seconds[name]) > options.slowest
                        ):
                            continue
                        draw, parameters[name], reads[name] = make(sizes)
                        began = time.perf_counter()
                        draw(count, guidance)
                        seconds.setdefault(name, []).append((time.perf_counter() - began) / count)
                medians = {name: statistics.median(times) for name, times in seconds.items()}
                for name, least in medians.items():
                    floor = reads[name] * (2 if "bf16" in name else 4) / speed / count
                    rows.append({
                        "side": name, "image_tokens": sizes["grid"] ** 2, "parameters": parameters[name],
                        "guidance": guidance, "drawings": count, "seconds_each": round(least, 4),
                        "floor": round(floor, 4),
                        "times_shipped": round(medians.get("DALLE-pytorch", float("nan")) / least, 1),
                        "times_cached": round(medians.get("DALLE-pytorch, cache patched", float("nan")) / least, 1),
                    })  # fmt: skip
                    print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(f"{options.threads} threads; {speed / 1e9:.1f} GB/s; {cards.hardware()}")
    if options.json:
        options.json.write_text(json.dumps({"hardware": cards.hardware(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
