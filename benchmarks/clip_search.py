"""Searching a million vectors: our index beside numpy's plain product, and the floor that memory sets; in one run.

    python benchmarks/clip_search.py
    python benchmarks/clip_search.py --vectors 100000 --json search.json

Random unit vectors of 512 features are written as an index, and the ten nearest to a query are asked for: by clip.nearest on
the memory-mapped file (the first time, when its pages must be mapped, and then), by numpy's product and argpartition on an
array that is in memory already. The floor is the time in which the same bytes are summed. Then what vectors in bf16 would
save and cost, near-duplicates, the memory of each side in a process of its own, and the whole command on an index with a
million names made for the bundled model, start of Python and loading of the model included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip import index, nearest
from clip.search import HIDDEN
from multimodal import cards

WIDTH, K, REPEATS = 512, 10, 15
DUPLICATES = 20_000  # vectors among which near-duplicates are found
DIGEST = "random"


def random_vectors(count: int, width: int) -> Iterator[torch.Tensor]:
    """Unit vectors, the same each time, chunk by chunk; one in a thousand lies near the one before it."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, index.ROWS):
        chunk = torch.randn(min(index.ROWS, count - start), width, generator=generator)
        near = chunk[1::1000]
        chunk[1::1000] = chunk[:-1:1000][: len(near)] + 0.05 * near
        yield F.normalize(chunk, dim=-1)


def written(path: Path, count: int, width: int, digest: str) -> None:
    """An index as clip.search leaves it, with made-up names."""
    lines = [
        json.dumps(
            {"name": f"{i % 1000:03}/{i:07}.jpg", "size": 100_000 + i, "time": i, "content": f"{i:032x}"}
        ).encode()
        + b"\n"
        for i in range(count)
    ]
    about = {"digest": digest, "model": "random", "folder": ""}
    index.write(path, about, lines, (count, width), random_vectors(count, width))


def queries(count: int, width: int) -> list[torch.Tensor]:
    return list(F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(1)), dim=-1))


