"""Train the discrete VAE: pictures in, a run directory out that `dalle.train --dvae RUN` and `dalle.sample` use.

python -m dalle.train_dvae bundled --out runs/dvae
python -m dalle.train_dvae bundled --data my_pictures/ --train.minutes 20
"""

import sys

from dalle.presets import DVAE_PRESETS, TrainDVAE
from multimodal import cli

PROG = "dalle.train_dvae"


def train(settings: TrainDVAE, argv: list[str] | None) -> int:
    import torch
    from einops import rearrange

    from dalle import dvae
    from multimodal import cards, checkpoint, devices, images
    from multimodal.data import pairs
    from multimodal.data.sources import captioned
    from multimodal.training import begin, fit, shuffled

    config, run, where = settings.model, settings.out, devices.pick(settings.device)
    begin(settings)  # before any work
    torch.manual_seed(settings.seed)
    model = dvae.DVAE(config)
    source, held_out = captioned(settings.data, settings.seed, settings.concepts, captions=False)
    steps = settings.train.steps
    if config.quantizer == "gumbel" and settings.train.minutes:
        cli.say(
            f"the temperature falls over --train.steps {steps:,}: should {settings.train.minutes:g} minutes end before, the "
            "codes will not have hardened; give the steps that fit."
        )

    def batches(index: int) -> dict:
        items = shuffled(index, settings.train.batch_size, len(source), settings.seed)
        return {"image": pairs.batch(source, items, config.size)["image"]}

    def loss(model, batch, step):
        temperature = dvae.temperature_at(step, steps, settings.final_temperature)
        weight = settings.kl_weight * min(1.0, step / max(1, steps // 10))
        return dvae.loss(model, images.to_float(batch["image"]), temperature, weight)

    judged = pairs.batch(held_out, list(range(min(256, len(held_out)))), config.size)["image"]

    def evaluate(model) -> dict[str, float]:
        """PSNR by hard codes on held-out pictures, how much of the codebook they use, and a grid to look at."""
        pictures = images.to_float(judged).to(where)
        codes, drawn = [], []
        for chunk in pictures.split(64):
            codes.append(model.encode(chunk))
            drawn.append(model.decode(codes[-1]))
        codes, drawn = torch.cat(codes), torch.cat(drawn)
        shares = torch.bincount(codes.flatten(), minlength=config.vocabulary).float() / codes.numel()
        columns = min(8, len(drawn))
        count = min(32, len(drawn)) // columns * columns  # whole rows
        shown = torch.stack((pictures[:count], drawn[:count]))
        shown = rearrange(shown, "pair (y x) c h w -> (y pair x) c h w", x=columns)
        with checkpoint.replacing(run / "samples.png") as aside:
            images.grid(shown, columns).save(aside, "PNG")
        return {
            "psnr": dvae.psnr(drawn, pictures).mean().item(),
            "codes_used": (shares > 0).float().mean().item(),
            "code_perplexity": torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum()).item(),
        }

    dtype = torch.bfloat16 if settings.half else None
    outcome = fit(
        model, loss, batches, settings.train, run, seed=settings.seed, device=settings.device,
        resume=settings.resume, evaluate=evaluate, save=lambda model: dvae.save(run, model, dtype=dtype),
    )  # fmt: skip
    figures = {name: value for name, value in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal":  # the model as others load it
        figures = {f"val_{name}": value for name, value in evaluate(dvae.load(run, where)).items()}
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
            "It paints what its training pictures look like; photographs come out blurred and wrong in colour. "
            "val_psnr is the mean in dB over held-out pictures, by hard codes; val_codes_used the share of the codebook that "
            "they use, val_code_perplexity how many equally frequent codes would carry as much.",
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
