"""Fine-tune a CLIP on your pictures without losing what it knew: a model and captioned pictures in, a run directory out.

python -m clip.finetune --data my_captioned_pictures/ --out runs/mine
python -m clip.finetune --model runs/clip --classes my_folders_by_name/ --template "a photo of a {}" --out runs/mine
python -m clip.finetune --data my_captioned_pictures/ --guard other_folders_by_name/ --wise-ft 0.3 --out runs/mine

What is saved lies between the model at the start and the one trained, weight by weight (WiSE-FT, Wortsman et al. 2022):
that keeps most of what either knows. The report tells, before and after, how well it does on held-out pictures of yours, and
on classes that are not among them: --guard's, or the default drawings where they are installed.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from multimodal import cli
from multimodal.cli import Common
from multimodal.config import TrainConfig

PROG = "clip.finetune"
FELL = 0.02  # of accuracy: so much less on other classes is said
LARGE, GENTLE = 30_000_000, 1e-5  # parameters from which on a rate above this one is remarked


@dataclass(frozen=True)
class Finetune(Common):
    """Goes on with a CLIP on captioned pictures, by small steps."""

    model: str | None = None
    """What to start from: a run directory, a bundled name, an open_clip directory (default: the bundled model)."""
    data: tuple[Path, ...] = ()
    """Captioned pictures: folders with same-stem .txt, tables (CSV, TSV, JSON lines), WebDataset archives (.tar)."""
    classes: tuple[Path, ...] = ()
    """Instead of --data: folders with a folder of pictures for each class; the captions are the folders' names."""
    template: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """For --classes: a caption with {} where the name belongs; repeatable, each picture comes in all of them."""
    guard: Path | None = None
    """Folders of pictures by class that tell what is lost; those whose names the captions say are left out."""
    wise_ft: float = 0.5
    """Where between the model at the start (0) and the one trained (1) the weights that are saved lie."""
    epochs: float = 10.0
    """How often each pair is seen."""
    augment: bool = True
    """Turn, move, mirror and recolour the pictures anew each time, as far as the captions stay true; a caption that says left
    or right brings the mirrored picture with the other word."""
    chunk: int = 0
    """Pairs whose activations are in memory at once; 0: the whole batch."""
    half: bool = False
    """Write the model's weights in bf16, half the size."""
    out: Path = Path("runs/clip-finetuned")
    """The run directory: model, metrics, card with the report."""
    resume: bool = False
    """Continue the run in --out, exactly."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1_000_000, batch_size=64, optimizer="adamw", lr=1e-4, warmup=0.1, schedule="cosine",
            evaluate_every=100, save_every=100,
        )
    )  # fmt: skip
    """Ends after train.steps or --epochs, whichever is less. The rate suits the bundled model; published ones, of 151M
    parameters and more, want 1e-5 or less."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.wise_ft <= 1:
            raise ValueError(
                f"wise-ft {self.wise_ft} is out of range: 0 keeps the model at the start, 1 the one trained."
            )
        if self.epochs <= 0 or self.chunk < 0:
            raise ValueError(f"epochs {self.epochs} (above 0) or chunk {self.chunk} (0 or more) is off.")


