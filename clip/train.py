"""Train CLIP: captioned pictures in, a run directory out that `clip.classify --model RUN` uses.

python -m clip.train bundled --out runs/clip
python -m clip.train bundled --styles twemoji --out runs/one-style    judged on the other style's drawings
python -m clip.train small --data my_captioned_pictures/ --train.minutes 20
"""

import sys

from clip.presets import PRESETS, TrainCLIP
from multimodal import cli

PROG = "clip.train"
JUDGED = 1000  # held-out pairs, among which each must find its own
CAPTIONS = 20_000  # of the default drawings, from which the vocabulary is learned


def drawn(concepts, styles: tuple[str, ...], size: int):
    """Every concept alone in every style: uint8 (styles * concepts, 3, size, size), style by style."""
    import torch
    from einops import rearrange

    from multimodal.data.drawings import Drawings

    source = Drawings(concepts=concepts)
    pictures = [torch.from_numpy(source.canonical(c, style, size)) for style in styles for c in concepts]
    return rearrange(torch.stack(pictures), "b h w c -> b c h w").contiguous()


def train(settings: TrainCLIP, argv: list[str] | None) -> int:
    import math
    from dataclasses import replace

    import torch

    from clip import judge, loss, model
    from clip.augment import augment
    from clip.encoder import Ours, find
    from multimodal import cards, checkpoint, devices, images
    from multimodal.data import pairs
    from multimodal.data.drawings import STYLES
    from multimodal.data.sources import captioned
    from multimodal.tokenizer import Tokenizer, caption
    from multimodal.training import begin, fit, shuffled

    run, size = settings.out, settings.model.size
    begin(settings)  # before any work
    source, held_out = captioned(settings.data, settings.seed, settings.concepts, run=run)
    if settings.data:
        captions = [text for pair in source.pairs for text in pair.captions]
    else:
        source = replace(source, styles=settings.styles, mixture=settings.mixture, length=10**6)
        held_out = replace(held_out, styles=settings.styles)
        captions = [c.phrase for c in source.concepts] + [source.scene(i).caption for i in range(CAPTIONS)]
    kept = run / "tokenizer.json"
    if settings.resume and kept.is_file():
        tokenizer = Tokenizer.load(kept)
    else:
        tokenizer = Tokenizer.bpe(map(caption, captions), settings.model.vocabulary)
    config = replace(settings.model, vocabulary=tokenizer.vocab_size)
    cut = model.tokenize(tokenizer, captions, config.context)[1]
    if cut:
        cli.say(f"{cut:,} of {len(captions):,} captions are longer than {config.context} tokens and are cut.")
    torch.manual_seed(settings.seed)
    network = model.CLIP(config)

    def batches(index: int) -> dict:
        batch = pairs.batch(source, shuffled(index, settings.train.batch_size, len(source), settings.seed), size)
        return {
            "image": batch["image"],
            "text": model.tokenize(tokenizer, batch["caption"], config.context)[0],
            "identity": batch["identity"],
        }

    def contrast(network, batch, step):
        with torch.no_grad():
            network.bound_scale()
            pictures = images.to_float(batch["image"])
            pictures = augment(pictures) if settings.augment else pictures
        return loss.contrastive(*network(pictures, batch["text"]), batch["identity"])

    judged = pairs.batch(held_out, list(range(min(JUDGED, len(held_out)))), size)
    names, shown, floor = [], None, {}
    if not settings.data:
        names = [concept.name for concept in source.concepts]
        unseen = tuple(style for style in STYLES if style not in settings.styles)
        shown = drawn(source.concepts, unseen or settings.styles, size)
        if unseen:
            known = drawn(source.concepts, settings.styles, size)
            floor = {"unseen_style_pixels_top1": judge.nearest_pixels(known, shown, len(names))}

    def measured(encoder) -> dict[str, float]:
        found = judge.retrieval(encoder, judged["image"], judged["caption"], judged["identity"])
        if names:
            kind = "unseen_style" if floor else "trained_drawings"
            named = judge.naming(encoder, shown, names)
            found |= {f"{kind}_{name}": value for name, value in named.items()} | floor
        return found

    chance = math.log(settings.train.batch_size)
    cli.say(
        f"a loss of ln({settings.train.batch_size}) = {chance:.2f} is chance; {len(judged['caption'])} held-out pairs"
    )
    outcome = fit(
        network, contrast, batches, settings.train, run, seed=settings.seed, device=settings.device,
        resume=settings.resume, evaluate=lambda network: measured(Ours(network, tokenizer)),
        save=lambda network: model.save(run, network, tokenizer, dtype=torch.bfloat16 if settings.half else None),
    )  # fmt: skip
    figures = {name: value for name, value in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal":  # the model as others load it
        kept = find(run, devices.pick(settings.device))
        figures = {f"val_{name}": value for name, value in measured(kept).items()}
    about = (
        f"Says how well a {size}x{size} picture and a caption belong together: two transformers of together "
        f"{sum(p.numel() for p in network.parameters()):,} parameters, {config.embedding} features, scale "
        f"{network.scale().item():.1f}. Training loss {outcome.metrics.get('loss', chance):.3f}, chance is {chance:.3f}."
    )
    data = (
        f"{len(source):,} captioned pictures of the user."
        if settings.data
        else (f"{cards.DRAWINGS} {len(source.concepts):,} concepts, styles {' and '.join(settings.styles)}.")
    )
    card = cards.card(
        "CLIP, trained with this toolkit",
        about,
        cards.command(PROG, argv),
        data,
        outcome,
        figures,
        limits(settings, judged),
        run,
    )
    checkpoint.write_text(run / "README.md", card)
    cli.emit({"run": str(run), "steps": outcome.steps, "minutes": round(outcome.minutes, 2), **figures})
    return 1 if outcome.stopped == "signal" else 0


def limits(settings: TrainCLIP, judged: dict) -> str:
    """What the figures mean and what the model cannot do, for the card."""
    count = len(judged["caption"])
    text = (
        f"val_image_to_text and val_text_to_image are recall at 1 among {count} held-out pairs (chance "
        f"{1 / max(1, len(set(judged['caption']))):.4f}). "
    )
    if settings.data:
        return text + "It knows the words and the kind of pictures it was trained on, and no others."
    return text + (
        "The held-out pairs show two concepts that were never shown together in training. val_unseen_style_top1 is how "
        "often an artist's drawing never trained on gets its own name among all, val_unseen_style_pixels_top1 what the "
        "nearest neighbour in 16x16 pixels reaches; val_trained_drawings_top1 is on drawings that were trained on. It "
        "knows emoji-like drawings and their English names: on photographs it is near chance, so train on your own "
        "captioned photographs for those."
    )


def main(argv: list[str] | None = None) -> int:
    return cli.run(lambda settings: train(settings, argv), cli.parse(PRESETS, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
