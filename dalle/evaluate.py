"""How well a DALL·E draws what it is asked for, by kinds of prompt, beside the best and the worst it could do.

python -m dalle.evaluate --n 50
python -m dalle.evaluate --model runs/dalle --rerank 8 --judge runs/other_clip --out runs/fidelity
python -m dalle.evaluate --kinds single pair relation --json

Prompts come from the default drawings. A judge that nobody trained finds, for every drawing, the nearest of all real
scenes of its kind in pixels, and says part by part what of the prompt is right. The ceiling is the same of real pictures
passed through the dVAE, chance that of guessing. Held out means that training never shows it; of the rest it shows a part.
A CLIP that did not rank the drawings must find each one's prompt among all of its kind. Figures go to figures.json in
--out, and the first drawings of every kind, none picked, onto a sheet each.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dalle.presets import GUIDANCE, TEMPERATURE
from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "dalle.evaluate"
SHOWN = 24  # drawings on a sheet
SCENES_SEED = 1_000_000  # added to --seed, so that no training drew its scenes from the same numbers
Kind = Literal[
    "single", "colour", "painted", "shape", "place", "size", "count", "pair", "relation", "three", "style", "language"
]
KINDS = {  # what is asked for: (split, kind of scene)
    "single": ("train", "single"),
    "colour": ("train", "colour"),
    "colour, held out": ("colours", "colour"),
    "painted": ("train", "painted"),
    "painted, held out": ("colours", "painted"),
    "shape": ("train", "shape"),
    "shape, held out": ("colours", "shape"),
    "place": ("train", "place"),
    "size": ("train", "size"),
    "count": ("train", "count"),
    "count, held out": ("counts", "count"),
    "pair": ("train", "pair"),
    "pair, held out": ("pairs", "pair"),
    "relation": ("train", "relation"),
    "relation, held out": ("relations", "relation"),
    "relation of a pair held out": ("pairs", "relation"),
    "three": ("train", "three"),
    "style": ("train", "style"),
    "language": ("train", "language"),
}


@dataclass(frozen=True)
class Settings(Common):
    """Measures how faithful, varied and new the drawings of a DALL·E are."""

    model: str | None = None
    """A run directory or the name of a bundled model (default: the bundled one)."""
    n: int = 200
    """Prompts of each kind."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds of prompt, seen and held out (default: all)."""
    concepts: Literal["everyday", "all"] = "everyday"
    """The things that are asked for: those that the model was trained on."""
    rerank: int = 1
    """Drawings of each prompt, of which the one that a CLIP ranks first is judged."""
    ranker: str | None = None
    """The CLIP that ranks: a run directory or a bundled name (default: the bundled one)."""
    judge: str | None = None
    """The CLIP that judges (default: the bundled one, or none if that ranks)."""
    guidance: float = GUIDANCE
    """How closely to follow the prompt: 1 is the model's own distribution."""
    temperature: float = TEMPERATURE
    """0 takes the likeliest code, 1 samples."""
    top_k: int = 0
    """Only the k likeliest codes; 0 is all."""
    top_p: float = 1.0
    """Only the likeliest codes that together have this probability."""
    out: Path = Path("runs/evaluation")
    """The folder for figures.json and the sheets."""
    json: bool = False
    """Print the figures as one JSON object."""

    def __post_init__(self):
        super().__post_init__()
        for name, value, most in (("n", self.n, 10_000), ("rerank", self.rerank, 512)):
            if not 1 <= value <= most:
                raise ValueError(f"{name} {value} is out of range: 1 to {most}.")
        if self.ranker is not None and self.rerank == 1:
            raise ValueError("ranker has nothing to rank: ask for several drawings of a prompt, such as --rerank 8.")
        if self.rerank > 1 and self.judge is not None and self.judge == (self.ranker or "bundled"):
            raise ValueError(f"the CLIP {self.judge} ranks the drawings, so it cannot judge them: name another one.")


def clip(name: str | None, device: str):
    """A trained CLIP as a scorer."""
    import torch

    from clip import encoder
    from dalle.figures import Scorer
    from multimodal import devices, images

    model = encoder.find(name, devices.pick(device))

    def features(pictures):
        prepared = torch.stack([model.prepare(images.to_pil(picture)) for picture in pictures])
        return model.embed_images(prepared).cpu()

    def similar(pictures, captions):
        return features(pictures) @ model.embed_texts(captions).cpu().T

    return Scorer(f"the CLIP {model.name}", similar, features)


