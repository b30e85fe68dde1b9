"""Classifying a folder of photographs beside open_clip: ViT-B-32, random weights in a local directory; in one process, in turns.

    pip install -e '.[bench]'
    python benchmarks/clip_classify.py photographs --json classify.json

Prints pictures a second of each side: open_clip as its README has it (one picture at a time, fp32), open_clip in batches by hand,
decoding and preparing alone, and ours, which decodes beside the model, as clip.classify does. Then how often the likeliest label
is that of the README's script, how many labels are answered at all (one would prove nothing), how far the vectors are from its
own, and how often the nearest other picture of the folder is the same. Last the seconds from a command to its first answer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip.encoder import find
from clip.zeroshot import probabilities
from multimodal import cards, images
from multimodal.data import named

ROOT = Path(cards.__file__).resolve().parents[1]
TEMPLATE, BATCH, PART = "a photo of a {}.", 32, 64  # of open_clip by hand, and of ours
README = """
import sys, torch, open_clip
from PIL import Image
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + sys.argv[1])
model.eval()
tokenizer = open_clip.get_tokenizer("local-dir:" + sys.argv[1])
image, text = preprocess(Image.open(sys.argv[2])).unsqueeze(0), tokenizer(sys.argv[3:])
with torch.no_grad():
    image_features, text_features = model.encode_image(image), model.encode_text(text)
    image_features /= image_features.norm(dim=-1, keepdim=True)
    text_features /= text_features.norm(dim=-1, keepdim=True)
    print((100.0 * image_features @ text_features.T).softmax(dim=-1), flush=True)
"""


def make_model(place: Path, name: str) -> None:
    """A directory of open_clip with random weights, as open_clip begins."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    save_file(open_clip.CLIP(**config).state_dict(), place / "open_clip_model.safetensors")
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


