"""Writing beside transformers and nanoGPT: GPT-2's 124M shape, random weights, 128 new tokens; in one process, in turns.

    pip install -e '.[bench]'
    git clone https://github.com/karpathy/nanoGPT
    python benchmarks/gpt_sample.py --nanogpt nanoGPT

Prints milliseconds a step and tokens a second, each side's share of the floor (the products of all weights with one vector a
row by torch's own linear, measured in the same run) and of the floor of packed weights, which is lower, and the peak memory of
each side in a process of its own. transformers uses its cache (`generate`, greedy), nanoGPT has none. Then what bf16 and int8
cost: bits a byte of three plays that the bundled model never read, and how often the likeliest token is that of fp32.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from multimodal import cards

PROMPT, NEW = 32, 128
VOCABULARY, CONTEXT, WIDTH, DEPTH, HEADS = 50_257, 1024, 768, 12, 12


class Letters:
    """A tokenizer's outside for a model of random weights: ids are all that counts."""

    vocab_size, end = VOCABULARY, VOCABULARY - 1
    token_bytes = [b"x"] * VOCABULARY

    def stream(self):
        from multimodal.tokenizer import Stream

        return Stream(self)


def ours(precision: str):
    from gpt.model import GPT
    from gpt.presets import GPTConfig
    from gpt.writing import write_batch
    from multimodal.config import gpt2
    from multimodal.packing import pack
    from multimodal.sampling import Sampling

    torch.manual_seed(0)
    model = pack(GPT(GPTConfig(VOCABULARY, CONTEXT, gpt2(WIDTH, DEPTH, HEADS))), precision)

    def write(prompts: torch.Tensor, count: int) -> int:
        turns = write_batch(model, Letters(), prompts.tolist(), count, Sampling(0.0), [0] * len(prompts))
        *_, last = turns
        return sum(len(row.tokens) for row, _ in last)

    return write


def transformers(precision: str):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, eos_token_id=None
    )
    model = GPT2LMHeadModel(config).eval().to(torch.bfloat16 if precision == "bf16" else torch.float32)

    @torch.inference_mode()
    def write(prompts: torch.Tensor, count: int) -> int:
        found = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=count, do_sample=False, use_cache=True,
            pad_token_id=0,
        )  # fmt: skip
        return found.shape[0] * (found.shape[1] - prompts.shape[1])

    return write


def nanogpt(folder: Path):
    sys.path.insert(0, str(folder))
    import model as module

    torch.manual_seed(0)
    config = module.GPTConfig(block_size=CONTEXT, vocab_size=VOCABULARY, n_layer=DEPTH, n_head=HEADS, n_embd=WIDTH)
    model = module.GPT(config).eval()

    @torch.inference_mode()
    def write(prompts: torch.Tensor, count: int) -> int:
        return model.generate(prompts, count, top_k=1).shape[0] * count

    return write


