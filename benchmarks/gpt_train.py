"""Training beside nanoGPT, on the same text, in one process: loss on the whole validation split, and time.

    git clone https://github.com/karpathy/nanoGPT
    python benchmarks/gpt_train.py --nanogpt nanoGPT --text tinyshakespeare.txt
    python benchmarks/gpt_train.py --nanogpt nanoGPT --text tinyshakespeare.txt --large 10

The first is nanoGPT's own CPU recipe (its README: 4 layers, 4 heads, width 128, context 64, 12 windows a step, 2,000 steps,
by characters), then ours with no more parameters: as many tokens, a fifth of its time, and as long. `--large MINUTES` is its
10.7M configuration (6 layers, width 384, context 256), both sides for that long. nanoGPT runs as it is, its model, its
optimiser, its schedule; torch's threads are the same for both. `--repeats` alternates the sides.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt.model import GPT, next_token_loss
from gpt.presets import GPTConfig
from multimodal import cards, devices
from multimodal.config import TrainConfig, modern
from multimodal.data import tokens
from multimodal.tokenizer import Tokenizer
from multimodal.training import fit

# nanoGPT's README, "i only have a macbook", and config/train_shakespeare_char.py
SMALL = {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12, "steps": 2000, "dropout": 0.0}
LARGE = {"layers": 6, "heads": 6, "width": 384, "context": 256, "batch": 64, "steps": 5000, "dropout": 0.2}
OURS_SMALL = TrainConfig(
    steps=100_000, batch_size=16, lr=2e-2, warmup=0.02, cooldown=0.9, evaluate_every=10**9, save_every=10**9
)
OURS_LARGE = replace(OURS_SMALL, batch_size=16, lr=3e-3)


def validation_loss(logits, ids: np.ndarray, context: int) -> float:
    """Nats a character over all of `ids`, cut into windows of the context; logits((b n) tokens) -> (b n v)."""
    total, count = 0.0, (len(ids) - 1) // context
    inputs = torch.from_numpy(ids[: count * context].astype(np.int64)).view(count, context)
    targets = torch.from_numpy(ids[1 : count * context + 1].astype(np.int64)).view(count, context)
    with torch.no_grad():
        for x, y in zip(inputs.split(128), targets.split(128), strict=True):
            total += F.cross_entropy(logits(x).flatten(0, 1).float(), y.flatten(), reduction="sum").item()
    return total / targets.numel()


def nanogpt(module, train: np.ndarray, valid: np.ndarray, vocabulary: int, sizes: dict, minutes: float | None) -> dict:
    """Its model, optimiser and schedule (as train.py has them), until its steps, or the minutes, are over."""
    torch.manual_seed(1337)
    config = module.GPTConfig(
        block_size=sizes["context"], vocab_size=vocabulary, n_layer=sizes["layers"], n_head=sizes["heads"],
        n_embd=sizes["width"], dropout=sizes["dropout"], bias=False,
    )  # fmt: skip
    model = module.GPT(config).train()
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    context, steps, warm = sizes["context"], sizes["steps"], 100
    began, step = time.perf_counter(), 0
    while step < steps and (minutes is None or time.perf_counter() - began < 60 * minutes):
        done = step / steps if minutes is None else (time.perf_counter() - began) / (60 * minutes)
        rate = 1e-3 * (step + 1) / (warm + 1) if step < warm else 1e-4 + 9e-4 * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(train) - context, (sizes["batch"],))
        rows = np.stack([train[i : i + context + 1] for i in starts.tolist()]).astype(np.int64)
        rows = torch.from_numpy(rows)
        _, loss = model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    seconds = time.perf_counter() - began
    model.eval()
    # with targets it gives the logits of every position
    loss = validation_loss(lambda x: model(x, x)[0], valid, context)
    return row("nanoGPT", model, step, step * sizes["batch"] * context, seconds, loss, "fp32")


def ours(name: str, files, valid: np.ndarray, vocabulary: int, sizes: dict, settings: TrainConfig) -> dict:
    torch.manual_seed(0)
    blocks = modern(sizes["width"], sizes["layers"], sizes["heads"])
    model = GPT(GPTConfig(vocabulary, sizes["context"], blocks))
    batches = tokens.batches([files], [1.0], settings.batch_size, sizes["context"], 0)
    with tempfile.TemporaryDirectory() as scratch:
        outcome = fit(model, next_token_loss, batches, settings, Path(scratch), device="cpu")
    model.eval()
    loss = validation_loss(model, valid, sizes["context"])
    seen = outcome.steps * settings.batch_size * sizes["context"]
    precision = devices.precision(torch.device("cpu"))
    return row(name, model, outcome.steps, seen, 60 * outcome.minutes, loss, precision)


def row(name: str, model, steps: int, seen: int, seconds: float, loss: float, precision: str) -> dict:
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "side": name, "parameters": parameters, "steps": steps, "tokens": seen, "seconds": round(seconds, 1),
        "tokens_per_second": round(seen / seconds), "val_loss": round(loss, 4), "precision": precision,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a clone of nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare (nanoGPT's data/shakespeare_char)")
    parser.add_argument("--large", type=float, help="the 10.7M configuration, for so many minutes a side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sys.path.insert(0, str(options.nanogpt))
    import model as module  # nanoGPT's

    text = options.text.read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    tokenizer = Tokenizer.characters([text])
    characters = sorted(set(text))
    table = {c: i for i, c in enumerate(characters)}
    theirs = [np.array([table[c] for c in part], np.uint16) for part in (text[:cut], text[cut:])]
    mine = np.array(tokenizer.encode(text[cut:]), np.uint16)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        file = tokens.write(Path(scratch) / "train.tokens", [text[:cut]], tokenizer)
        for _ in range(options.repeats):
            if options.large:
                found.append(nanogpt(module, *theirs, len(characters), LARGE, options.large))
                settings = replace(OURS_LARGE, minutes=options.large)
                found.append(ours("ours", file, mine, tokenizer.vocab_size, LARGE, settings))
            else:
                found.append(nanogpt(module, *theirs, len(characters), SMALL, None))
                minutes = found[-1]["seconds"] / 60
                equal = replace(OURS_SMALL, steps=SMALL["steps"], batch_size=SMALL["batch"])
                for name, settings in (
                    ("ours, as many tokens", equal),
                    ("ours, a fifth of its time", replace(OURS_SMALL, minutes=minutes / 5)),
                    ("ours, as long", replace(OURS_SMALL, minutes=minutes)),
                ):
                    found.append(ours(name, file, mine, tokenizer.vocab_size, SMALL, settings))
    names = list(found[0])
    lines = [names, *([str(line[name]) for name in names] for line in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    sides = list(dict.fromkeys(line["side"] for line in found))
    medians = {side: statistics.median(x["val_loss"] for x in found if x["side"] == side) for side in sides}
    print(f"medians of val_loss: {medians}\n{cards.hardware()}")
    if options.json:
        options.json.write_text(json.dumps({"hardware": cards.hardware(), "rows": found, "medians": medians}, indent=2))


if __name__ == "__main__":
    main()