def evaluate(settings: Settings, scorer=clip) -> int:
    """`scorer(name, device)` gives the CLIPs that rank and judge."""
    if settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"--out {settings.out} is a file: name a folder.")
    import torch

    from dalle import figures
    from dalle.drawing import draw_each
    from dalle.model import load, too_long
    from multimodal import checkpoint, devices
    from multimodal.data.drawings import Drawings
    from multimodal.data.phrases import OPEN_PROMPTS
    from multimodal.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    directory, where = checkpoint.find(settings.model, "dalle"), devices.pick(settings.device)
    artist = load(directory, where)
    size, each = artist.dvae.config.size, settings.rerank
    ranker = scorer(settings.ranker, settings.device) if each > 1 else None
    judge = None
    if settings.judge is None and each > 1 and settings.ranker in (None, "bundled"):
        cli.say("the bundled CLIP ranks the drawings, so no CLIP judges them: name another one with --judge.")
    else:
        judge = scorer(settings.judge, settings.device)
    kinds = {name: what for name, what in KINDS.items() if not settings.kinds or what[1] in settings.kinds}
    seed = settings.seed + SCENES_SEED
    sources = {
        name: Drawings(split, seed, settings.concepts, mixture={kind: 1.0}) for name, (split, kind) in kinds.items()
    }
    scenes = {name: [source.scene(i) for i in range(settings.n)] for name, source in sources.items()}
    everything = [scene.caption for wanted in scenes.values() for scene in wanted]
    if cut := too_long(artist.tokenizer, everything, artist.model.config.text_length):
        cli.say(f"{cut} of {len(everything)} prompts are longer than this model reads and are cut.")
    any_source = next(iter(sources.values()))
    seconds: list[float] = []

    def draw(prompts: list[str], seeds: list[int]):
        """One picture for each (prompt, seed)."""
        parts = []
        for start in range(0, len(prompts), figures.CHUNK):
            part = slice(start, start + figures.CHUNK)
            began = time.perf_counter()
            parts.append(draw_each(artist, prompts[part], seeds[part], settings.guidance, sampling).float().cpu())
            seconds.append(time.perf_counter() - began)
            shown.update(len(parts[-1]))
        return torch.cat(parts)

    def best(prompts: list[str]):
        """A drawing of each prompt; of several the one that is ranked first."""
        pictures = draw(
            [p for p in prompts for _ in range(each)], [settings.seed + i for i in range(len(prompts) * each)]
        )
        if ranker is None:
            return pictures
        groups = zip(prompts, pictures.split(each), strict=True)
        return torch.stack([group[int(ranker.similar(group, [p])[:, 0].argmax())] for p, group in groups])

    made, passed, rows, said = {}, {}, [], []
    asked = len(kinds) * settings.n + len(OPEN_PROMPTS)
    with cli.bar(
        total=asked * each + figures.VARIED[0] * figures.VARIED[1] + 3, unit="drawing", desc="drawing"
    ) as shown:
        for name, wanted in scenes.items():
            prompts = [scene.caption for scene in wanted]
            made[name] = best(prompts)
            passed[name] = figures.through(artist, figures.real(wanted, size))
            found, verdicts = figures.fidelity(name, wanted, made[name], passed[name], any_source.concepts, judge)
            rows += found
            said += [
                {
                    "kind": name,
                    "prompt": scene.caption,
                    "found": verdict.found,
                    "wrong": [p for p, ok in verdict.parts if not ok],
                }
                for scene, verdict in zip(wanted, verdicts, strict=True)
            ]
        free = best(list(OPEN_PROMPTS))
        varied = figures.diversity(draw, any_source, size, settings.seed)
        together = sum(seconds) / (asked * each + figures.VARIED[0] * figures.VARIED[1])
        for i in range(3):  # as one who waits for it
            draw(["a cat"], [settings.seed + i])
    others = [source.scene(settings.n + i) for source in sources.values() for i in range(settings.n)]
    memory: dict[str, Any] = {}
    if "single" in kinds:
        memory["single"] = figures.recalled(any_source, scenes["single"], made["single"], passed["single"])
    for name, (split, kind) in kinds.items():
        if split != "train":
            known = Drawings("train", seed, settings.concepts, mixture={kind: 1.0})
            memory[name] = figures.composed(known, scenes[name], made[name], passed[name])
    both = [torch.cat(list(pictures.values())) for pictures in (made, passed)]
    real = figures.real([scene for wanted in scenes.values() for scene in wanted], size)
    alone = figures.nearest_things(any_source, free)
    result = {
        "model": str(directory), "n": settings.n, "rerank": each, "guidance": settings.guidance,
        "temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p, "seed": settings.seed,
        "concepts": settings.concepts, "ranked_by": ranker.name if ranker else None,
        "judged_by": ["the nearest rendering in pixels", *([judge.name] if judge else [])],
        "fidelity": rows, "diversity": varied, "memory": memory,
        "frechet": figures.frechet_distances(*both, real, figures.real(others, size), judge),
        "seconds": {"alone": sorted(seconds[-3:])[1], f"in {figures.CHUNK}": together, "device": str(where),
                    "threads": torch.get_num_threads()},
        "open": [{"prompt": p, "nearest": thing} for p, thing in zip(OPEN_PROMPTS, alone, strict=True)],
    }  # fmt: skip
    checkpoint.write_text(settings.out / "figures.json", json.dumps({**result, "drawings": said}, indent=1))
    for name, pictures in made.items():
        sheet(
            settings.out / f"{name.replace(', ', ' ').replace(' ', '-')}.png",
            pictures,
            [s.caption for s in scenes[name]],
        )
    sheet(settings.out / "open.png", free, list(OPEN_PROMPTS))
    if settings.json:
        cli.emit(result)
    else:
        print(table(result))
    cli.say(f"figures.json and a sheet of every kind are in {settings.out}")
    return 0


