"""Claims about the papers' sizes, what a model costs, and the plan of a training."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt import plan, train
from gpt.model import GPT, next_token_loss
from gpt.presets import PRESETS, GPTConfig
from gpt.sizes import short, size
from multimodal.config import gpt2, gpt3

# GPT-1 and GPT-2 as their released weights have them; GPT-3's table gives these, rounded
COUNTS = {
    "gpt": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}
ROUNDED = {"small": 125e6, "medium": 350e6, "large": 760e6, "xl": 1.3e9, "2.7b": 2.7e9, "6.7b": 6.7e9, "13b": 13e9}


def config(name: str) -> GPTConfig:
    settings = PRESETS[name][1]
    return GPTConfig(settings.vocabulary, settings.context, settings.transformer)


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_model_has_exactly_its_parameters(name):
    assert size(config(name)).parameters == COUNTS[name]


@pytest.mark.parametrize("name", [*ROUNDED, "175b"])
def test_gpt3_has_the_parameters_of_its_table_up_to_rounding(name):
    assert size(config(f"gpt3-{name}")).parameters == pytest.approx({**ROUNDED, "175b": 175e9}[name], rel=0.025)


@pytest.mark.parametrize("name", [f"gpt3-{name}" for name in (*ROUNDED, "175b")])
def test_gpt3_takes_the_batches_and_steps_of_its_table(name):
    settings = PRESETS[name][1]
    tokens = settings.train.batch_size * settings.train.accumulate * settings.context
    wanted = {"gpt3-xl": 1e6, "gpt3-2.7b": 1e6, "gpt3-6.7b": 2e6, "gpt3-13b": 2e6, "gpt3-175b": 3.2e6}.get(name, 0.5e6)
    assert tokens == pytest.approx(wanted, rel=0.05)
    assert tokens * settings.train.steps == pytest.approx(300e9, rel=0.01)


@pytest.mark.parametrize("blocks", [gpt2(32, 3, 2), gpt3(32, 3, 2, band=4)])
def test_flops_are_those_that_torch_counts(blocks):
    """Up to attention's upper triangle, which torch's counter takes to be computed and which we do not count."""
    built = GPT(GPTConfig(100, 16, blocks))
    with FlopCounterMode(display=False) as counter:
        next_token_loss(built, {"tokens": torch.zeros(1, 17, dtype=torch.long)}, 0)[0].backward()
    dense = 3 * 4 * 32 * 3 * 16  # every position sees every other: what the counter has for attention
    found = size(built.config)
    seen = (16 + 1) / 2 if not blocks.band else (2 * (4 * 5 / 2 + 4 * 12) / 16 + (16 + 1) / 2) / 3
    assert found.train_flops - 3 * 4 * 32 * 3 * seen == pytest.approx(counter.get_total_flops() / 16 - dense, rel=0.01)


def test_the_list_has_a_row_for_every_preset(capsys):
    assert train.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(PRESETS) + 1]] == list(PRESETS)
    assert "124,439,808" in next(line for line in lines if line.startswith("gpt2 "))


def test_large_numbers_are_short():
    assert [short(n) for n in (12, 1234, 3e5, 1.5e9)] == ["12", "1.23k", "300k", "1.5B"]
    assert short(3.2e9, "B") == "3.2 GB" and short(5.0, "B") == "5 B"


def test_a_plan_tells_before_training_what_a_run_takes_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "SECONDS", 0.2)
    assert train.main(["tiny", "--plan", "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "131,074 parameters; 60 steps, 61.4k tokens" in told and "tokens a second" in told
    assert train.main(["tiny", "--plan", "--json", "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["tokens"] == 60 * 16 * 64 and figures["minutes"] > 0
    assert figures["flops"] == pytest.approx(figures["tokens"] * size(config("tiny")).train_flops)
    assert not (tmp_path / "run").exists()


def test_a_plan_of_what_does_not_fit_measures_nothing_and_says_so(monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda *_: pytest.fail("it was built"))
    figures = plan.plan(config("gpt3-175b"), PRESETS["gpt3-175b"][1])
    assert "minutes" not in figures and "does not fit into the memory" in plan.told(figures)
    # 300B tokens: the paper's appendix D has 3.14e23 FLOPs, by 6 for each parameter and token, without attention
    assert figures["flops"] == pytest.approx(3.14e23, rel=0.02)


def test_the_curve_is_the_papers():
    # Chinchilla: 70B parameters and 1.4T tokens, a loss of 1.94 by the fit of the third approach
    assert plan.expected_loss(70 * 10**9, 1.4e12) == pytest.approx(1.94, abs=0.01)


def test_a_plan_counts_the_ramp(monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda *_: (1.0, 0.0))
    settings = PRESETS["tiny"][1]
    settings = replace(settings, train=replace(settings.train, steps=12, accumulate=4, ramp=8))
    figures = plan.plan(config("tiny"), settings)
    assert figures["tokens"] == (1 + 1 + 1 + 1 + 2 + 2 + 3 + 3 + 4 * 4) * 16 * 64
    assert figures["minutes"] == pytest.approx(30 / 60)
