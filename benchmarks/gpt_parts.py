"""What the modern parts and the optimisers are worth at the scale of one core: a small table, tuned and seeded.

    python benchmarks/gpt_parts.py
    python benchmarks/gpt_parts.py --steps 1000 --seeds 5 --json parts.json

A model of 0.8M parameters (4 blocks of width 128, context 64) reads Shakespeare's plays by characters, the same tokens for
every row; it is judged on the three plays that are held out, by windows of the context. First GPT-2's blocks and ours, each with
AdamW and with Muon, each at the best of --rates by the first seed (tuning is told); then ours with one part taken out or put
back, at the rate found. Means and deviations over the seeds; seconds are CPU time of the training.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpt_train import validation_loss
from gpt.model import GPT, next_token_loss
from gpt.presets import GPTConfig
from multimodal import cards, cli
from multimodal.config import TrainConfig, TransformerConfig, gpt2, modern
from multimodal.data import text, tokens
from multimodal.tokenizer import Tokenizer
from multimodal.training import fit

CONTEXT, OURS = 64, modern(128, 4, 4)
PARTS = {
    "learned positions instead of rotary": replace(OURS, rotary_axes=0),
    "no QK-norm": replace(OURS, qk_norm=False),
    "GELU instead of ReLU squared": replace(OURS, activation="gelu_tanh"),
    "no value residual, no embedding shortcut": replace(OURS, shortcuts=False),
    "norms with gain and bias, GPT-2's start": replace(OURS, norm_gain=True),
    "linear maps with bias": replace(OURS, bias=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of 16 windows each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cli.say = lambda *_: None  # the runs talk too much for a table

    documents = text.default_corpora()["shakespeare"]
    train, held = text.split(documents)
    tokenizer = Tokenizer.characters(document.text for document in documents)
    judged = np.concatenate([tokenizer.encode(document.text) for document in held])
    rows: list[dict] = []

    with tempfile.TemporaryDirectory() as scratch:
        file = tokens.write(Path(scratch) / "train.tokens", [document.text for document in train], tokenizer)

        def run(blocks: TransformerConfig, optimizer: str, lr: float, seed: int) -> tuple[float, float, int]:
            """(nats a character, CPU seconds, parameters)"""
            config = TrainConfig(
                steps=options.steps, batch_size=16, optimizer=optimizer, lr=lr, cooldown=0.9,
                evaluate_every=10**9, save_every=10**9,
            )  # fmt: skip
            torch.manual_seed(seed)
            model = GPT(GPTConfig(tokenizer.vocab_size, CONTEXT, blocks))
            began = time.process_time()
            with tempfile.TemporaryDirectory() as run:
                batches = tokens.batches([file], [1.0], config.batch_size, CONTEXT, seed)
                fit(model, next_token_loss, batches, config, Path(run), seed=seed, device="cpu")
            seconds = time.process_time() - began
            model.eval()
            return validation_loss(model, judged, CONTEXT), seconds, sum(p.numel() for p in model.parameters())

        def row(name: str, blocks: TransformerConfig, optimizer: str, rates: list[float]) -> dict:
            tuning = {lr: run(blocks, optimizer, lr, 0) for lr in rates}
            best = min(tuning, key=lambda lr: tuning[lr][0])
            found = [tuning[best], *(run(blocks, optimizer, best, seed) for seed in range(1, options.seeds))]
            losses = [loss for loss, _, _ in found]
            rows.append({
                "blocks": name, "optimizer": optimizer, "lr": best, "parameters": found[0][2],
                "loss": round(statistics.fmean(losses), 4),
                "deviation": round(statistics.stdev(losses), 4) if len(losses) > 1 else None,
                "seconds": round(statistics.fmean(seconds for _, seconds, _ in found), 1),
                "tuning": {f"{lr:g}": round(loss, 4) for lr, (loss, _, _) in tuning.items()},
            })  # fmt: skip
            print(
                f"{name:42} {optimizer:6} lr {best:<6g} {found[0][2]:>9,} parameters  {rows[-1]['loss']:.4f} ± "
                f"{rows[-1]['deviation'] or 0:.4f}  {rows[-1]['seconds']:6.1f} s   {rows[-1]['tuning']}",
                flush=True,
            )
            return rows[-1]

        for name, blocks in (("GPT-2", gpt2(128, 4, 4)), ("ours", OURS)):
            for optimizer in ("adamw", "muon"):
                found = row(name, blocks, optimizer, options.rates)
        for name, blocks in PARTS.items():
            row(name, blocks, "muon", [found["lr"]])
    print(f"{options.threads} threads; {cards.hardware()}")
    if options.json:
        report = {"hardware": cards.hardware(), "steps": options.steps, "seeds": options.seeds, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