def sheet(path: Path, pictures, captions: list[str]) -> None:
    """The first drawings, large enough for their captions to be read."""
    from multimodal import images
    from multimodal.checkpoint import replacing

    factor = max(1, 256 // pictures.shape[-1])
    large = pictures[:SHOWN].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    with replacing(path) as aside:
        images.grid(large, 6, captions[:SHOWN]).save(aside, "PNG")


def table(result: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [f"{'prompts':<29}{'part':<16}{'right':>10}{'share':>8}{'95 % interval':>16}{'ceiling':>9}{'chance':>8}"]
    before = None
    for row in result["fidelity"]:
        kind, before = ("" if row["kind"] == before else row["kind"]), row["kind"]
        lines.append(
            f"{kind:<29}{row['part']:<16}{row['right']:>5}/{row['of']:<4}{row['share']:>8.1%}"
            f"{row['low']:>9.1%} -{row['high']:>5.0%}{row['ceiling']:>9.1%}{row['chance']:>8.2%}"
        )
    varied, seconds, memory = result["diversity"], result["seconds"], dict(result["memory"])
    lines += [
        "",
        f"From seed to seed drawings of one prompt differ by {varied['drawings']:.3f}; real ones, by one of the artists at "
        f"random, by {varied['real']:.3f}; those of different things by {varied['different things']:.3f}.",
    ]
    if found := memory.pop("single", None):
        lines.append(
            f"From the nearest training picture drawings of one thing are {found['drawings']:.3f} away; training pictures after "
            f"the dVAE {found['after the dVAE']:.3f}; one artist's from the other's {found['other artist']:.3f}. Nearer than "
            f"that, so recalled from training: {found['share']:.1%} ({found['right']} of {found['of']})."
        )
    for name, found in memory.items():
        lines.append(
            f"{name}: {found['share']:.1%} of the drawings are nearer to what was asked for than to any of {found['known']:,} "
            f"pictures of the kind that training may show (ceiling {found['ceiling']:.1%})."
        )
    for row in result["frechet"]:
        lines.append(
            f"Fréchet distance on features of {row['features']}: {row['drawings']:.3g}; real pictures after the dVAE "
            f"{row['after the dVAE']:.3g}, real against other real {row['real']:.3g} ({row['pictures']:,} pictures each)."
        )
    together = next(name for name in seconds if name.startswith("in "))
    lines += [
        f"A drawing takes {seconds['alone']:.2f} s alone, {seconds[together]:.3f} s {together} at a time "
        f"({seconds['device']}, {seconds['threads']} threads).",
        "",
        "Prompts that training never shows, and the thing that the drawing is nearest to:",
        *(f"  {row['prompt']}: {row['nearest']}" for row in result["open"]),
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    return cli.run(evaluate, cli.parse(Settings, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
