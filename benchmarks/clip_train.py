"""Training a CLIP beside open_clip: speed and memory at equal towers, and what is learned in equal minutes.

    python benchmarks/clip_train.py
    python benchmarks/clip_train.py --towers ViT-S-32-alt --repeats 3
    python benchmarks/clip_train.py --learn 10

The first prints pairs a second for steps taken in turns. The towers are of the same configuration on all sides, ours on
the shared backbone; captions are those of the default drawings. open_clip steps with its own loss, its own AdamW and its
trainer's 77 tokens; "cut by hand" is the same with captions padded to the longest only. Ours groups captions by length;
"own words" besides learns its vocabulary from the captions instead of holding open_clip's 49,408, as clip.train does.
Then memory: the peak of each side in a process of its own, and what of it the step took beyond the loaded model.

`--learn MINUTES` trains on one artist's drawings and judges on the other's, whom nobody trained on: `clip.train bundled`
as it comes, beside open_clip's towers of the same sizes with our vocabulary, hence as many parameters, at its trainer's defaults
(batch 64, lr 5e-4, weight decay 0.2, warm-up of 10,000 steps, RandomResizedCrop 0.9 to 1, bf16), and once more with a batch of
256, a rate of 1e-3 and a warm-up of 2 % of the run, for who knows that the defaults are for a cluster.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip.presets import CLIPConfig, vit
from multimodal import cards

# sizes of `vit`: pixels, patch, width, depth, embedding, width and depth of the text tower
TOWERS = {"small": (64, 16, 128, 4, 128, 128, 3), "ViT-S-32-alt": (224, 32, 384, 12, 256, 256, 10)}
SIDES = ("open_clip", "open_clip, cut by hand", "ours", "ours, own words")
MEMORY = (
    ("ours", 64, 0), ("ours", 1024, 64), ("ours", 1024, 0), ("open_clip", 64, 0), ("open_clip", 1024, 0),
)  # fmt: skip
STYLES = ("twemoji", "openmoji")  # trained on, judged on


def config(towers: str, **changes) -> CLIPConfig:
    from dataclasses import replace

    return replace(vit(*TOWERS[towers], activation="gelu"), **changes)


def theirs(towers: str, context: int = 77, vocabulary: int = 49_408, features: int | None = None):
    """open_clip's model of the same configuration, or with other `features` of the vectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from open_clip.model import CLIP

    ours = config(towers)
    size, patch, width, depth, embedding, text_width, text_depth = TOWERS[towers]
    torch.manual_seed(0)
    return CLIP(
        features or embedding,
        {"image_size": size, "patch_size": patch, "width": width, "layers": depth, "head_width": width // ours.image.heads},
        {"context_length": context, "vocab_size": vocabulary, "width": text_width, "heads": ours.text.heads,
         "layers": text_depth},
        output_dict=True,
    )  # fmt: skip


def adamw(model, lr: float) -> torch.optim.Optimizer:
    """As open_clip's trainer makes it (params.py and main.py of 3.3)."""
    plain = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n  # noqa: E731
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if plain(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not plain(n, p)], "weight_decay": 0.2},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6)


def material(count: int, size: int) -> dict:
    """Pictures, captions and identities of default drawings."""
    from multimodal.data import pairs
    from multimodal.data.drawings import Drawings

    return pairs.batch(Drawings(), list(range(count)), size)


def words(batch: dict, own: bool):
    """(tokens, size of the vocabulary, end token): open_clip's, or learned from the captions."""
    import open_clip

    from clip.model import tokenize
    from multimodal.tokenizer import Tokenizer, caption

    if not own:
        return open_clip.SimpleTokenizer()(batch["caption"], 77), 49_408, 49_407
    tokenizer = Tokenizer.bpe(map(caption, material(5000, 8)["caption"]), 2048)
    return tokenize(tokenizer, batch["caption"], 77)[0], tokenizer.vocab_size, tokenizer.end


