"""Training a DALL·E beside DALLE-pytorch: speed and memory at equal shape, and what is learned in equal minutes.

    git clone https://github.com/lucidrains/DALLE-pytorch       (and what benchmarks/peers.py names)
    python benchmarks/dalle_train.py --peer DALLE-pytorch
    python benchmarks/dalle_train.py --peer DALLE-pytorch --learn 5

The first prints sequences a second and the peak memory of each side in a process of its own: a step of 16 pictures with their
captions, 32 text and 256 picture tokens. DALLE-pytorch as it ships encodes the pictures at every step, in fp32; "codes" gives
it codes, as ours has. With its dVAE frozen and ours on disk, neither's own training counts. Ours steps with Muon, as it trains.

`--learn MINUTES` trains both for as long on the same codes of the same drawings (by the bundled dVAE) and prints bits a picture
code on drawings that neither saw: theirs with Adam at 3e-4, its default, and in bf16 besides where the machine is faster with it;
ours as it trains, one position a code as there, and with blocks of 4x4 codes as the bundled model.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from benchmarks.dalle_draw import SMALL, blocks_of
from multimodal import cards, devices

BATCH, RATE = 16, 3e-4
SIDES = ("ours fp32", "ours bf16", "DALLE-pytorch fp32", "DALLE-pytorch bf16", "DALLE-pytorch codes bf16")


def precise(name: str):
    return torch.autocast("cpu", torch.bfloat16) if name.endswith("bf16") else nullcontext()


def our_model(block: int = 1, codes: int = SMALL["codes"], text: int = SMALL["text"], words: int = SMALL["words"]):
    from dalle.model import DALLE
    from dalle.presets import DALLEConfig

    torch.manual_seed(0)
    return DALLE(DALLEConfig(blocks_of(SMALL), words, text, SMALL["grid"], codes, block))


def stepper(name: str, peer: Path | None):
    """A function that makes a step of the side, and its parameters."""
    text = torch.randint(1, SMALL["words"], (BATCH, SMALL["text"]))
    codes = torch.randint(SMALL["codes"], (BATCH, SMALL["grid"] ** 2))
    pictures = torch.rand(BATCH, 3, SMALL["pixels"], SMALL["pixels"])
    if name.startswith("ours"):
        from dalle.model import loss
        from multimodal.config import TrainConfig
        from multimodal.optim import optimizers

        model = our_model()
        steppers = optimizers(model, TrainConfig())

        def value():
            return loss(model, text, codes, 0.1, 0.5)[0]
    else:
        model = peers.dalle(peers.dalle_pytorch(peer), SMALL)
        steppers = [torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE)]
        given = codes if "codes" in name else pictures

        def value():
            return model(text.clone(), given, return_loss=True)

    def step() -> None:
        with precise(name):
            found = value()
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in steppers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step, sum(p.numel() for n, p in model.named_parameters() if not n.startswith("vae."))


def peak(name: str, options) -> int:
    """Peak memory of a side in a process of its own, in MB."""
    command = [sys.executable, __file__, "--alone", name, "--threads", str(options.threads)]
    command += ["--peer", str(options.peer)] if options.peer else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["peak_mb"]


def speed(options) -> list[dict]:
    sides = [side for side in SIDES if options.peer or side.startswith("ours")]
    made = {side: stepper(side, options.peer) for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(options.repeats + 1):
        for side, (step, _) in made.items():
            began = time.perf_counter()
            step()
            if turn:  # the first is for warming up
                seconds[side].append(time.perf_counter() - began)
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    found = []
    for side, median in medians.items():
        row = {
            "side": side, "parameters": made[side][1], "sequences_per_second": round(BATCH / median, 2),
            "peak_mb": peak(side, options),
        }  # fmt: skip
        if options.peer:
            same = f"DALLE-pytorch {side.split()[-1]}"
            row |= {
                "times_shipped": round(medians["DALLE-pytorch fp32"] / median, 2),
                "times_same_precision": round(medians[same] / median, 2),
            }
        found.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return found


def drawings(count: int, split: str, dvae):
    """Codes (count, 256) and captions of default drawings."""
    from multimodal import images
    from multimodal.data import pairs
    from multimodal.data.drawings import Drawings

    source, codes, captions = Drawings(split=split, mixture={"single": 0.7, "colour": 0.3}), [], []
    for start in range(0, count, 64):
        batch = pairs.batch(source, list(range(start, min(start + 64, count))), dvae.config.size)
        with torch.no_grad():
            codes.append(dvae.encode(images.to_float(batch["image"])))
        captions += batch["caption"]
    return torch.cat(codes), captions


def learn(options) -> list[dict]:
    from dalle import dvae as dvaes
    from dalle import model as ours
    from multimodal import checkpoint
    from multimodal.config import TrainConfig
    from multimodal.tokenizer import Tokenizer
    from multimodal.training import fit, shuffled

    dvae = dvaes.load(checkpoint.find(None, "dalle") / "dvae")
    codes, captions = drawings(options.pictures, "train", dvae)
    held_codes, held_captions = drawings(512, "colours", dvae)
    tokenizer = Tokenizer.bpe(captions, SMALL["words"])
    length, vocabulary, grid = SMALL["text"], dvae.config.vocabulary, SMALL["grid"]
    text, held_text = (ours.encode_captions(tokenizer, said, length) for said in (captions, held_captions))
    found = []

    def batches(index: int) -> dict:
        items = shuffled(index, BATCH, len(codes), 0)
        return {"text": text[items], "codes": codes[items]}

    def told(side: str, model, steps: int, bits: float) -> None:
        parameters = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("vae."))
        found.append({"side": side, "parameters": parameters, "steps": steps, "bits_a_code": round(bits, 3)})
        print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)

    if options.peer:
        module = peers.dalle_pytorch(options.peer)
        for precision in ("fp32", "bf16") if devices.fast_bf16(torch.device("cpu")) else ("fp32",):
            sizes = SMALL | {"codes": vocabulary, "words": tokenizer.vocab_size + 1}
            model = peers.dalle(module, sizes)
            optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE)
            began, step = time.perf_counter(), 0
            while time.perf_counter() - began < 60 * options.learn:
                batch = batches(step)
                with precise(precision):
                    # its padding is 0, so that words begin at 1
                    value = model((batch["text"] + 1).clamp(min=0), batch["codes"], return_loss=True)
                value.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
            nats = 0.0
            model.eval()
            for t, c in zip(held_text.split(64), held_codes.split(64), strict=True):
                with torch.no_grad():
                    logits = model((t + 1).clamp(min=0), c)[:, length:, -vocabulary:]
                nats += torch.nn.functional.cross_entropy(logits.flatten(0, 1), c.flatten()).item() * len(t)
            told(f"DALLE-pytorch {precision}", model, step, nats / len(held_text) / math.log(2))
    for block in (1, 4):
        model = our_model(block, vocabulary, length, tokenizer.vocab_size)
        ordered = {"train": ours.to_blocks(codes, grid, block), "held": ours.to_blocks(held_codes, grid, block)}

        def ordered_batches(index: int, ordered=ordered) -> dict:
            items = shuffled(index, BATCH, len(codes), 0)
            return {"text": text[items], "codes": ordered["train"][items]}

        config = TrainConfig(
            steps=10**6, minutes=options.learn, batch_size=BATCH, lr=3e-3, embedding_lr=8.0, evaluate_every=10**9,
            save_every=10**9,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as run:
            outcome = fit(
                model, lambda m, b, _: ours.loss(m, b["text"], b["codes"], 0.0, 0.0), ordered_batches, config, Path(run),
                device="cpu",
            )  # fmt: skip
        model.eval()
        nats = 0.0
        for t, c in zip(held_text.split(64), ordered["held"].split(64), strict=True):
            with torch.no_grad():
                nats += ours.loss(model, t, c, 0.0, 0.0)[1]["code_loss"].item() * len(t)
        told(f"ours, blocks of {block}x{block}", model, outcome.steps, nats / len(held_text) / math.log(2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a clone of DALLE-pytorch")
    parser.add_argument("--learn", type=float, help="minutes that each side trains")
    parser.add_argument("--pictures", type=int, default=20_000, help="drawings that are trained on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5, help="steps of every side, in turns")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # one side, for its peak of memory
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        step, _ = stepper(options.alone, options.peer)
        for _ in range(2):
            step()
        status = Path("/proc/self/status").read_text()
        print(json.dumps({"peak_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024}))
        return
    rows = learn(options) if options.learn else speed(options)
    print(f"{options.threads} threads; {cards.hardware()}")
    if options.json:
        options.json.write_text(json.dumps({"hardware": cards.hardware(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
