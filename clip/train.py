"""Train CLIP: captioned pictures in, a run directory out that `clip.classify --model RUN` uses.

python -m clip.train bundled --out runs/clip
python -m clip.train bundled --styles twemoji --out runs/one-style    judged on the other style's drawings
python -m clip.train small --data my_captioned_pictures/ --train.minutes 20
python -m clip.train siglip --classes my_folders_by_name/ --template "a photo of a {}" --out runs/own
python -m clip.train small --data my_captioned_pictures/ --image-model runs/clip --out runs/lit    LiT: only words are learned

A large batch in little memory: --train.batch-size 1024 --chunk 64. On several processors of a cluster, or cores:
`torchrun --nproc-per-node 2 -m clip.train small --out runs/two`; the batch is shared among them.
"""

import sys

from clip.presets import PRESETS, TrainCLIP
from multimodal import cli

PROG = "clip.train"


def train(settings: TrainCLIP, argv: list[str] | None) -> int:
    import contextlib
    import io

    from multimodal import distributed
    from multimodal.training import STATE, begin

    with distributed.together(settings.device) as device:
        if distributed.rank() == 0:
            begin(settings)  # before any work
        distributed.wait()
        with distributed.folder(settings.out, STATE) as run, contextlib.ExitStack() as silence:
            if distributed.rank():
                silence.enter_context(contextlib.redirect_stderr(io.StringIO()))
            return _train(settings, run, device, argv)


def _train(settings: TrainCLIP, run, device: str, argv: list[str] | None) -> int:
    from dataclasses import replace

    import torch

    from clip import lit, loss, material, model
    from clip.augment import decide
    from clip.contrast import batches, cut_off, loss_of
    from clip.encoder import Ours, find
    from clip.trainable import trainable
    from multimodal import cards, checkpoint, devices, distributed
    from multimodal.data import pairs
    from multimodal.tokenizer import Tokenizer, caption
    from multimodal.training import fit

    first, size, batch_size = distributed.rank() == 0, settings.model.size, settings.train.batch_size
    encoder = None
    if settings.image_model is not None:
        encoder = trainable(settings.image_model, devices.pick(device), "--image-model")
        size = encoder.size
    if settings.data or settings.classes:
        ours = material.given(settings.data, settings.classes, settings.template, size, run if first else None)
    else:
        length = 10**6 if encoder is None else lit.DRAWINGS
        ours = material.drawings(settings, size, length)
    kept = settings.out / "tokenizer.json"
    if first and not (settings.resume and kept.is_file()):
        with checkpoint.replacing(kept) as aside:
            Tokenizer.bpe(map(caption, ours.captions), settings.model.vocabulary).save(aside)
    distributed.wait()
    tokenizer = Tokenizer.load(kept)
    config = replace(settings.model, vocabulary=tokenizer.vocab_size, end=tokenizer.end)
    if sentence := cut_off(tokenizer, ours.captions, config.context):
        cli.say(sentence)
    torch.manual_seed(settings.seed)
    network = model.CLIP(config) if encoder is None else lit.locked(encoder, config)
    if network.bias is not None:
        torch.nn.init.constant_(network.bias, loss.first_bias(batch_size))
    plan = None
    if settings.augment and encoder is None:
        plan, sentence = decide(ours.captions, material.examples(ours.source, size))
        cli.say(sentence)
    count, take = len(ours.source), lambda items: pairs.batch(ours.source, items, size)
    if encoder is not None:
        seen = lit.features(encoder, ours.source, settings.out.parent / "features")
        take = seen.batch
    chance = loss.chance(batch_size, config.scores)
    told = f"ln({batch_size}) = " if config.scores == "softmax" else ""
    cli.say(f"a loss of {told}{chance:.2f} is chance; {len(ours.judged['caption'])} held-out pairs")
    never = {} if first else {"evaluate_every": 10**9, "save_every": 10**9}
    outcome = fit(
        network,
        loss_of(network, settings.seed, plan, settings.chunk),
        batches(take, count, tokenizer, config.context, batch_size, settings.seed, ours.opposite if plan else None),
        replace(settings.train, **never), run, seed=settings.seed, device=device, resume=settings.resume,
        evaluate=(lambda network: ours.measured(Ours(network, tokenizer))) if first else None,
        save=(lambda network: model.save(run, network, tokenizer, dtype=torch.bfloat16 if settings.half else None))
        if first else None,
    )  # fmt: skip
    if not first:
        return 0
    figures = {name: value for name, value in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal":  # the model as others load it
        figures = {f"val_{name}": value for name, value in ours.measured(find(run, devices.pick(device))).items()}
    about = (
        f"Says how well a {size}x{size} picture and a caption belong together: two transformers of together "
        f"{sum(p.numel() for p in network.parameters()):,} parameters, {network.config.embedding} features, scale "
        f"{network.scale().item():.1f}, {config.scores} loss. Training loss {outcome.metrics.get('loss', chance):.3f}, "
        f"chance is {chance:.3f}."
    )
    if encoder is not None:
        about += f" The image tower is that of {encoder.name}, and was not trained here (LiT)."
    command = cards.command(PROG, argv)
    title, words = "CLIP, trained with this toolkit", limits(settings, ours)
    card = cards.card(title, about, command, ours.about, outcome, figures, words, run)
    checkpoint.write_text(run / "README.md", card)
    cli.emit({"run": str(run), "steps": outcome.steps, "minutes": round(outcome.minutes, 2), **figures})
    return 1 if outcome.stopped == "signal" else 0


def limits(settings: TrainCLIP, ours) -> str:
    """What the figures mean and what the model cannot do, for the card."""
    captions = ours.judged["caption"]
    text = (
        f"val_image_to_text and val_text_to_image are recall at 1 among {len(captions)} held-out pairs (chance "
        f"{1 / max(1, len(set(captions))):.4f}). "
    )
    if settings.classes:
        text += f"val_classes_top1 is how often a held-out picture gets the name of its class among {len(ours.named.names):,}. "
    if settings.data or settings.classes:
        return text + "It knows the words and the kind of pictures it was trained on, and no others."
    return text + (
        "The held-out pairs show two concepts that were never shown together in training. val_unseen_style_top1 is how "
        "often an artist's drawing never trained on gets its own name among all, val_unseen_style_pixels_top1 what the "
        "nearest neighbour in 16x16 pixels reaches; val_trained_drawings_top1 is on drawings that were trained on. It "
        f"knows emoji-like drawings by their names (in {', '.join(('en', *settings.languages))}): on photographs it is near "
        "chance, so train on your own captioned photographs for those."
    )


def main(argv: list[str] | None = None) -> int:
    return cli.run(lambda settings: train(settings, argv), cli.parse(PRESETS, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
