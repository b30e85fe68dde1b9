"""Which grid of codes? How well a dVAE keeps pictures at equal minutes, beside how long a drawing then takes.

    python benchmarks/grids.py                  drawing times alone (seconds)
    python benchmarks/grids.py --minutes 4      and dVAEs trained for 4 minutes each

PSNR is of held-out scenes by hard codes. Drawing times are of one guided drawing with a transformer of the bundled
preset's width and depth, untrained, which takes as long as a trained one; medians of five.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Row:
    name: str
    preset: str
    grid: int
    levels: tuple[int, ...]
    """Of fsq codes."""
    blocks: tuple[int, ...]
    """Sides of the blocks of codes that one position of the transformer stands for."""


ROWS = (
    Row("fsq 16x16", "bundled", 16, (8, 5, 5, 5), (1, 2, 4)),
    Row("fsq 12x12", "bundled", 12, (8, 5, 5, 5), (1, 2, 3)),
    Row("fsq 8x8", "bundled", 8, (8, 8, 8, 6, 5), (1, 2)),
    Row("gumbel 16x16", "gumbel", 16, (8, 5, 5, 5), ()),
)


def psnr(row: Row, minutes: float, scratch: Path) -> dict[str, float]:
    """Trains the row's dVAE."""
    run = scratch / row.name.replace(" ", "-")
    command = [sys.executable, "-m", "dalle.train_dvae", row.preset, "--out", str(run), "--model.grid", str(row.grid)]
    command += ["--model.levels", *map(str, row.levels), "--train.minutes", str(minutes)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def drawing_seconds(row: Row, block: int) -> float:
    import torch

    from dalle.drawing import draw
    from dalle.dvae import DVAE
    from dalle.model import DALLE, Artist
    from dalle.presets import DALLE_PRESETS, DALLEConfig, DVAEConfig
    from multimodal.tokenizer import Tokenizer

    settings = DALLE_PRESETS["bundled"][1]
    tokenizer = Tokenizer.bpe(["a cat and a dog"], 300)
    dvae = DVAE(DVAEConfig(grid=row.grid, levels=row.levels)).eval()
    config = DALLEConfig(
        settings.transformer, tokenizer.vocab_size, settings.text_length, row.grid, dvae.config.vocabulary, block
    )
    torch.manual_seed(0)
    artist = Artist(DALLE(config).eval(), dvae, tokenizer)
    times = []
    for seed in range(6):
        began = time.perf_counter()
        list(draw(artist, "a cat", [seed]))
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="train each dVAE for this long (default: not at all)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    settings = parser.parse_args()
    figures = {}
    print(f"{'codes':<14}{'number':>8}{'PSNR, dB':>10}{'minutes':>9}   seconds a drawing, by side of block")
    with tempfile.TemporaryDirectory() as scratch:
        for row in ROWS:
            found = psnr(row, settings.minutes, Path(scratch)) if settings.minutes else {}
            times = {block: round(drawing_seconds(row, block), 3) for block in row.blocks}
            figures[row.name] = {"psnr": found.get("val_psnr"), "minutes": found.get("minutes"), "seconds": times}
            kept, took = (f"{found[k]:.2f}" if found else "-" for k in ("val_psnr", "minutes"))
            drawn = "  ".join(f"{block}: {seconds:.2f}" for block, seconds in times.items())
            print(f"{row.name:<14}{row.grid**2:>8}{kept:>10}{took:>9}   {drawn}", flush=True)
    if settings.json:
        settings.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