def readable(folder: Path, count: int | None) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    return paths[:: max(1, len(paths) // count)][:count] if count else paths


def batched(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while part := list(islice(items, size)):
        yield part


class Theirs:
    """open_clip: as in its README, or in batches by hand."""

    def __init__(self, place: Path, precision: str, batch: int, prompts: list[str]):
        import open_clip

        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.batch = batch
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(
            f"local-dir:{place}", precision=precision
        )
        self.model.eval()
        with torch.no_grad():
            tokens = open_clip.get_tokenizer(f"local-dir:{place}")(prompts)
            self.classes = torch.nn.functional.normalize(self.model.encode_text(tokens).float(), dim=-1)

    @torch.no_grad()
    def __call__(self, paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
        """(vectors, probabilities)"""
        vectors, shares = [], []
        for part in batched(paths, self.batch):
            pictures = torch.stack([self.preprocess(Image.open(path)) for path in part])
            features = self.model.encode_image(pictures.to(self.dtype)).float()
            features /= features.norm(dim=-1, keepdim=True)
            vectors.append(features)
            shares.append((100.0 * features @ self.classes.T).softmax(dim=-1))
        return torch.cat(vectors), torch.cat(shares)


class Mine:
    """As clip.classify does it. (Very large JPEGs would be decoded at a fraction of their size.)"""

    def __init__(self, encoder, prompts: list[str]):
        self.encoder, self.classes = encoder, encoder.embed_texts(prompts)

    def decoded(self, paths: list[Path]):
        return (
            picture
            for _, picture in named.read_ahead(((p, None) for p in paths), self.encoder.prepare, self.encoder.size)
        )

    def __call__(self, paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
        vectors, shares = [], []
        for part in batched(self.decoded(paths), PART):
            features = self.encoder.embed_images(torch.stack(part))
            vectors.append(features)
            shares.append(probabilities(self.encoder, features, self.classes))
        return torch.cat(vectors), torch.cat(shares)


def first_answer(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from a command to its first line on stdout."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment, text=True) as process:
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        process.stdout.read()
    if process.returncode or not line:
        raise SystemExit(f"{' '.join(command)[:200]} failed")
    return seconds


def cold_starts(place: Path, path: Path, prompts: list[str], labels: list[str], threads: int, turns: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "XDG_CACHE_HOME": cache}
        classify = [sys.executable, "-m", "clip.classify", str(path), "--model", f"local-dir:{place}", "--json"]
        classify += ["--template", TEMPLATE, "--labels", *labels]
        sides = {
            "open_clip README": [sys.executable, "-c", README, str(place), str(path), *prompts],
            "ours, first time": [*classify, "--no-cache"],
            "ours, labels known": classify,
        }
        for command in sides.values():
            first_answer(command, environment)  # files are in memory then, and the labels known
        seconds = {side: [] for side in sides}
        for _ in range(turns):
            for side, command in sides.items():
                seconds[side].append(first_answer(command, environment))
    return [{"side": side, "seconds_to_first_answer": round(statistics.median(s), 2)} for side, s in seconds.items()]


def agreement(found, wanted) -> dict:
    (vectors, shares), (theirs, their_shares) = found, wanted
    nearest = [(v @ v.T).fill_diagonal_(-2).argmax(dim=1) for v in (vectors, theirs)]
    return {
        "top1_equal": round((shares.argmax(dim=1) == their_shares.argmax(dim=1)).float().mean().item(), 4),
        "least_cosine": round((vectors * theirs).sum(dim=1).min().item(), 6),
        "nearest_equal": round((nearest[0] == nearest[1]).float().mean().item(), 4),
    }


def table(rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs, in folders by class")
    parser.add_argument("--model", default="ViT-B-32", help="a name of open_clip")
    parser.add_argument("--pictures", type=int, help="only so many of the folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="turns of every side")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    paths = readable(options.folder, options.pictures)
    labels = sorted(path.name for path in options.folder.iterdir() if path.is_dir())
    prompts = [TEMPLATE.format(label) for label in labels]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_model(place, options.model)
        readme = Theirs(place, "fp32", 1, prompts)
        ours = {precision: find(f"local-dir:{place}", precision=precision) for precision in ("fp32", "bf16", "int8")}
        sides = {
            "open_clip README fp32": readme,
            f"open_clip batches of {BATCH} fp32": Theirs(place, "fp32", BATCH, prompts),
            f"open_clip batches of {BATCH} bf16": Theirs(place, "bf16", BATCH, prompts),
            **{f"ours {precision}": Mine(encoder, prompts) for precision, encoder in ours.items()},
        }
        plain = sides["ours fp32"]
        decoding = {
            "open_clip decoding alone": lambda paths: [readme.preprocess(Image.open(path)) for path in paths],
            "ours decoding alone": lambda paths: list(plain.decoded(paths)),
        }
        found, seconds = {}, {name: [] for name in [*sides, *decoding]}
        for side in (sides | decoding).values():
            side(paths[:BATCH])  # what is done once is done
        for _ in range(options.repeats):
            for name, side in (sides | decoding).items():
                began = time.perf_counter()
                answer = side(paths)
                seconds[name].append(time.perf_counter() - began)
                found[name] = answer
        wanted = found["open_clip README fp32"]
        rows = []
        for name, times in seconds.items():
            row = {
                "side": name,
                "pictures_per_second": round(len(paths) / statistics.median(times), 1),
                "times_readme": round(
                    statistics.median(a / b for a, b in zip(seconds["open_clip README fp32"], times, strict=True)), 2
                ),
            }
            rows.append(row | (agreement(found[name], wanted) if name in sides else {}))
        table(rows)
        answers = len(set(wanted[1].argmax(dim=1).tolist()))
        print(f"{len(paths)} pictures, {len(labels)} labels, of which {answers} are answered\n")
        cold = cold_starts(place, paths[0], prompts, labels, options.threads, options.repeats)
        table(cold)
    print(f"{options.threads} threads; {cards.hardware()}")
    if options.json:
        report = {"hardware": cards.hardware(), "threads": options.threads, "pictures": len(paths), "answers": answers}
        options.json.write_text(json.dumps(report | {"speed": rows, "cold_start": cold}, indent=2))


if __name__ == "__main__":
    main()