def tune(settings: Finetune, argv: list[str] | None) -> int:
    if not (settings.data or settings.classes):
        raise cli.UserError("no data: give captioned pictures by --data, or folders by class by --classes.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise cli.UserError("clip.finetune runs in one process; start it without torchrun.")
    import math
    from dataclasses import replace

    import torch

    from clip import material, model
    from clip.augment import decide
    from clip.contrast import batches, cut_off, loss_of
    from clip.encoder import Ours, find
    from clip.trainable import trainable
    from multimodal import cards, checkpoint, devices
    from multimodal.data import pairs
    from multimodal.training import begin, fit

    run, where = settings.out, devices.pick(settings.device)
    begin(settings)
    encoder = trainable(settings.model, where)
    network, tokenizer, size = encoder.network, encoder.tokenizer, encoder.size
    count = sum(p.numel() for p in network.parameters())
    if count > LARGE and settings.train.lr > GENTLE:
        cli.say(
            f"{encoder.name} has {count:,} parameters: at a rate of {settings.train.lr:g} a model of this size soon forgets what "
            f"it knew; --train.lr {GENTLE:g} or less keeps it."
        )
    ours = material.given(settings.data, settings.classes, settings.template, size, run)
    if sentence := cut_off(tokenizer, ours.captions, encoder.context):
        cli.say(sentence)
    others = material.other_classes(settings.guard, ours.captions, size)
    if others is not None:
        cli.say(
            f"watched besides: {len(others.pictures):,} pictures of {len(others.names):,} classes that the captions do not "
            "name"
        )
    elif settings.guard is not None:
        cli.say(
            f"--guard {settings.guard}: fewer than 2 of its classes are not named by the captions, so that what is lost will "
            "not be seen; give folders of other classes."
        )
    else:
        cli.say("no other classes are at hand, so that what is lost will not be seen; --guard FOLDER gives some.")
    plan = None
    if settings.augment:
        plan, sentence = decide(ours.captions, material.examples(ours.source, size))
        cli.say(sentence)

    def measured(encoder) -> dict[str, float]:
        return ours.measured(encoder) | (others.measured(encoder) if others is not None else {})

    start = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    before = measured(encoder)
    network.requires_grad_(True)
    batch_size = settings.train.batch_size
    steps = max(1, min(settings.train.steps, math.ceil(settings.epochs * len(ours.source) / batch_size)))
    outcome = fit(
        network,
        loss_of(network, settings.seed, plan, settings.chunk),
        batches(
            lambda items: pairs.batch(ours.source, items, size), len(ours.source), tokenizer, encoder.context, batch_size,
            settings.seed, ours.opposite if plan else None,
        ),
        replace(settings.train, steps=steps), run, seed=settings.seed, device=settings.device, resume=settings.resume,
        evaluate=lambda network: measured(Ours(between(start, network, settings.wise_ft), tokenizer)),
        save=lambda network: model.save(
            run, between(start, network, settings.wise_ft), tokenizer, dtype=torch.bfloat16 if settings.half else None
        ),
    )  # fmt: skip
    after = {name.removeprefix("val_"): v for name, v in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal":
        after = measured(find(run, where))
    figures = {}
    for name, value in after.items():
        figures |= {f"before_{name}": before[name], f"val_{name}": value}
        cli.say(f"{name}: {before[name]:.3f} before, {value:.3f} now")
    lost = before.get("other_classes_top1", 0.0) - after.get("other_classes_top1", 0.0)
    if lost > FELL:
        cli.say(
            f"on classes that are not in the data it names {lost:.1%} less than before: a smaller --wise-ft, --train.lr or "
            "--epochs loses less."
        )
    about = (
        f"{encoder.name}, fine-tuned on pictures of the user; its weights are {settings.wise_ft:g} of the way from the model "
        f"at the start to the one trained (WiSE-FT). It sees {size}x{size} pixels and has "
        f"{count:,} parameters."
    )
    words = (
        "before_ is the model at the start. image_to_text and text_to_image are recall at 1 among "
        f"{len(ours.judged['caption'])} held-out pairs of the data"
        + (
            "."
            if others is None
            else f"; other_classes is naming among {len(others.names):,} classes that are not in it."
        )
    )
    command = cards.command(PROG, argv)
    card = cards.card("CLIP, fine-tuned with this toolkit", about, command, ours.about, outcome, figures, words, run)
    checkpoint.write_text(run / "README.md", card)
    cli.emit({"run": str(run), "steps": outcome.steps, "minutes": round(outcome.minutes, 2), **figures})
    return 1 if outcome.stopped == "signal" else 0


def between(start: dict, network, share: float):
    """A copy of the network with weights so far on the way from `start` to its own."""
    import copy

    import torch

    found = copy.deepcopy(network).eval()
    with torch.no_grad():
        for name, tensor in found.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(start[name].to(tensor), tensor, share))
    return found


def main(argv: list[str] | None = None) -> int:
    return cli.run(lambda settings: tune(settings, argv), cli.parse(Finetune, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
