"""The dVAE beside DALLE-pytorch's DiscreteVAE: equal grid, codebook and minutes, the same pictures.

    git clone https://github.com/lucidrains/DALLE-pytorch       (and what benchmarks/peers.py names)
    python benchmarks/dalle_dvae.py --peer DALLE-pytorch --minutes 5

Default drawings of 64 pixels a side, as 16x16 codes out of 1,000 (fsq) or 1,024. Ours train as the presets `bundled` and
`gumbel` do; DiscreteVAE as its train_vae.py does: Adam at 1e-3 which falls by 2 % every 100 steps, batches of 8, temperature by
its own formula, and its sizes (256 channels, two residual blocks); then with 64 channels, which a CPU trains faster; in fp32, as
it ships, and in bf16 besides where the machine is faster with it. All are judged by their hard codes on 1,024 scenes that none
has seen: PSNR, and the share of the codebook used.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from multimodal import cards, devices, images
from multimodal.training import fit, shuffled

SIZE, GRID, CODES, HELD = 64, 16, 1024, 1024


def scenes(count: int, split: str):
    """Default drawings (count, 3, 64, 64) as bytes."""
    from multimodal.data import pairs
    from multimodal.data.drawings import Drawings

    source, parts = Drawings(split=split), []
    for start in range(0, count, 64):
        parts.append(pairs.batch(source, list(range(start, min(start + 64, count))), SIZE)["image"])
    return torch.cat(parts)


@torch.no_grad()
def judged(encode, decode, codes: int, held) -> dict:
    from dalle.dvae import psnr

    total, uses = 0.0, torch.zeros(codes)
    for part in held.split(64):
        pictures = images.to_float(part)
        found = encode(pictures)
        uses += torch.bincount(found.flatten(), minlength=codes)
        total += psnr(decode(found).clamp(0, 1), pictures).sum().item()
    return {"psnr_db": round(total / len(held), 2), "codes_used": round((uses > 0).float().mean().item(), 3)}


def ours(preset: str, minutes: float, known, held) -> dict:
    from dalle import dvae
    from dalle.presets import DVAE_PRESETS

    settings, behind = DVAE_PRESETS[preset][1], [0.0]
    torch.manual_seed(0)
    model = dvae.DVAE(settings.model)

    def loss(model, batch, step):
        temperature = dvae.temperature_at(behind[0], settings.temperature_part, settings.final_temperature)
        weight = dvae.annealed(behind[0], settings.kl_part, 0.0, settings.kl_weight)
        return dvae.loss(model, images.to_float(batch["image"]), temperature, weight)

    config = replace(settings.train, minutes=minutes, evaluate_every=10**9, save_every=10**9)

    def batches(index: int) -> dict:
        return {"image": known[shuffled(index, config.batch_size, len(known), 0)]}

    kept: dict = {}

    def evaluate(model) -> dict[str, float]:  # of the averaged weights, as it is saved
        kept.update(judged(model.encode, model.decode, settings.model.vocabulary, held))
        return {}

    def anneal(part: float) -> None:
        behind[0] = part

    with tempfile.TemporaryDirectory() as run:
        done = fit(model, loss, batches, config, Path(run), device="cpu", evaluate=evaluate, anneal=anneal)
    return {"steps": done.steps, "parameters": sum(p.numel() for p in model.parameters()), **kept}


def theirs(module, hidden: int, half: bool, minutes: float, known, held) -> dict:
    torch.manual_seed(0)
    model = module.DiscreteVAE(
        image_size=SIZE, num_layers=2, num_tokens=CODES, codebook_dim=512, hidden_dim=hidden, num_resnet_blocks=2,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    began, step, temperature = time.perf_counter(), 0, 1.0
    while time.perf_counter() - began < 60 * minutes:
        pictures = images.to_float(known[shuffled(step, 8, len(known), 0)])
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            value = model(pictures, return_loss=True, temp=temperature)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 100 == 0:
            temperature = max(temperature * math.exp(-1e-6 * step), 0.5)
            falling.step()
        step += 1
    model.eval()

    def decode(codes):
        return model.decode(codes) * 0.5 + 0.5  # its pictures are normalised

    found = judged(model.get_codebook_indices, decode, CODES, held)
    return {"steps": step, "parameters": sum(p.numel() for p in model.parameters()), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a clone of DALLE-pytorch")
    parser.add_argument("--minutes", type=float, default=5.0, help="that each trains")
    parser.add_argument("--scenes", type=int, default=20_000, help="drawings that are trained on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    known, held = scenes(options.scenes, "train"), scenes(HELD, "pairs")
    sides = {
        f"ours {name}": lambda name=name: ours(name, options.minutes, known, held) for name in ("bundled", "gumbel")
    }
    if options.peer:
        module = peers.dalle_pytorch(options.peer)
        for hidden in (256, 64):
            for half in (False, True) if devices.fast_bf16(torch.device("cpu")) else (False,):
                name = f"DiscreteVAE, {hidden} channels, {'bf16' if half else 'fp32'}"
                sides[name] = lambda h=hidden, b=half: theirs(module, h, b, options.minutes, known, held)
    rows = []
    for name, run in sides.items():
        rows.append({"side": name, **run()})
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(f"{options.minutes:g} minutes each, {options.threads} threads; {cards.hardware()}")
    if options.json:
        options.json.write_text(json.dumps({"hardware": cards.hardware(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