def stepper(side: str, towers: str, batch: dict, precision: str, chunk: int = 0):
    """A function that makes a step of the side on the batch, and the model."""
    precise = lambda: torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()  # noqa: E731
    tokens, vocabulary, end = words(batch, side.endswith("own words"))
    if side.startswith("ours"):
        from clip.contrast import loss_of, named
        from clip.model import CLIP
        from multimodal.config import TrainConfig
        from multimodal.optim import optimizers

        model = CLIP(config(towers, vocabulary=vocabulary, end=end))
        settings = TrainConfig(optimizer="adamw", lr=5e-4, weight_decay=0.2)
        steppers, loss = optimizers(model, settings), loss_of(model, 0, None, chunk)
        b = len(tokens)
        given = {
            "image": batch["image"], "text": tokens, "identity": named(batch["identity"], tokens),
            "may": torch.zeros(b, 2, dtype=torch.bool),
        }  # fmt: skip

        def value():
            return loss(model, given, 1)[0]  # not a step at which it is looked whether it learns

    else:
        from open_clip import ClipLoss

        model = theirs(towers)
        steppers, loss = [adamw(model, 5e-4)], ClipLoss()
        if "cut" in side:
            longest = int((tokens != 0).sum(1).max())
            tokens = tokens[:, :longest]
            model.positional_embedding.data = model.positional_embedding.data[:longest]
            model.attn_mask = model.attn_mask[:longest, :longest]
        ours = config(towers)
        mean, std = (torch.tensor(c).reshape(3, 1, 1) for c in (ours.mean, ours.std))
        pictures = (batch["image"].float() / 255 - mean) / std  # its loader gives them so

        def value():
            return sum(loss(**model(pictures, tokens), output_dict=True).values())

    def step() -> None:
        for optimizer in steppers:
            optimizer.zero_grad()
        with precise():
            found = value()
        found.backward()
        if side.startswith("ours"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in steppers:
            optimizer.step()
        if not side.startswith("ours"):
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))

    return step, model.train()


def speed(options) -> list[dict]:
    batch, found = material(options.batch, TOWERS[options.towers][0]), []
    for precision in options.precisions:
        made = {side: stepper(side, options.towers, batch, precision) for side in SIDES}
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(options.repeats + 1):
            for side, (step, _) in made.items():
                began = time.perf_counter()
                step()
                if turn:  # the first is for warming up
                    seconds[side].append(time.perf_counter() - began)
        medians = {side: statistics.median(times) for side, times in seconds.items()}
        for side, median in medians.items():
            told({
                "side": side, "precision": precision, "parameters": sum(p.numel() for p in made[side][1].parameters()),
                "pairs_per_second": round(options.batch / median, 1), "times": round(medians["open_clip"] / median, 2),
            }, found)  # fmt: skip
    return found