def floors(precision: str, rows: int) -> dict[str, float]:
    """Seconds of the products of all weights with `rows` vectors, by torch's own linear and with packed weights."""
    from multimodal.packing import Packed

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    shapes = DEPTH * [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
    weights = [torch.randn(shape, dtype=dtype) for shape in [*shapes, (VOCABULARY, WIDTH)]]
    inputs = {width: torch.randn(rows, width, dtype=dtype) for width in (WIDTH, 4 * WIDTH)}
    packed = [Packed(weight, None) for weight in weights]
    seconds: dict[str, list[float]] = {"plain": [], "packed": []}
    with torch.inference_mode():
        for _ in range(12):
            began = time.perf_counter()
            for weight in weights:
                F.linear(inputs[weight.shape[1]], weight)
            middle = time.perf_counter()
            for layer in packed:
                layer(inputs[layer.shape[1]])
            seconds["plain"].append(middle - began)
            seconds["packed"].append(time.perf_counter() - middle)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


def side(name: str, folder: Path | None):
    kind, _, precision = name.partition(" ")
    if kind == "nanoGPT":
        return nanogpt(folder)
    return ours(precision) if kind == "ours" else transformers(precision)


def quality() -> list[dict]:
    """What less precise numbers cost the bundled model on text that it never read."""
    import numpy as np

    from gpt.model import load
    from gpt.scoring import score
    from multimodal.checkpoint import find
    from multimodal.data import text
    from multimodal.packing import pack

    documents = [d for d in text.default_corpora()["shakespeare"] if d.name in text.HELD_OUT["shakespeare"]]
    found, likeliest = [], {}
    for precision in ("fp32", "bf16", "int8"):
        model, tokenizer = load(find(None, "gpt"), "cpu")
        model = pack(model, precision)
        ids = np.array([i for d in documents for i in [tokenizer.end, *tokenizer.encode(d.text)]])
        context = model.config.context
        with torch.inference_mode():
            rows = torch.from_numpy(ids[: len(ids) // context * context]).view(-1, context)[::8]
            likeliest[precision] = torch.cat([model(part).argmax(-1) for part in rows.split(16)])
        agreement = (likeliest[precision] == likeliest["fp32"]).float().mean().item()
        bpb = score(model, tokenizer, ids, 400)["bpb"]
        found.append({"precision": precision, "bits_per_byte": round(bpb, 4), "likeliest_agrees": round(agreement, 4)})
    return found


def peak(name: str, rows: int, folder: Path | None) -> dict:
    """Peak memory of a side in a process of its own, in MB."""
    command = [
        sys.executable,
        __file__,
        "--alone",
        name,
        "--rows",
        str(rows),
        "--threads",
        str(torch.get_num_threads()),
    ]
    command += ["--nanogpt", str(folder)] if folder else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"side": name, "rows": rows, "peak_mb": json.loads(done.stdout.splitlines()[-1])["peak_mb"]}


def table(rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a clone of nanoGPT")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="turns of every side")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # one side, for its peak of memory
    parser.add_argument("--rows", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    prompts = {rows: torch.randint(VOCABULARY - 1, (rows, PROMPT), generator=generator) for rows in (1, 8)}
    if options.alone:
        side(options.alone, options.nanogpt)(prompts[options.rows], 32)
        # of this process only: getrusage would count what the parent had when it forked
        status = Path("/proc/self/status").read_text()
        print(json.dumps({"peak_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024}))
        return
    names = ["ours fp32", "transformers fp32", "ours bf16", "transformers bf16", "ours int8"]
    names += ["nanoGPT fp32"] if options.nanogpt else []
    seconds: dict[tuple[str, int], list[float]] = {}
    least: dict[tuple[str, int, str], list[float]] = {}
    for _ in range(options.repeats):
        for name in names:
            write = side(name, options.nanogpt)
            for rows in (1, 8):
                if name.startswith("nanoGPT") and rows > 1:
                    continue
                write(prompts[rows], 4)
                began = time.perf_counter()
                assert write(prompts[rows], NEW) == rows * NEW, "a row ended early"
                seconds.setdefault((name, rows), []).append(time.perf_counter() - began)
            del write
        for precision in ("fp32", "bf16"):
            for rows in (1, 8):
                for kind, value in floors(precision, rows).items():
                    least.setdefault((precision, rows, kind), []).append(value)
    found = []
    for (name, rows), times in sorted(
        seconds.items(), key=lambda item: (item[0][1], item[0][0].split()[1], item[0][0])
    ):
        precision = name.split()[1]
        same = "fp32" if precision == "int8" else precision
        plain, packed = (statistics.median(least[same, rows, kind]) for kind in ("plain", "packed"))
        step = statistics.median(times) / NEW
        other = seconds[f"transformers {same}", rows]
        found.append({
            "side": name, "rows": rows, "ms_a_step": round(1000 * step, 1), "tokens_per_second": round(rows / step),
            "floor_ms": round(1000 * plain, 1), "share": round(plain / step, 2),
            "packed_ms": round(1000 * packed, 1), "share_of_packed": round(packed / step, 2),
            "times_transformers": round(statistics.median(a / b for a, b in zip(other, times, strict=True)), 2),
        })  # fmt: skip
    table(found)
    memory = [peak(name, rows, options.nanogpt) for name in names for rows in (1, 8) if rows == 1 or "nano" not in name]
    table(memory)
    costs = quality()
    table(costs)
    print(f"{options.threads} threads; {cards.hardware()}")
    if options.json:
        report = {"hardware": cards.hardware(), "speed": found, "memory": memory, "quality": costs}
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
