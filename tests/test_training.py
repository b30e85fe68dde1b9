"""Claims about the one loop: resume equals uninterrupted, a killed run resumes, nothing is lost."""

import json
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from multimodal import checkpoint, devices, optim
from multimodal.cli import Failed, UserError
from multimodal.config import TrainConfig, modern
from multimodal.training import begin, fit, shuffled
from multimodal.transformer import Transformer

CONFIG = TrainConfig(steps=20, batch_size=4, lr=1e-2, evaluate_every=5, save_every=5, ema=0.9)


def model(dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), Transformer(modern(16, 2, 2, dropout=dropout)), nn.Linear(16, 1))


def batches(index: int) -> dict:
    items = shuffled(index, 4, 10, seed=3)
    x = torch.stack([torch.randn(5, 6, generator=torch.Generator().manual_seed(i)) for i in items])
    return {"image": x}


def loss(network, batch, step):
    x = batch["image"]
    value = (network(x)[..., 0] - x.cumsum(1).sum(-1).tanh()).square().mean()
    return value, {"mse": value.detach()}


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def train(run: Path, config: TrainConfig = CONFIG, **settings):
    network = model()
    outcome = fit(network, loss, batches, config, run, seed=1, device="cpu", **settings)
    return network, outcome


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(("accumulate", "ramp"), [(1, 0), (3, 0), (4, 15)])
def test_twenty_steps_equal_ten_stop_resume_ten_bit_for_bit(tmp_path, optimizer, accumulate, ramp):
    config = replace(CONFIG, optimizer=optimizer, accumulate=accumulate, ramp=ramp)
    whole, _ = train(tmp_path / "whole", config)

    def stop_at_ten(network, batch, step):
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(network, batch, step)

    network = model()
    first = fit(network, stop_at_ten, batches, config, tmp_path / "run", seed=1, device="cpu")
    assert (first.stopped, first.steps) == ("signal", 10)
    resumed, second = train(tmp_path / "run", config, resume=True)
    assert second.steps == 20
    assert torch.equal(weights(whole), weights(resumed))
    lines = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("whole", "run")]
    assert lines[0] == lines[1]


def test_a_run_goes_on_in_the_precision_it_began_with_whatever_is_measured_when_it_is_resumed(tmp_path, monkeypatch):
    assert CONFIG.precision == "auto"
    monkeypatch.setattr(devices, "fast_bf16", lambda device: True)
    whole, _ = train(tmp_path / "whole")

    def stop_at_ten(network, batch, step):
        assert torch.is_autocast_enabled("cpu")
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(network, batch, step)

    fit(model(), stop_at_ten, batches, CONFIG, tmp_path / "run", seed=1, device="cpu")
    monkeypatch.setattr(devices, "fast_bf16", lambda device: False)
    resumed, _ = train(tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    other, _ = train(tmp_path / "other")
    assert not torch.equal(weights(whole), weights(other))


@pytest.mark.parametrize("slower", [torch.bfloat16, torch.float32])
def test_auto_is_the_precision_whose_products_are_faster(slower, monkeypatch):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        pytest.skip("this processor has no bf16")
    monkeypatch.setattr(torch, "mm", lambda a, b: time.sleep(0.01 if a.dtype == slower else 0.0))
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "fast_bf16", devices.fast_bf16.__wrapped__)
    assert devices.precision(cpu) == ("fp32" if slower == torch.bfloat16 else "bf16")
    assert (devices.precision(cpu, "bf16"), devices.precision(cpu, "fp32")) == ("bf16", "fp32")