def numpy_best(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    scores = vectors @ query
    found = np.argpartition(-scores, K)[:K]
    return found[np.argsort(-scores[found])]


def timed(function: Callable[[torch.Tensor], object], width: int) -> list[float]:
    """Seconds of each query, in order."""
    found = []
    for query in queries(REPEATS, width):
        began = time.perf_counter()
        function(query)
        found.append(time.perf_counter() - began)
    return found


def alone(side: str, path: Path) -> dict[str, float]:
    """Memory of one side in this process, in MB: the peak of all, then its own and pages of files, which the system may drop."""
    query = queries(1, WIDTH)[0]
    held = None  # what is searched stays until the memory is read
    if side == "ours":
        held = index.read(path, DIGEST).vectors
        nearest.best(held, query, K)
    elif side == "numpy":
        held = np.array(index.read(path, DIGEST).vectors.numpy())
        numpy_best(held, query.numpy())
    status = Path("/proc/self/status").read_text()
    del held
    return {name: int(status.split(f"{name}:")[1].split()[0]) // 1024 for name in ("VmHWM", "RssAnon", "RssFile")}


def child(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def command(folder: Path, count: int) -> dict[str, float]:
    """Seconds of the whole command, by text, on an index of the bundled model."""
    from clip import encoder

    model = encoder.find(None, "cpu", "auto")
    written(folder / HIDDEN / f"{model.digest}.safetensors", count, model.width, model.digest)
    arguments = ["-m", "clip.search", str(folder), "--text", "a cat", "--no-update", "--device", "cpu"]
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        assert len(child(*arguments).splitlines()) == K
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    child("-c", "import torch")
    return {
        "features": model.width,
        "seconds": statistics.median(seconds[1:]),
        "import_torch_seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, help="where the index is written (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)  # one side, for its memory
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options.alone[0], Path(options.alone[1]))))
        return
    torch.set_num_threads(options.threads)
    count = options.vectors
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "index.safetensors"
        began = time.perf_counter()
        written(path, count, WIDTH, DIGEST)
        writing = time.perf_counter() - began
        began = time.perf_counter()
        found = index.read(path, DIGEST)
        opening = time.perf_counter() - began
        ours = timed(lambda query: nearest.best(found.vectors, query, K), WIDTH)
        array = np.array(found.vectors.numpy())
        plain = timed(lambda query: numpy_best(array, query.numpy()), WIDTH)
        again = timed(lambda query: nearest.best(found.vectors, query, K), WIDTH)  # in turns: ours, theirs, ours
        in_memory = torch.from_numpy(array)
        copied = timed(lambda query: nearest.best(in_memory, query, K), WIDTH)
        floor = min(timed(lambda query: in_memory.sum(), WIDTH))
        same = sum(
            nearest.best(found.vectors, query, K)[1].tolist() == numpy_best(array, query.numpy()).tolist()
            for query in queries(REPEATS, WIDTH)
        )
        half = in_memory.bfloat16()
        rounded = timed(lambda query: (half @ query.bfloat16()).topk(K), WIDTH)
        kept = [
            len(set((half @ q.bfloat16()).topk(K).indices.tolist()) & set(nearest.best(in_memory, q, K)[1].tolist()))
            / K
            for q in queries(REPEATS, WIDTH)
        ]
        few = found.vectors[:DUPLICATES]
        began = time.perf_counter()
        groups = nearest.groups(few, 0.95)
        duplicates = time.perf_counter() - began
        memory = {
            side: json.loads(child(__file__, "--alone", side, str(path))) for side in ("nothing", "ours", "numpy")
        }
        del array, in_memory, half, few, found
        path.unlink()
        whole = command(Path(folder), count)
    size = 4 * count * WIDTH
    rows = [
        ("our index, first search (pages are mapped)", ours[0]),
        ("our index, then (median)", statistics.median(ours[1:] + again)),
        ("our product, vectors in memory", statistics.median(copied[1:])),
        ("numpy, vectors in memory", statistics.median(plain[1:])),
        ("floor: the bytes are summed once", floor),
        ("vectors in bf16 (not used: scores of 8 bits)", statistics.median(rounded[1:])),
    ]
    result = {
        "hardware": cards.hardware(), "threads": options.threads, "vectors": count, "features": WIDTH, "bytes": size,
        "seconds": {name: seconds for name, seconds in rows}, "write_seconds": writing, "open_seconds": opening,
        "ten_nearest_equal_numpys": same / REPEATS, "bf16_share_of_ten_nearest": statistics.fmean(kept),
        "near_duplicates": {"vectors": min(DUPLICATES, count), "seconds": duplicates, "groups": len(groups)},
        "memory_mb": memory, "command": whole,
    }  # fmt: skip
    print(
        f"{result['hardware']}, {options.threads} threads; {count:,} vectors of {WIDTH} features, {size / 1e9:.2f} GB\n"
    )
    for name, seconds in rows:
        print(f"{name:<46}{1000 * seconds:9.1f} ms  {seconds / floor:6.2f} x floor")
    print(
        f"\nopened in {1000 * opening:.0f} ms, written in {writing:.1f} s; the ten nearest are numpy's in {same} of {REPEATS}"
    )
    print(f"bf16 would find {statistics.fmean(kept):.1%} of the ten nearest")
    print(f"near-duplicates among {min(DUPLICATES, count):,}: {duplicates:.1f} s, {len(groups)} groups")
    for side, parts in memory.items():
        print(
            f"memory of {side}: peak {parts['VmHWM']:,} MB; {parts['RssAnon']:,} MB own, {parts['RssFile']:,} MB of files, "
            "which the system may drop"
        )
    print(
        f"python -m clip.search --no-update with {count:,} names and vectors of {whole['features']} features: "
        f"{whole['seconds']:.2f} s, of which import torch alone takes {whole['import_torch_seconds']:.2f} s"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
