"""Train several sizes of language model on the same text, and draw how the loss falls with size: "no plateau".

    python -m gpt.scaling --out runs/scaling
    python -m gpt.scaling --widths 64 128 256 512 --tokens 20e6 --data notes/ --out runs/notes

Every size is a run directory of gpt.train below --out, and goes on with --resume. Beside them stand scaling.jsonl (a line a
size) and scaling.png: the held-out loss against the FLOPs spent, a line a size, and against the parameters at the end, with
the power law that fits the latter (Kaplan et al. 2020, figure 1; Brown et al. 2020, figure 3.1).
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from multimodal import cli
from multimodal.cli import Common, UserError
from multimodal.config import TrainConfig

PROG = "gpt.scaling"


@dataclass(frozen=True)
class Scaling(Common):
    """Trains language models of several sizes on the same tokens and plots their losses."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    """The sizes: a model of width w has w / 32 blocks, 2 at least, and heads of 32 features."""
    tokens: float = 2e6
    """Tokens that each size is trained on."""
    context: int = 128
    """Tokens of a window."""
    vocabulary: int = 2048
    """Largest vocabulary of the tokenizer, which is the same for all."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=16, lr=5e-3, embedding_lr=1.0, evaluate_every=100)
    )
    """How each is trained; its steps follow from --tokens."""
    data: tuple[Path, ...] = ()
    """Text, as for gpt.train; without it the default texts."""
    out: Path = Path("runs/scaling")
    """A directory for the runs and the picture."""
    resume: bool = False
    """Go on: sizes that are finished stay, one that was stopped continues."""
    json: bool = False
    """Print a line a size for programs instead of a table."""


def scale(settings: Scaling) -> int:
    if not settings.widths or any(width < 32 or width % 32 for width in settings.widths):
        raise UserError(f"--widths {' '.join(map(str, settings.widths))}: give multiples of 32, such as 32 64 128.")
    steps = int(settings.tokens // (settings.train.batch_size * settings.train.accumulate * settings.context))
    if steps < 1:
        raise UserError(f"--tokens {settings.tokens:g} are less than one step's; give more.")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("the picture needs matplotlib: pip install 'multimodal-text-image[bench]'.") from None
    import contextlib
    import io
    import json
    from dataclasses import replace

    from gpt import train
    from gpt.presets import GPTConfig, TrainGPT
    from gpt.sizes import size
    from multimodal import checkpoint
    from multimodal.config import modern
    from multimodal.training import STATE

    found = []
    with cli.bar(total=len(settings.widths), unit="size", desc="sizes") as shown:
        for width in sorted(set(settings.widths)):
            run = settings.out / f"width-{width}"
            blocks = modern(width, max(2, width // 32), width // 32)
            going = settings.resume and (run / STATE).exists()
            asked = TrainGPT(
                seed=settings.seed, device=settings.device, debug=settings.debug, transformer=blocks,
                train=replace(settings.train, steps=steps), context=settings.context, data=settings.data,
                vocabulary=settings.vocabulary, out=run, resume=going,
            )  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()):  # the run's own line is not a result here
                if train.train(asked, ["(by gpt.scaling)"]):
                    return 1
            config = json.loads((run / "config.json").read_text(encoding="utf-8"))
            cost = size(GPTConfig.from_dict({k: v for k, v in config.items() if k not in ("kind", "version")}))
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            a_step = settings.train.batch_size * settings.train.accumulate * settings.context * cost.train_flops
            curve = [(line["step"] * a_step, line["val_loss"]) for line in lines if "val_loss" in line]
            if not curve:
                raise UserError(f"{run} was never judged: the text is too small to hold any of it out.")
            found.append({
                "run": str(run), "width": width, "parameters": cost.parameters, "flops": curve[-1][0],
                "val_loss": curve[-1][1], "seconds": lines[-1]["seconds"], "curve": curve,
            })  # fmt: skip
            if settings.json:
                cli.emit({k: v for k, v in found[-1].items() if k != "curve"})
            shown.update()
    checkpoint.write_text(settings.out / "scaling.jsonl", "".join(json.dumps(row) + "\n" for row in found))
    law = plot(found, settings.out / "scaling.png")
    if not settings.json:
        print(f"{'width':>6} {'parameters':>12} {'FLOPs':>9} {'minutes':>8} {'val_loss':>9}")
        for row in found:
            print(f"{row['width']:>6} {row['parameters']:>12,} {row['flops']:>9.2e} {row['seconds'] / 60:>8.1f} "
                  f"{row['val_loss']:>9.4f}")  # fmt: skip
        print(f"{law}\n{settings.out / 'scaling.png'}")
    return 0


def plot(found: list[dict], path: Path) -> str:
    """Draws the picture; returns the power law of loss against parameters in words."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.ticker import LogFormatter, NullFormatter

    from multimodal.checkpoint import replacing

    parameters = np.array([row["parameters"] for row in found], float)
    losses = np.array([row["val_loss"] for row in found])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(found)))
    for row, colour in zip(found, colours, strict=True):
        flops, loss = zip(*row["curve"], strict=True)
        left.plot(flops, loss, color=colour, label=f"{row['parameters']:,} parameters", marker=".", markersize=3)
    left.set(xscale="log", yscale="log", xlabel="FLOPs of training", ylabel="held-out loss (nats a token)")
    left.legend(frameon=False, fontsize=8)
    right.scatter(parameters, losses, color=colours, zorder=3)
    right.set(xscale="log", yscale="log", xlabel="parameters", ylabel="held-out loss at the end")
    law = "one size has no law"
    if len(found) > 1:
        slope, height = np.polyfit(np.log(parameters), np.log(losses), 1)
        line = np.geomspace(parameters.min() / 1.5, parameters.max() * 1.5, 50)
        right.plot(line, np.exp(height) * line**slope, color="0.6", linewidth=1, zorder=1)
        law = f"loss = {np.exp(height):.3g} * parameters^{slope:.3f}"
        right.set_title(law, fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    with replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=130)
    plt.close(figure)
    return law


def main(argv: list[str] | None = None) -> int:
    return cli.run(scale, cli.parse(Scaling, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