def test_memory_that_is_freed_is_taken_again_without_new_pages():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library than glibc")
    script = """
        import resource, sys, torch
        from multimodal import devices
        if sys.argv[1] == "keep":
            devices.keep_memory(torch.device("cpu"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(2**24)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    faults = {
        how: int(subprocess.run([sys.executable, "-c", textwrap.dedent(script), how], capture_output=True, text=True,
                                check=True, cwd=Path(__file__).parents[1]).stdout)
        for how in ("keep", "leave")
    }  # fmt: skip
    pages = 2**26 // mmap.PAGESIZE
    assert faults["keep"] < 10 * pages and faults["leave"] > 15 * pages


def test_the_batch_ramps_up_linearly_and_no_batch_is_left_out_or_seen_twice(tmp_path):
    config = replace(CONFIG, steps=12, accumulate=4, ramp=8)
    assert [optim.passes(step, config) for step in range(12)] == [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    seen = []

    def watched(network, batch, step):
        seen.append(int(batch["index"]))
        return loss(network, batch, step)

    fit(model(), watched, lambda i: {**batches(i), "index": torch.tensor(i)}, config, tmp_path, seed=1, device="cpu")
    assert seen == list(range(sum(optim.passes(step, config) for step in range(12))))


def test_a_run_killed_at_any_moment_leaves_a_checkpoint_that_resumes(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
        from dataclasses import replace
        import test_training as t
        t.train(t.Path({str(tmp_path / "run")!r}), replace(t.CONFIG, steps=100_000, save_every=1, evaluate_every=10**6))
        """)
    )
    state = tmp_path / "run" / "state" / "last.pt"
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.03 * attempt)
        process.kill()
        process.wait()
        step = torch.load(state, weights_only=True)["step"]
        network, outcome = train(tmp_path / "run", replace(CONFIG, steps=step + 2), resume=True)
        assert outcome.steps == step + 2 and torch.isfinite(weights(network)).all()
        steps = [line["step"] for line in metrics(tmp_path / "run")]
        assert steps == list(range(1, step + 3))
        for file in sorted((tmp_path / "run").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()


def test_a_loss_that_is_no_number_stops_with_a_sentence_and_keeps_the_last_good_checkpoint(tmp_path):
    def diverging(network, batch, step):
        value, metrics = loss(network, batch, step)
        return (value * float("nan") if step == 12 else value), metrics

    with pytest.raises(UserError, match="no longer a number at step 13.*smaller --train.lr"):
        fit(model(), diverging, batches, CONFIG, tmp_path, seed=1, device="cpu")
    assert torch.load(tmp_path / "state" / "last.pt", weights_only=True)["step"] == 10
    with pytest.raises(Failed, match="nothing was saved yet"):
        fit(model(), lambda *a: diverging(a[0], a[1], 12), batches, CONFIG, tmp_path / "new", seed=1, device="cpu")


def test_a_resumed_run_takes_the_decay_and_the_rates_that_are_asked_for_now(tmp_path):
    train(tmp_path / "a", replace(CONFIG, steps=10))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    same, _ = train(tmp_path / "a", CONFIG, resume=True)
    other, _ = train(tmp_path / "b", replace(CONFIG, weight_decay=10.0), resume=True)
    assert weights(other).norm() < 0.95 * weights(same).norm()


def test_a_run_has_a_step_however_little_its_time(tmp_path):
    _, outcome = train(tmp_path, replace(CONFIG, minutes=1e-9))
    assert outcome.steps == 1 and (tmp_path / "state" / "last.pt").exists()


def test_half_files_of_a_killed_process_are_cleared_away(tmp_path):
    train(tmp_path)
    left = [tmp_path / "state" / ".last.pt.123.part", tmp_path / ".model.safetensors.123.part"]
    for path in left:
        path.touch()
    train(tmp_path, replace(CONFIG, steps=21), resume=True)
    assert not any(path.exists() for path in left)


def test_a_directory_that_holds_only_a_model_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match="already holds a model"):
        train(tmp_path)


@dataclass(frozen=True)
class Settings:
    out: Path
    resume: bool = False
    width: int = 3
    train: TrainConfig = CONFIG


