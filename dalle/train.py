"""Train the transformer of a DALL·E: captioned pictures and a dVAE in, a run directory out that `dalle.sample` draws from.

python -m dalle.train bundled --dvae runs/dvae --out runs/dalle
python -m dalle.train bundled --dvae runs/dvae --data my_captioned_pictures/ --train.minutes 60
python -m dalle.train finetune --data my_captioned_pictures/ --out runs/my-dalle    the bundled one goes on with your pictures
"""

import sys

from dalle.presets import DALLE_PRESETS, DALLEConfig, TrainDALLE
from multimodal import cli

PROG = "dalle.train"
SHOWN = 48  # drawings judged while training, and shown in samples.png
# what the figures on the card are of
JUDGED_BY_USER = "The losses are nats a token on pictures that were held out, 256 at most."
JUDGED_BY_DRAWINGS = (
    "The losses are nats a token on concept pairs never seen together; val_top1 and val_top5 say how often the real rendering "
    "nearest in pixels to a drawing of one concept bears the name asked for (every concept drawn once; the curve judges "
    f"{SHOWN} of them)."
)


def train(settings: TrainDALLE, argv: list[str] | None) -> int:
    from dataclasses import replace

    import torch

    from dalle import judge, model, tokenizers
    from dalle.codes import encoded
    from dalle.drawing import draw_each
    from multimodal import cards, checkpoint, devices, images
    from multimodal.data.sources import captioned
    from multimodal.tokenizer import Tokenizer, caption
    from multimodal.training import begin, fit, shuffled

    run, where = settings.out, devices.pick(settings.device)
    begin(settings)  # before any work
    base = None
    if settings.model is not None:
        base = model.load(checkpoint.find(settings.model, "dalle"), where, training=True)
        settings = continued(settings, base)
    own = run / "dvae"  # a run goes on with the codes it began with
    codebook = (
        own if settings.resume and own.is_dir() else settings.dvae or checkpoint.find(settings.model, "dalle") / "dvae"
    )
    dvae = tokenizers.load(codebook, where)
    size = dvae.config.size
    source, held_out = captioned(settings.data, settings.seed, settings.concepts, run=run)
    if not settings.data:
        source = replace(source, mixture=settings.mixture)
    count = len(source) if settings.data else settings.scenes

    def encode(pictures):
        with devices.autocast(where, settings.train.precision), torch.no_grad():
            return dvae.encode(pictures.to(where))

    cache = settings.cache or run.parent / "codes"
    kept_codes = encoded(source, dvae, codebook, count, cache, encode, settings.views, settings.seed)
    held_kept = encoded(held_out, dvae, codebook, min(256, len(held_out)), cache, encode)
    cli.say(f"{len(kept_codes):,} pictures are codes in {kept_codes.folder}; preview.png there shows what they keep.")
    count, captions, held_captions = len(kept_codes), kept_codes.captions, held_kept.captions
    kept = run / "tokenizer.json"
    if base is not None:
        tokenizer = base.tokenizer
    elif settings.resume and kept.is_file():
        tokenizer = Tokenizer.load(kept)
    else:
        tokenizer = Tokenizer.bpe(map(caption, captions), settings.text_vocabulary)
    text = model.encode_captions(tokenizer, captions, settings.text_length)
    held_text = model.encode_captions(tokenizer, held_captions, settings.text_length)
    if cut := model.too_long(tokenizer, captions, settings.text_length):
        cli.say(f"{cut:,} of {count:,} captions are longer than {settings.text_length - 1} tokens and were cut.")

    torch.manual_seed(settings.seed)
    if base is not None:
        network = base.model.requires_grad_(True)
    else:
        network = model.DALLE(
            DALLEConfig(
                settings.transformer,
                text_vocabulary=tokenizer.vocab_size,
                text_length=settings.text_length,
                grid=dvae.config.grid,
                codes=dvae.config.vocabulary,
                block=settings.block,
                any_order=settings.any_order > 0,
                captions=settings.captions > 0,
            )
        )
    config = network.config
    held_codes = model.to_blocks(held_kept[:], config.grid, config.block)

    def batches(index: int) -> dict:
        items = shuffled(index, settings.train.batch_size, count, settings.seed)
        return {"text": text[items], "codes": model.to_blocks(kept_codes[items], config.grid, config.block)}

    # at least a row, where there is room for one, so that a small batch learns it too
    rows = settings.train.batch_size
    reading = min(rows - 1, max(1, round(settings.captions * rows))) if settings.captions else 0

    def loss(network, batch, step):
        order = (
            model.orders(len(batch["text"]), config.blocks, settings.any_order, where) if settings.any_order else None
        )
        return model.loss(
            network, batch["text"], batch["codes"], settings.caption_drop, settings.code_noise, order, reading
        )

    if settings.data:
        prompts, references, names = held_captions[:SHOWN], None, None
    else:
        references, names = renderings(held_out, size)
        prompts = sorted(set(names))

    def losses(artist) -> dict[str, float]:
        """On what is held out."""
        found: dict[str, float] = {}
        for t, c in zip(held_text.split(64), held_codes.split(64), strict=True):
            t, c, share = t.to(where), c.long().to(where), len(t) / len(held_text)
            figures = model.loss(artist.model, t, c, 0.0, 0.0)[1]
            if config.captions:  # every row read the other way; none is drawn then
                logits = artist.model(t, c, None, len(t))[0].float()
                each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), t.flatten(), ignore_index=model.PADDING)
                figures["caption_loss"] = each
            for name, value in figures.items():
                found[name] = found.get(name, 0.0) + float(value) * share
        return found

    def judged(artist, prompts: list[str]) -> dict[str, float]:
        """Held-out losses, and drawings judged against the real ones (default drawings only)."""
        found = losses(artist)
        seeds = list(range(len(prompts)))
        parts = [slice(i, i + 64) for i in range(0, len(prompts), 64)]
        drawn = [draw_each(artist, prompts[p], seeds[p]) for p in parts]
        pictures = torch.cat(drawn).float().cpu()
        shown = slice(None, None, max(1, len(prompts) // SHOWN))  # spread over the list
        with checkpoint.replacing(run / "samples.png") as aside:
            images.grid(pictures[shown][:SHOWN], 8, prompts[shown][:SHOWN]).save(aside, "PNG")
        if references is not None:
            ranks = judge.ranks(pictures, references, names, prompts)
            found |= {"top1": (ranks == 1).float().mean().item(), "top5": (ranks <= 5).float().mean().item()}
        return found

    def evaluate(network) -> dict[str, float]:
        spread = prompts[:: max(1, len(prompts) // SHOWN)][:SHOWN]
        return judged(model.Artist(network, dvae, tokenizer), spread)

    before = {}
    if base is not None:
        with torch.no_grad():
            before = losses(model.Artist(network.eval(), dvae, tokenizer))
        told = ", ".join(f"{name} {value:.3f}" for name, value in before.items())
        cli.say(f"before training, on what is held out: {told}")
    dtype = torch.bfloat16 if settings.half else None
    outcome = fit(
        network, loss, batches, settings.train, run, seed=settings.seed, device=settings.device,
        resume=settings.resume, evaluate=evaluate,
        save=lambda network: model.save(run, model.Artist(network, dvae, tokenizer), dtype=dtype),
    )  # fmt: skip
    figures = {name: value for name, value in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal":
        cli.say(f"judging the saved model by a drawing of each of {len(prompts)} captions")
        figures = {f"val_{name}": value for name, value in judged(model.load(run, where), prompts).items()}
    figures = {f"before_{name}": value for name, value in before.items()} | figures
    checkpoint.write_text(
        run / "README.md",
        cards.card(
            "DALL·E, trained with this toolkit",
            f"Draws {size}x{size} pictures from captions: a transformer of {sum(p.numel() for p in network.parameters()):,} "
            f"parameters over {config.length} codes of the dVAE in `dvae/`."
            + (f" It went on from {settings.model}, whose held-out losses are before_." if base else ""),
            cards.command(PROG, argv),
            cards.DRAWINGS + f" {count:,} scenes."
            if not settings.data
            else f"{len(source):,} captioned pictures of the user.",
            outcome,
            figures,
            "It draws what it was trained on: names outside its captions, long sentences and other kinds of picture are beyond "
            "it. " + (JUDGED_BY_USER if settings.data else JUDGED_BY_DRAWINGS),
            run,
        ),
    )
    if codebook != own and (codebook / "README.md").is_file():  # the card of the dVAE goes where its weights go
        checkpoint.write_text(run / "dvae" / "README.md", (codebook / "README.md").read_text(encoding="utf-8"))
    cli.emit({"run": str(run), "steps": outcome.steps, "minutes": round(outcome.minutes, 2), **figures})
    return 1 if outcome.stopped == "signal" else 0


def continued(settings: TrainDALLE, base) -> TrainDALLE:
    """The settings as far as the model that is trained on allows. Raises UserError where it cannot be trained here."""
    from dataclasses import replace

    from dalle.model import DALLE

    if not isinstance(base.model, DALLE):
        raise cli.UserError(f"--model {settings.model}: a {type(base.model).__name__} draws here, and is not trained.")
    config = base.model.config
    for name in ("any_order", "captions"):
        if getattr(settings, name) and not getattr(config, name):
            cli.say(f"{settings.model} was not trained with {name}: it goes on without.")
            settings = replace(settings, **{name: 0.0})
    return replace(settings, transformer=config.transformer, block=config.block, text_length=config.text_length)


def renderings(drawings, size: int):
    """All real renderings (r 3 size size) in [0, 1] of single concepts, and the r names: what drawings are judged by."""
    import torch

    from multimodal.data.drawings import STYLES

    names = [concept.name for concept in drawings.concepts for _ in STYLES]
    pictures = [drawings.canonical(concept, style, size) for concept in drawings.concepts for style in STYLES]
    return torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]) / 255, names


def main(argv: list[str] | None = None) -> int:
    settings = cli.parse(DALLE_PRESETS, PROG, __doc__, argv)
    return cli.run(lambda settings: train(settings, argv), settings, PROG)


if __name__ == "__main__":
    sys.exit(main())
