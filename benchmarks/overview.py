"""Figures of the whole: how much code, how much of it a training step loads, how fast it starts, how fast it trains.

    python benchmarks/overview.py              the code (at once)
    python benchmarks/overview.py --start      and cold starts of commands and page (the bundled models are needed)
    python benchmarks/overview.py --steps      and seconds a step of every training preset (minutes)

Prints a table and, with --json FILE, writes the same as JSON. Seconds are medians of whole processes or of steps.
"""

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("multimodal", "gpt", "dalle", "clip", "apps", "tests", "benchmarks")
STARTS = {
    "gpt.sample": ["-m", "gpt.sample", "To be", "--max-tokens", "1"],
    "dalle.sample": ["-m", "dalle.sample", "a cat", "-o", "{scratch}/cat.png"],
    "clip.classify": ["-m", "clip.classify", "{picture}", "--labels", "cat", "dog"],
}
TRAININGS = {
    "gpt.train": ["tiny", "small", "bundled"],
    "dalle.train_dvae": ["tiny", "gumbel", "bundled"],
    "dalle.train": ["tiny", "bundled"],
    "clip.train": ["tiny", "small", "bundled"],
}


def lines_of_code() -> dict[str, dict[str, int]]:
    """Files and lines of every package."""
    found = {}
    for package in PACKAGES:
        files = sorted((ROOT / package).rglob("*.py"))
        found[package] = {"files": len(files), "lines": sum(len(f.read_text().splitlines()) for f in files)}
    return found


def closure(entry: str) -> dict[str, int]:
    """Files and lines of ours that running `entry` imports, wherever the import stands, and the longest chain."""

    def module(name: str) -> Path | None:
        base = ROOT / Path(*name.split("."))
        return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)

    def imported(path: Path) -> set[Path]:
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        return {p for p in map(module, names) if p is not None and p.name != "__init__.py"}

    depth, todo = {ROOT / entry: 0}, [ROOT / entry]
    while todo:
        path = todo.pop(0)
        for other in imported(path) - set(depth):
            depth[other] = depth[path] + 1
            todo.append(other)
    lines = sum(len(path.read_text().splitlines()) for path in depth)
    return {"files": len(depth), "lines": lines, "depth": max(depth.values())}


def seconds(arguments: list[str], runs: int = 3) -> float:
    """Median wall seconds of a whole process; the first run, which warms the disk's cache, does not count."""
    times = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def page_seconds(port: int = 17860) -> float:
    """Seconds from starting apps/demo.py until the page answers."""
    began = time.perf_counter()
    command = [sys.executable, "apps/demo.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - began < 300:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                    return time.perf_counter() - began
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("the page did not answer within 300 seconds")
    finally:
        process.terminate()
        process.wait()


def step_seconds(command: str, preset: str, scratch: str, steps: int = 12) -> float:
    """Median seconds between steps, from the run's own metrics.jsonl, without evaluation and saving."""
    run = Path(scratch) / f"{command}-{preset}"
    arguments = [
        "-m",
        command,
        preset,
        "--out",
        str(run),
        "--train.steps",
        str(steps),
        "--train.evaluate-every",
        "9999",
    ]
    if command == "dalle.train":
        dvae = Path(scratch) / f"dalle.train_dvae-{preset}"
        arguments += ["--dvae", str(dvae), "--scenes", "256"]
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    times = [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    # the last step's time holds the final evaluation; the first two hold the start
    return statistics.median(b - a for a, b in zip(times[2:-2], times[3:-1], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", action="store_true", help="measure cold starts")
    parser.add_argument("--steps", action="store_true", help="measure seconds a step")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    settings = parser.parse_args()
    figures: dict = {
        "code": lines_of_code(),
        "loaded_by_one_step": {c: closure(f"{c}/train.py") for c in ("gpt", "dalle", "clip")},
    }
    print(f"{'package':<14}{'files':>7}{'lines':>8}")
    for name, row in figures["code"].items():
        print(f"{name:<14}{row['files']:>7}{row['lines']:>8}")
    print(f"\n{'one step of':<14}{'files':>7}{'lines':>8}{'depth':>7}")
    for name, row in figures["loaded_by_one_step"].items():
        print(f"{name + '.train':<14}{row['files']:>7}{row['lines']:>8}{row['depth']:>7}")
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    with tempfile.TemporaryDirectory() as scratch:
        if settings.start:
            picture = next((ROOT / "apps" / "examples").glob("*.png"))
            figures["start_seconds"] = {}
            for name, arguments in STARTS.items():
                filled = [
                    re.sub(r"\{(\w+)\}", lambda m: {"scratch": scratch, "picture": str(picture)}[m[1]], a)
                    for a in arguments
                ]
                figures["start_seconds"][name] = round(seconds(filled), 2)
                figures["start_seconds"][f"{name} --help"] = round(seconds([*arguments[:2], "--help"]), 2)
            figures["start_seconds"]["page"] = round(page_seconds(), 2)
            print("\ncold start, seconds")
            for name, value in figures["start_seconds"].items():
                print(f"{name:<24}{value:>8.2f}")
        if settings.steps:
            figures["step_seconds"] = {}
            print("\nseconds a step")
            for command, presets in TRAININGS.items():
                for preset in presets:
                    value = step_seconds(command, preset, scratch)
                    figures["step_seconds"][f"{command} {preset}"] = round(value, 4)
                    print(f"{command + ' ' + preset:<28}{value:>8.3f}", flush=True)
    if settings.json:
        settings.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