def test_a_resumed_run_says_which_training_settings_changed_and_refuses_to_become_another(tmp_path, capsys):
    begin(Settings(tmp_path))
    assert json.loads((tmp_path / "settings.json").read_text())["width"] == 3
    (tmp_path / "state" / "last.pt").touch()
    capsys.readouterr()
    begin(Settings(tmp_path, resume=True, train=replace(CONFIG, lr=1e-3)))
    assert "--resume: train.lr was 0.01, and is 0.001 from here on." in capsys.readouterr().err
    with pytest.raises(UserError, match="began with width 3, but 4 is asked for"):
        begin(Settings(tmp_path, resume=True, width=4))


def test_a_run_is_never_overwritten_and_never_resumed_from_nothing(tmp_path):
    with pytest.raises(UserError, match="holds no run to continue"):
        train(tmp_path, resume=True)
    train(tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        train(tmp_path)


@pytest.mark.parametrize("command", ["gpt.train", "dalle.train_dvae", "dalle.train", "clip.train"])
def test_every_command_says_that_a_run_exists_before_any_work(command, tmp_path, capsys):
    (tmp_path / "run" / "state").mkdir(parents=True)
    (tmp_path / "run" / "state" / "last.pt").touch()
    nowhere = ["--data", str(tmp_path / "nowhere")]  # would be what is wrong, were it looked at
    assert import_module(command).main(["tiny", *nowhere, "--out", str(tmp_path / "run")]) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["model", "optimizer", "average", "damage"])
