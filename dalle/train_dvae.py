"""Train the discrete VAE: pictures in, a run directory out that `dalle.train --dvae RUN` and `dalle.sample` use.

python -m dalle.train_dvae bundled --out runs/dvae
python -m dalle.train_dvae bundled --data my_pictures/ --train.minutes 20
python -m dalle.train_dvae gumbel --train.minutes 5

Of the held-out pictures (1,024 of the default drawings, of which there is no end) are told: PSNR by hard codes, the share of
the codebook that they use, its perplexity; samples.png shows some before and after.
"""

import sys

from dalle.presets import DVAE_PRESETS, TrainDVAE
from multimodal import cli

PROG = "dalle.train_dvae"
SCENES = 1024  # of the default drawings, of which there is no end, that are held out to be judged
CURVE = 1024  # of the held-out pictures that are judged while training; at the end all are
CHUNK, SHOWN = 64, 16  # pictures judged together, and shown in samples.png


def train(settings: TrainDVAE, argv: list[str] | None) -> int:
    import torch

    from dalle import dvae, tokenizers
    from dalle.reconstruct import sheet
    from multimodal import cards, checkpoint, devices, images
    from multimodal.data import pairs
    from multimodal.data.sources import captioned
    from multimodal.training import begin, fit, shuffled

    config, run, where = settings.model, settings.out, devices.pick(settings.device)
    begin(settings)  # before any work
    torch.manual_seed(settings.seed)
    published = config.network == "published"
    model = dvae.Published(config) if published else dvae.DVAE(config)
    tokenizer = model.network if published else model  # what is kept and judged: `model` is what is trained
    source, held_out = captioned(settings.data, settings.seed, settings.concepts, captions=False, run=run)
    everything = len(held_out) if settings.data else SCENES
    behind = 0.0  # the part of the run

    def anneal(part: float) -> None:
        nonlocal behind
        behind = part

    def batches(index: int) -> dict:
        items = shuffled(index, settings.train.batch_size, len(source), settings.seed)
        return {"image": pairs.batch(source, items, config.size)["image"]}

    def loss(model, batch, step):
        temperature = dvae.temperature_at(behind, settings.temperature_part, settings.final_temperature)
        weight = dvae.annealed(behind, settings.kl_part, 0.0, settings.kl_weight)
        return dvae.loss(model, images.to_float(batch["image"]), temperature, weight, settings.straight_through)

    def judged(tokenizer, count: int) -> dict[str, float]:
        """PSNR by hard codes of the first `count` held-out pictures, how much of the codebook they use, and a sheet."""
        uses, total, shown = torch.zeros(config.vocabulary), 0.0, []
        for start in range(0, count, CHUNK):
            items = list(range(start, min(start + CHUNK, count)))
            pictures = images.to_float(pairs.batch(held_out, items, config.size)["image"].to(where))
            codes = tokenizer.encode(pictures)
            drawn = tokenizer.decode(codes)
            quality = dvae.psnr(drawn, pictures)
            uses += torch.bincount(codes.flatten(), minlength=config.vocabulary).cpu()
            total += quality.sum().item()
            if not start:
                of_each = zip(pictures.cpu(), drawn.float().cpu(), quality.tolist(), strict=True)
                shown = [{"before": before, "after": after, "psnr": quality} for before, after, quality in of_each]
        with checkpoint.replacing(run / "samples.png") as aside:
            sheet(shown[:SHOWN]).save(aside, "PNG")
        shares = uses / uses.sum()
        return {
            "psnr": total / count,
            "codes_used": (uses > 0).float().mean().item(),
            "code_perplexity": torch.special.entr(shares).sum().exp().item(),
        }

    def evaluate(_) -> dict[str, float]:
        return judged(tokenizer, min(everything, CURVE))

    dtype = torch.bfloat16 if settings.half else None
    outcome = fit(
        model, loss, batches, settings.train, run, seed=settings.seed, device=settings.device,
        resume=settings.resume, evaluate=evaluate, save=lambda _: tokenizers.save(run, tokenizer, dtype=dtype),
        anneal=anneal,
    )  # fmt: skip
    figures = {name: value for name, value in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal":  # the model as others load it
        figures = {f"val_{name}": value for name, value in judged(tokenizers.load(run, where), everything).items()}
    checkpoint.write_text(
        run / "README.md",
        cards.card(
            "Discrete VAE, trained with this toolkit",
            f"{config.size}x{config.size} pictures as {config.length} codes out of {config.vocabulary:,} "
            f"({config.quantizer}), {sum(p.numel() for p in model.parameters()):,} parameters.",
            cards.command(PROG, argv),
            cards.DRAWINGS if not settings.data else f"{len(source):,} pictures of the user.",
            outcome,
            figures,
            "It paints what its training pictures look like; others come out blurred and wrong in colour. "
            f"val_psnr is the mean in dB over {everything:,} held-out pictures, by hard codes; val_codes_used the share of the "
            "codebook that they use, val_code_perplexity how many equally frequent codes would carry as much.",
            run,
        ),
    )
    cli.emit({"run": str(run), "steps": outcome.steps, "minutes": round(outcome.minutes, 2), **figures})
    return 1 if outcome.stopped == "signal" else 0


def main(argv: list[str] | None = None) -> int:
    settings = cli.parse(DVAE_PRESETS, PROG, __doc__, argv)
    return cli.run(lambda settings: train(settings, argv), settings, PROG)


if __name__ == "__main__":
    sys.exit(main())
