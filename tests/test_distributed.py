"""Claims about several processes: together they compute what one process computes on the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
WORLD, B = 2, 8


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def batch() -> dict:
    torch.manual_seed(1)
    tokens = torch.randint(1, 257, (B, 9))
    tokens[:, -1] = 0
    tokens[::2, 4:] = 0
    # the first two are of one thing, and come to different processes
    return {
        "image": torch.randint(256, (B, 3, 16, 16), dtype=torch.uint8),
        "text": tokens,
        "identity": torch.tensor([5, 5, 1, 2, 3, 4, 6, 7])[:, None],
        "may": torch.zeros(B, 2, dtype=torch.bool),
    }


def gradients(scores: str, chunk: int, rows: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the trainer's own loss on these rows of the batch, in whatever process this is."""
    from clip.contrast import loss_of
    from clip.model import CLIP
    from clip.presets import CLIPConfig
    from multimodal.config import modern

    torch.manual_seed(0)
    towers = {"image": modern(32, 2, 2, causal=False, rotary_axes=2), "text": modern(32, 2, 2)}
    network = CLIP(CLIPConfig(**towers, size=16, patch=4, vocabulary=257, embedding=24, scores=scores))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    own = {name: value[rows] for name, value in batch().items()}
    loss = loss_of(network, 0, None, chunk)
    value, _ = loss(network, own, 0)
    value.backward()
    return value.item(), {name: p.grad.clone() for name, p in network.named_parameters()}


def in_a_process(rank: int, port: int, folder: str) -> None:
    from multimodal import distributed

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
    }
    torch.set_num_threads(1)
    found = {}
    with distributed.together("cpu"):
        assert (distributed.rank(), distributed.world()) == (rank, WORLD)
        mine = torch.full((2, 3), float(rank + 1), requires_grad=True)
        everyone = distributed.gather(mine)
        weights = torch.arange(12.0).reshape(4, 3) * (rank + 1)  # what each process makes of the rows
        (everyone * weights).sum().backward()
        found["gathered"], found["flows_back"] = everyone.detach(), mine.grad
        found["mean"] = distributed.mean(torch.tensor(float(rank)))
        found["first"], found["anywhere"] = distributed.first(rank + 0.5), distributed.anywhere(rank == 1)
        found["nowhere"] = distributed.anywhere(False)
        layer = distributed.wrap(nn.Linear(3, 1, bias=False))
        layer(torch.full((1, 3), float(rank))).sum().backward()
        found["averaged"] = layer.module.weight.grad
        for scores in ("softmax", "sigmoid"):
            found[scores] = gradients(scores, 2 * rank, list(range(B))[rank::WORLD])  # one whole, one in chunks
        torch.save(found, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What each of two processes has found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(in_a_process, (free_port(), str(folder)), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_gathered_rows_are_those_of_all_processes_in_their_order(found):
    wanted = torch.tensor([1.0, 1.0, 2.0, 2.0])[:, None].expand(4, 3)
    assert all(torch.equal(one["gathered"], wanted) for one in found)


def test_what_flows_back_to_a_row_is_the_sum_over_the_processes_that_used_it(found):
    weights = torch.arange(12.0).reshape(4, 3) * 3  # 1 times in one, 2 times in the other
    assert torch.equal(found[0]["flows_back"], weights[:2]) and torch.equal(found[1]["flows_back"], weights[2:])


def test_means_are_over_the_processes(found):
    for one in found:
        assert one["mean"] == 0.5 and torch.equal(one["averaged"], torch.full((1, 3), 0.5))


def test_all_go_by_the_clock_of_the_first_and_stop_when_one_must(found):
    for one in found:
        assert one["first"] == 0.5 and one["anywhere"] is True and one["nowhere"] is False


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_loss_and_gradient_of_two_processes_are_those_of_the_whole_batch_in_one(found, scores):
    value, wanted = gradients(scores, 0, list(range(B)))
    for one in found:
        theirs, gradient = one[scores]
        assert abs(theirs - value) < 1e-5
        assert gradient.keys() == wanted.keys()
        for name in wanted:
            scale = max(1e-3, wanted[name].abs().max().item())
            assert (gradient[name] - wanted[name]).abs().max() < 1e-5 * max(1, scale), name


def test_alone_nothing_is_gathered_wrapped_or_awaited(tmp_path):
    from multimodal import distributed

    rows, layer = torch.ones(2, 3), nn.Linear(3, 1)
    with distributed.together("cpu") as device, distributed.folder(tmp_path, "state/last.pt") as folder:
        assert (device, folder) == ("cpu", tmp_path)
        assert distributed.gather(rows) is rows and distributed.wrap(layer) is layer
        distributed.wait()
        assert distributed.first(1.5) == 1.5 and distributed.anywhere(True) and not distributed.anywhere(False)


def test_torchrun_trains_as_one_process_does_and_one_of_them_writes(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for i in range(12):
        Image.new("RGB", (20, 20), (20 * i, 250 - 20 * i, 99)).save(place / f"{i}.png")
        (place / f"{i}.txt").write_text(f"shade number {i}\n")
    command = ["-m", "clip.train", "tiny", "--data", str(place), "--train.batch-size", "8", "--train.steps", "3",
               "--no-augment", "--device", "cpu", "--train.precision", "fp32"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    records = []
    for name, before in {"two": together, "one": []}.items():
        done = subprocess.run(
            [sys.executable, *before, *command, "--out", str(tmp_path / name)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == done.stderr.count("parameters, cpu") == 1
        assert json.loads(done.stdout)["steps"] == 3
        records.append([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
        assert (tmp_path / name / "model.safetensors").is_file() and (tmp_path / name / "README.md").is_file()
    assert len(records[0]) == 3
    for one, other in zip(*records, strict=True):
        assert abs(one["loss"] - other["loss"]) < 1e-3 * other["loss"]


def test_two_processes_end_at_the_same_step_when_the_minutes_are_over(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "clip.train", "tiny",
         "--train.minutes", "0.03", "--train.steps", "100000", "--train.evaluate-every", "1000000", "--device", "cpu",
         "--out", str(tmp_path / "run")],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert 0 < json.loads(done.stdout)["steps"] == steps < 100000