def test_a_run_is_not_resumed_with_what_does_not_fit_it_and_stays_as_it_was(tmp_path, change):
    train(tmp_path, replace(CONFIG, steps=5))
    state = tmp_path / "state" / "last.pt"
    if change == "damage":
        state.write_bytes(state.read_bytes()[:1000])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    config = replace(CONFIG, **{"optimizer": {"optimizer": "adamw"}, "average": {"ema": 0.0}}.get(change, {}))
    network = nn.Linear(6, 1) if change == "model" else model()
    with pytest.raises(UserError, match="does not fit these settings"):
        fit(network, loss, batches, config, tmp_path, seed=1, device="cpu", resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_accumulated_gradients_equal_one_large_batch(tmp_path):
    def merged(index):
        return {"image": torch.cat([batches(2 * index)["image"], batches(2 * index + 1)["image"]])}

    config = replace(CONFIG, optimizer="adamw", ema=0.0, precision="fp32")
    many, one = model(dropout=0.0), model(dropout=0.0)
    fit(many, loss, batches, replace(config, accumulate=2), tmp_path / "many", seed=1, device="cpu")
    fit(one, loss, merged, config, tmp_path / "one", seed=1, device="cpu")
    torch.testing.assert_close(weights(many), weights(one), atol=1e-4, rtol=1e-4)


def test_the_average_is_what_is_evaluated_and_saved_and_training_goes_on_without_it(tmp_path):
    seen = {}

    def evaluate(network):
        seen["evaluated"] = weights(network)
        return {"figure": 1.5}

    def save(network):
        seen["saved"] = weights(network)

    network, outcome = train(tmp_path, evaluate=evaluate, save=save)
    assert torch.equal(seen["evaluated"], seen["saved"])
    assert not torch.equal(seen["saved"], weights(network))
    assert outcome.metrics["val_figure"] == 1.5
    with_hooks, without = weights(network), weights(train(tmp_path / "other")[0])
    assert torch.equal(with_hooks, without)


def test_metrics_have_a_line_a_step_with_loss_seconds_and_evaluations(tmp_path):
    train(tmp_path, evaluate=lambda network: {"psnr": 20})
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert all({"loss", "mse", "seconds"} <= line.keys() for line in lines)
    assert [line["step"] for line in lines if "val_psnr" in line] == [5, 10, 15, 20]


def test_a_run_by_the_clock_ends_cooled_down(tmp_path):
    _, outcome = train(tmp_path, replace(CONFIG, steps=10**6, minutes=0.02))
    assert outcome.stopped == "steps" or outcome.stopped == "minutes"
    assert outcome.steps < 10**6
    rate = torch.load(tmp_path / "state" / "last.pt", weights_only=True)["optimizers"][0]["param_groups"][0]["lr"]
    assert rate < 0.5 * CONFIG.lr


def test_a_clock_that_runs_out_while_judging_still_ends_the_run_judged_and_saved(tmp_path):
    config = replace(CONFIG, steps=10_000, minutes=2 / 60, evaluate_every=3, save_every=10_000)
    saved = []
    outcome = fit(
        model(), loss, batches, config, tmp_path, device="cpu", save=lambda network: saved.append(1),
        evaluate=lambda network: time.sleep(1.2) or {"figure": 1.0},
    )  # fmt: skip
    assert outcome.stopped == "minutes" and outcome.metrics["val_figure"] == 1.0
    assert saved and torch.load(tmp_path / "state" / "last.pt", weights_only=True)["step"] == outcome.steps
    assert "val_figure" in metrics(tmp_path)[-1]


def test_a_signal_while_judging_is_saved_before_the_run_ends(tmp_path):
    config = replace(CONFIG, evaluate_every=3, save_every=1000)
    outcome = fit(
        model(), loss, batches, config, tmp_path, device="cpu",
        evaluate=lambda network: signal.raise_signal(signal.SIGINT) or {"figure": 1.0},
    )  # fmt: skip
    assert outcome.stopped == "signal" and outcome.steps == 3
    assert torch.load(tmp_path / "state" / "last.pt", weights_only=True)["step"] == 3


def test_a_finished_run_that_is_resumed_keeps_its_figures_and_saves_its_model(tmp_path):
    evaluate = {"evaluate": lambda network: {"figure": 1.0}}
    train(tmp_path, **evaluate)
    saved = []
    _, outcome = train(tmp_path, resume=True, save=lambda network: saved.append(1), **evaluate)
    assert outcome.steps == 20 and outcome.metrics["val_figure"] == 1.0 and "loss" in outcome.metrics and saved


def test_one_batch_can_be_memorised(tmp_path):
    network = model(dropout=0.0)
    fixed = batches(0)
    fit(network, loss, lambda index: fixed, replace(CONFIG, steps=200, ema=0.0), tmp_path, device="cpu")
    assert loss(network.eval(), fixed, 0)[0] < 0.01


def test_every_epoch_visits_every_item_once_in_its_own_order():
    items = [i for index in range(6) for i in shuffled(index, 5, 10, seed=0)]
    epochs = [items[:10], items[10:20], items[20:30]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len(shuffled(0, 25, 10, seed=0)) == 25
    with pytest.raises(UserError, match="nothing to train on"):
        shuffled(0, 4, 0, seed=0)


def test_the_schedules_warm_up_and_fall_to_where_they_say():
    wsd, cosine = TrainConfig(warmup=0.1, cooldown=0.5), TrainConfig(warmup=0.1, schedule="cosine")
    assert optim.rate(0.0, wsd) > 0 and optim.rate(0.3, wsd) == 1.0
    assert optim.rate(1.0, wsd) == 0.0 and optim.rate(0.75, wsd) == pytest.approx(0.5)
    assert optim.rate(1.0, cosine) == pytest.approx(0.1)
    assert optim.rate(1.0, replace(cosine, floor=1 / 80)) == pytest.approx(1 / 80)


def test_muon_gets_the_matrices_of_the_blocks_and_adamw_all_the_rest_once():
    network = model()
    adamw, muon = optim.optimizers(network, CONFIG)
    matrices = {id(p) for group in muon.param_groups for p in group["params"]}
    rest = [id(p) for group in adamw.param_groups for p in group["params"]]
    assert matrices == {id(p) for n, p in network.named_parameters() if "blocks" in n and p.ndim == 2}
    assert sorted(rest + list(matrices)) == sorted(id(p) for p in network.parameters())


def test_embedding_tables_move_at_their_own_rate_and_nothing_else_does(tmp_path):
    def moved(embedding_lr: float) -> tuple[float, float]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 1))
        before = [p.detach().clone() for p in network.parameters()]
        config = TrainConfig(
            steps=1, lr=1e-3, warmup=0.0, cooldown=0.0, weight_decay=0.0, clip=1e9, embedding_lr=embedding_lr
        )
        fit(
            network, lambda network, batch, step: (network(batch["tokens"]).square().mean(), {}),
            lambda index: {"tokens": torch.arange(5)}, config, tmp_path / str(embedding_lr), device="cpu",
        )  # fmt: skip
        table, linear, _ = ((p - b).abs().mean().item() for p, b in zip(network.parameters(), before, strict=True))
        return table, linear

    (table, linear), (faster, same) = moved(1.0), moved(8.0)
    assert faster == pytest.approx(8 * table, rel=1e-3) and same == pytest.approx(linear, rel=1e-3)


