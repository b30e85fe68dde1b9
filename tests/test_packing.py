"""Claims about packed models: they say what the plain ones say, as far as their precision goes, and no row minds another."""

import copy

import pytest
import torch
from torch import nn

from gpt.model import GPT
from gpt.presets import GPTConfig
from gpt.writing import write_batch
from multimodal import packing
from multimodal.cli import UserError
from multimodal.config import gpt2, modern
from multimodal.packing import pack
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

FAMILIES = {"gpt2": gpt2(64, 2, 2), "modern": modern(64, 2, 2)}
ERROR = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.05}
X86 = "x86" in torch.backends.quantized.supported_engines
precisions = pytest.mark.parametrize(
    "precision",
    [
        "fp32",
        "bf16",
        pytest.param("int8", marks=pytest.mark.skipif(not X86, reason="torch has no int8 for this processor")),
    ],
)


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch):
    """Small maps are packed too."""
    monkeypatch.setattr(packing, "SMALL", 0)


def make(family: str) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(Tokenizer.bytes().vocab_size, 32, FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@precisions
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_model_gives_the_logits_of_the_plain_one_up_to_its_precision(family, precision):
    plain = make(family)
    packed = pack(copy.deepcopy(plain), precision)
    assert not any(isinstance(module, nn.Linear) for module in packed.modules())
    tokens = torch.randint(257, (3, 20))
    with torch.inference_mode():
        wanted, found = plain(tokens), packed(tokens).float()
    assert (found - wanted).norm() / wanted.norm() < ERROR[precision]


def test_in_fp32_small_maps_stay_as_they_are_but_queries_keys_and_values_are_one(monkeypatch):
    plain = make("modern")
    monkeypatch.setattr(packing, "SMALL", 64 * 3 * 64)
    packed = pack(copy.deepcopy(plain), "fp32")
    kept = {tuple(module.weight.shape) for module in packed.modules() if isinstance(module, nn.Linear)}
    changed = {module.shape for module in packed.modules() if isinstance(module, packing.Packed)}
    assert kept == {(64, 64)} and {(192, 64), (256, 64), (64, 256)} <= changed
    tokens = torch.randint(257, (3, 20))
    with torch.inference_mode():
        assert torch.allclose(plain(tokens), packed(tokens), atol=1e-4)


def test_in_fp32_the_head_is_read_where_the_embedding_lies_and_no_weight_is_kept_twice():
    model = make("gpt2")
    shapes = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.ndim == 2}
    packed = pack(model, "fp32")
    assert packed.head.packed.data_ptr() == packed.embedding.weight.data_ptr()
    tensors = [*packed.parameters(), *(m.packed for m in packed.modules() if isinstance(m, packing.Packed))]
    distinct = {id(tensor) if tensor.is_mkldnn else tensor.data_ptr(): tensor.numel() for tensor in tensors}
    assert sum(distinct.values()) < sum(shapes.values()) * 1.05  # norms and biases


@pytest.mark.parametrize("precision", ["fp32", *(["int8"] if X86 else [])])  # bf16 sums otherwise for more rows
def test_a_packed_row_is_written_as_it_would_be_alone(precision):
    model, tokenizer = pack(make("modern"), precision), Tokenizer.bytes()
    prompts = ["To be", "a much longer prompt than that", ""]

    def written(some):
        *_, last = write_batch(model, tokenizer, some, 40, Sampling(0.0), [0] * len(some))
        return [row.text for row, _ in last]

    assert written(prompts) == [written([prompt])[0] for prompt in prompts]


@pytest.mark.skipif(not X86, reason="torch has no int8 for this processor")
def test_in_int8_no_row_changes_by_a_bit_through_what_it_is_computed_beside():
    torch.manual_seed(0)
    module = packing.Rounded(torch.randn(40, 64), torch.randn(40), 127)
    rows = torch.randn(5, 64) * torch.tensor([[1.0], [100.0], [0.001], [7.0], [0.0]])
    with torch.inference_mode():
        together = module(rows)
        for row, found in zip(rows, together, strict=True):
            assert torch.equal(module(row[None])[0], found)
    assert torch.equal(together[4], module.bias)  # nothing in: the bias alone


@pytest.mark.skipif(not X86, reason="torch has no int8 for this processor")
def test_where_products_of_8_bits_would_run_over_activations_take_fewer(monkeypatch, tmp_path):
    weight, rows = torch.full((8, 64), 0.9), torch.full((1, 64), -3.0)
    found = packing.Rounded(weight, None, 63)(rows)
    assert torch.allclose(found, rows @ weight.T, rtol=0.02)


def test_an_unknown_precision_gets_a_sentence():
    with pytest.raises(UserError, match="precision int4 is unknown: allowed are fp32, bf16, int8"):
        pack(make("gpt2"), "int4")


def test_gpt_sample_writes_in_every_precision(models, capsys):
    from gpt import sample

    for precision in ("fp32", "bf16", *(["int8"] if X86 else [])):
        arguments = ["To be", "--model", str(models / "gpt"), "--device", "cpu", "--max-tokens", "5"]
        assert sample.main([*arguments, "--precision", precision]) == 0
        assert capsys.readouterr().out.strip()
