"""Do a perceptual and an adversarial term earn their place in the dVAE? Equal minutes, equal seeds, the same pictures.

    python benchmarks/dalle_losses.py --minutes 3
    python benchmarks/dalle_losses.py --minutes 3 --photos photographs

The dVAE of `dalle.train_dvae bundled` with its squared error; with the distance of what the image tower of the bundled CLIP sees
after each block (after Zhang et al. 2018, "LPIPS", whose network is of photographs and not ours to give); with a network that
tells patches of real pictures from painted ones (Isola et al. 2017; its hinge loss after Esser et al. 2021, "VQGAN"); with both.
A term's weight is such that its gradient on the painted pictures is half as long as the squared error's.

Judged by hard codes on pictures that none has seen: PSNR; how often a drawing of one thing, painted again, is still nearest in
pixels to itself (drawings only); Fréchet distances of features of an untrained network, which no term has seen, and of CLIP's,
which the perceptual term has. They compare within a table only.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.dalle_dvae import HELD, SIZE, scenes
from multimodal import cards, checkpoint, images
from multimodal.training import fit, shuffled

SHARE = 0.5  # length of a term's gradient, of the squared error's
SIDES = {
    "squared error": (),
    "and perceptual": ("perceptual",),
    "and adversarial": ("adversarial",),
    "and both": ("perceptual", "adversarial"),
}
YOUNG = 200  # steps before the critic counts: until then there is nothing to tell apart


def photographs(folder: Path):
    """(known, held out) of a folder, one in eight held out."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    pictures = torch.stack([images.square(images.read(path), SIZE) for path in paths])
    held = torch.arange(len(pictures)) % 8 == 0
    return pictures[~held], pictures[held]


def seen_by(tower: nn.Module):
    """pictures -> what each block of the image tower gives, unit vectors of places."""
    kept: list[torch.Tensor] = []
    for block in tower.transformer.blocks:
        block.register_forward_hook(lambda module, inputs, output: kept.append(output))

    def look(pictures):
        kept.clear()
        tower(pictures)
        return [F.normalize(out[0] if isinstance(out, tuple) else out, dim=-1) for out in kept]

    return look


def critic() -> nn.Module:
    """Is a patch of 20 pixels real? A picture as patches first, as the dVAE sees it."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(4)]
    for into, out in ((48, 128), (128, 128)):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(128, 1, 1)).to(memory_format=torch.channels_last)


def trained(terms: tuple[str, ...], minutes: float, known, look) -> nn.Module:
    from dalle import dvae
    from dalle.presets import DVAE_PRESETS

    settings = DVAE_PRESETS["bundled"][1]
    torch.manual_seed(0)
    model = dvae.DVAE(settings.model)
    judge = critic()
    learning = torch.optim.Adam(judge.parameters(), lr=5e-4, betas=(0.5, 0.9))

    def loss(model, batch, step):
        image = images.to_float(batch["image"])
        painted, _ = model(image)
        error = total = F.mse_loss(painted, image)
        length = torch.autograd.grad(error, painted, retain_graph=True)[0].norm()
        found = {}
        if "perceptual" in terms:
            with torch.no_grad():
                wanted = look(image)
            found["perceptual"] = sum(F.mse_loss(a, b) for a, b in zip(look(painted), wanted, strict=True))
        if "adversarial" in terms:
            real, made = judge(image), judge(painted.detach())
            learning.zero_grad()
            (F.relu(1 - real).mean() + F.relu(1 + made).mean()).backward()
            learning.step()
            if step >= YOUNG:
                judge.requires_grad_(False)
                found["adversarial"] = -judge(painted).mean()
                judge.requires_grad_(True)
        for value in found.values():
            own = torch.autograd.grad(value, painted, retain_graph=True)[0].norm()
            total = total + SHARE * (length / own.clamp(min=1e-12)).detach() * value
        return total, {"mse": error.detach()}

    config = replace(settings.train, minutes=minutes, evaluate_every=10**9, save_every=10**9)

    def batches(index: int) -> dict:
        return {"image": known[shuffled(index, config.batch_size, len(known), 0)]}

    kept = {}

    def evaluate(model) -> dict[str, float]:  # of the averaged weights, as they are saved
        kept.update({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    with tempfile.TemporaryDirectory() as run:
        done = fit(model, loss, batches, config, Path(run), device="cpu", evaluate=evaluate)
    model.load_state_dict(kept)
    model.steps = done.steps
    return model.eval()


@torch.no_grad()
def painted_again(model, pictures):
    return torch.cat([model.decode(model.encode(part)) for part in pictures.split(64)])


@torch.no_grad()
def judged(model, held, singles, looks) -> dict:
    from dalle.dvae import psnr
    from dalle.figures import frechet
    from dalle.judge import SIDE, distances

    real = images.to_float(held)
    made = painted_again(model, real)
    row = {"steps": model.steps, "psnr_db": round(psnr(made, real).mean().item(), 2)}
    if singles is not None:
        nearest = distances(painted_again(model, singles), singles, SIDE).argmin(1)
        row["still_itself"] = round((nearest == torch.arange(len(singles))).float().mean().item(), 4)
    for name, features in looks.items():
        half = len(real) // 2  # painted pictures beside other real ones, as distances are measured
        row[f"frechet_{name}"] = float(f"{frechet(features(made[:half]), features(real[half:])):.4g}")
        row[f"floor_{name}"] = float(f"{frechet(features(real[:half]), features(real[half:])):.4g}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="that each trains")
    parser.add_argument("--photos", type=Path, help="a folder of photographs, instead of the default drawings")
    parser.add_argument("--scenes", type=int, default=20_000, help="drawings that are trained on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sheet", type=Path, help="write held-out pictures and what each side paints as a picture")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    from clip.model import CLIP, load
    from dalle.train import renderings
    from multimodal.data.drawings import Drawings

    singles = None
    if options.photos:
        known, held = photographs(options.photos)
    else:
        known, held = scenes(options.scenes, "train"), scenes(HELD, "pairs")
        singles = renderings(Drawings(), SIZE)[0]
    clip, _ = load(checkpoint.find(None, "clip"))
    clip.requires_grad_(False)
    torch.manual_seed(1)
    untrained = CLIP(clip.config).image.requires_grad_(False)

    def features(tower):
        return lambda pictures: torch.cat([tower(part) for part in pictures.split(64)])

    looks = {"untrained": features(untrained), "clip": features(clip.image)}
    look = seen_by(load(checkpoint.find(None, "clip"))[0].image.requires_grad_(False))
    rows, sheet = [], [images.to_float(held[:8])]
    for name, terms in SIDES.items():
        model = trained(terms, options.minutes, known, look)
        rows.append({"side": name, **judged(model, held, singles, looks)})
        sheet.append(painted_again(model, sheet[0]))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(f"{options.minutes:g} minutes each, {options.threads} threads; {cards.hardware()}")
    if options.sheet:
        named = [name for name in ("as it is", *SIDES) for _ in range(8)]
        images.grid(torch.cat(sheet), 8, named).save(options.sheet)
    if options.json:
        options.json.write_text(json.dumps({"hardware": cards.hardware(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