def test_a_checkpoint_is_read_back_equal_and_a_wrong_one_gets_its_sentence(tmp_path):
    def build():
        return Transformer(modern(16, 1, 2))

    original = build()
    checkpoint.write(tmp_path / "good", "gpt", {"width": 16}, original)
    assert checkpoint.read_config(tmp_path / "good", "gpt") == {"width": 16}
    assert torch.equal(weights(checkpoint.load(tmp_path / "good", build)), weights(original))
    with pytest.raises(UserError, match="kind 'gpt', but 'clip' is needed"):
        checkpoint.read_config(tmp_path / "good", "clip")
    with pytest.raises(UserError, match="does not fit its config.json"):
        checkpoint.load(tmp_path / "good", lambda: Transformer(modern(32, 1, 2)))
    with pytest.raises(UserError, match="no config.json"):
        checkpoint.read_config(tmp_path / "missing", "gpt")
    weights_file = tmp_path / "good" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-50])
    with pytest.raises(UserError, match="could not be read"):
        checkpoint.load(tmp_path / "good", build)
    (tmp_path / "good" / "config.json").write_text("{" + " " * 2_000_000)
    with pytest.raises(UserError, match="at most"):
        checkpoint.read_config(tmp_path / "good", "gpt")


def test_a_file_being_written_is_never_seen_half(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), checkpoint.replacing(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_model_that_is_not_there_is_named_with_what_is(tmp_path):
    with pytest.raises(UserError, match="no run directory with a config.json"):
        checkpoint.find(str(tmp_path / "nothing"), "gpt")
    with pytest.raises(UserError, match="no run directory"):
        checkpoint.find("../../etc", "gpt")


def test_what_anneals_hears_before_every_step_which_part_is_behind_also_when_resumed(tmp_path):
    heard = []
    train(tmp_path, replace(CONFIG, steps=10), anneal=heard.append)
    assert heard == [i / 10 for i in range(10)]
    heard.clear()
    train(tmp_path, CONFIG, resume=True, anneal=heard.append)
    assert heard == [i / 20 for i in range(10, 20)]


def test_by_the_clock_the_part_behind_is_that_of_the_minutes(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from multimodal import training

    now, heard = [100.0], []
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def anneal(part: float) -> None:
        heard.append(part)
        now[0] += 30

    train(tmp_path, replace(CONFIG, steps=1000, minutes=2.0), anneal=anneal)
    assert heard == pytest.approx([0, 0.25, 0.5, 0.75])


def test_a_run_that_another_process_trains_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Settings:
        out: Path
        resume: bool = False

    code = f"""
import sys
from pathlib import Path
from multimodal.training import lock
lock(Path({str(tmp_path / "run")!r}))
print("in", flush=True)
sys.stdin.read()
"""
    root = Path(__file__).resolve().parents[1]
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="by another process"):
        begin(Settings(tmp_path / "run"))
    other.communicate()
    begin(Settings(tmp_path / "run"))  # a lock ends with its process, however that ends
    begin(Settings(tmp_path / "run"))  # and does not keep its own process out