def memory(options) -> list[dict]:
    """Peaks in processes of their own."""
    found, first = [], None
    for side, batch, chunk in MEMORY:
        command = [sys.executable, __file__, "--alone", side, "--batch", str(batch), "--chunk", str(chunk)]
        command += [
            "--towers",
            options.towers,
            "--threads",
            str(options.threads),
            "--precisions",
            options.precisions[0],
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{side}, batch {batch}: it could not be measured: {done.stderr.splitlines()[-1:]}")
            continue
        row = {"side": side, "batch": batch, "chunk": chunk, **json.loads(done.stdout.splitlines()[-1])}
        first = first or row["peak_mb"]
        told(row | {"times": round(row["peak_mb"] / first, 2)}, found)
    return found


def alone(options) -> None:
    """One side: what two steps take at most, and what was taken before."""

    def mb(what: str) -> int:
        return int(Path("/proc/self/status").read_text().split(what)[1].split()[0]) // 1024

    step, _ = stepper(options.alone, options.towers, material(options.batch, TOWERS[options.towers][0]),
                      options.precisions[0], options.chunk)  # fmt: skip
    idle = mb("VmRSS:")
    for _ in range(2):
        step()
    print(json.dumps({"peak_mb": mb("VmHWM:"), "step_mb": mb("VmHWM:") - idle}))


def told(row: dict, found: list[dict]) -> None:
    found.append(row)
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def learn(options) -> list[dict]:
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "ours"
        command = [sys.executable, "-m", "clip.train", options.preset, "--styles", STYLES[0], "--out", str(run)]
        command += ["--train.minutes", str(options.learn), "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
        if done.returncode:
            sys.exit(done.stderr)
        figures = json.loads(done.stdout)
        from clip.trainable import trainable

        model = trainable(run)
        count = sum(p.numel() for p in model.network.parameters())
        told({
            "side": f"clip.train {options.preset}", "parameters": count, "steps": figures["steps"],
            "top1": round(figures["val_unseen_style_top1"], 4), "top5": round(figures["val_unseen_style_top5"], 4),
        }, found)  # fmt: skip
        pixels = figures["val_unseen_style_pixels_top1"]
        for side, batch, lr, warmup in (("its defaults", 64, 5e-4, 10_000), ("scaled by hand", 256, 1e-3, None)):
            told(peer(f"open_clip, {side}", model.tokenizer, options.learn, batch, lr, warmup), found)
    told({"side": "nearest neighbour in pixels", "top1": round(pixels, 4)}, found)
    return found


def peer(side: str, tokenizer, minutes: float, batch_size: int, lr: float, warmup: int | None) -> dict:
    """open_clip's trainer on the same drawings for so many minutes."""
    import open_clip
    from open_clip_train.scheduler import cosine_lr
    from torch import Tensor

    from clip import judge
    from clip.encoder import Encoder
    from clip.material import drawn
    from clip.model import tokenize
    from clip.presets import PRESETS
    from multimodal import images
    from multimodal.data import pairs
    from multimodal.data.drawings import Drawings
    from multimodal.training import shuffled

    preset = PRESETS["bundled"][1]
    size, context, v = preset.model.size, preset.model.context, tokenizer.vocab_size
    # the token of the largest number is where its text tower looks for the caption's vector
    model = theirs("small", context, v + 2, 384).train()  # wide vectors, for as many parameters as ours has in its stem
    ours = config("small")
    fit = open_clip.image_transform(size, True, ours.mean, ours.std, aug_cfg={"scale": (0.9, 1.0)})
    look = open_clip.image_transform(size, False, ours.mean, ours.std)
    source = Drawings(concepts=preset.concepts, styles=(STYLES[0],), mixture=preset.mixture, languages=preset.languages,
                      length=10**6)  # fmt: skip

    def read(texts) -> Tensor:
        rows = [tokenize(tokenizer, [text], context - 1)[0][0].tolist() for text in texts]
        rows = [[v, *row[: row.index(tokenizer.end)], v + 1] for row in rows]
        return torch.tensor([row + [0] * (context - len(row)) for row in rows])

    def batch(index: int) -> tuple[Tensor, Tensor]:
        found = pairs.batch(source, shuffled(index, batch_size, len(source), 0), size)
        return torch.stack([fit(images.to_pil(picture)) for picture in found["image"]]), read(found["caption"])

    class Peer(Encoder):
        name, bias, scores, digest = "open_clip", 0.0, "softmax", ""
        scale = 1.0

        def prepare(self, picture):
            return images.square(picture, size)

        def embed_images(self, pictures):
            parts = [torch.stack([look(images.to_pil(one)) for one in part]) for part in pictures.split(256)]
            with torch.inference_mode():
                return torch.cat([model.encode_image(part, normalize=True) for part in parts])

        def embed_texts(self, texts):
            with torch.inference_mode():
                return torch.cat([model.encode_text(part, normalize=True) for part in read(texts).split(256)])

        def too_long(self, texts):
            return 0

    optimizer, loss = adamw(model, lr), open_clip.ClipLoss()
    began, step, schedule = time.perf_counter(), 0, None
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(batch, 0)
        while (used := time.perf_counter() - began) < 60 * minutes:
            pictures, tokens = coming.result()
            coming = pool.submit(batch, step + 1)
            if step % 50 == 10:  # how many steps there will be is what the schedule must be told
                total = round(step * 60 * minutes / used)
                schedule = cosine_lr(optimizer, lr, round(0.02 * total) if warmup is None else warmup, total)
            if schedule is not None:
                schedule(step)
            else:
                optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = lr * (step + 1) / (warmup or 100)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                value = sum(loss(**model(pictures, tokens), output_dict=True).values())
            value.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            step += 1
    model.eval()
    names = [concept.name for concept in source.concepts]
    named = judge.naming(Peer(), drawn(source.concepts, (STYLES[1],), size), names)
    count = sum(p.numel() for p in model.parameters())
    return {"side": side, "parameters": count, "steps": step, **{n: round(x, 4) for n, x in named.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", choices=list(TOWERS), default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--learn", type=float, help="minutes that each side trains")
    parser.add_argument("--preset", default="bundled", help="of clip.train, for --learn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7, help="steps of every side, in turns")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # one side, for its peak of memory
    parser.add_argument("--chunk", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options)
        return
    rows = learn(options) if options.learn else [*speed(options), *memory(options)]
    print(f"{options.threads} threads; {cards.hardware()}")
    if options.json:
        options.json.write_text(json.dumps({"hardware": cards.hardware(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
