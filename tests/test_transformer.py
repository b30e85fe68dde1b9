"""Claims about the backbone: it is causal where it says so, and cache, padding and batch change nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from multimodal.config import TransformerConfig, gpt1, gpt2, gpt3, modern, sparse
from multimodal.transformer import KVCache, SquaredReLU, Transformer, attend, picture_mask

KINDS = {
    "gpt1": replace(gpt1(32, 3, 4), dropout=0.0),
    "gpt2": gpt2(32, 3, 4),
    "gpt3": gpt3(32, 3, 4, band=3),
    "sparse": sparse(32, 3, 4, prefix=2, side=3),
    "modern": modern(32, 3, 4),
    "modern 2-D": modern(48, 2, 4, rotary_axes=2),
    "modern text and grid": modern(36, 2, 2, rotary_axes=3),
    "image tower": modern(32, 2, 2, causal=False, rotary_axes=2),
}


def randomised(config: TransformerConfig) -> Transformer:
    """Weights away from their start, where branches end in zeros and would hide mistakes."""
    torch.manual_seed(0)
    model = Transformer(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def positions(config: TransformerConfig, n: int):
    if config.rotary_axes < 2:
        return None
    return torch.randint(0, 9, (1, n, config.rotary_axes), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_position_depends_on_itself_and_the_past_only_when_causal(kind):
    config = KINDS[kind]
    model, x = randomised(config), torch.randn(1, 6, config.width, requires_grad=True)
    (model(x, positions(config, 6))[0, 2] * torch.randn(config.width)).sum().backward()  # a plain sum is 0 after a norm
    moved = x.grad[0].abs().sum(-1) > 0
    assert moved.tolist() == ([True] * 3 + [False] * 3 if config.causal else [True] * 6)


def test_every_other_block_sees_a_band_of_the_past_and_the_rest_all_of_it():
    one, two = randomised(gpt3(32, 1, 4, band=3)), randomised(gpt3(32, 2, 4, band=3))
    for model, seen in ((one, [False] * 3 + [True] * 3), (two, [True] * 6)):
        x = torch.randn(1, 6, 32, requires_grad=True)
        (model(x)[0, 5] * torch.randn(32)).sum().backward()
        assert (x.grad[0].abs().sum(-1) > 0).tolist() == seen


def test_a_band_as_wide_as_the_text_is_no_bound():
    banded, dense = randomised(gpt3(32, 2, 4, band=6)), randomised(gpt2(32, 2, 4))
    x = torch.randn(1, 6, 32)
    torch.testing.assert_close(banded(x), dense(x))


@pytest.mark.parametrize("prefix, side", [(3, 13), (1, 4), (5, 1)])
def test_rows_columns_and_neighbourhoods_of_a_picture_are_those_of_the_paper(prefix, side):
    n = prefix + side**2
    masks = {kind: picture_mask(kind, n, n, prefix, side, "cpu")[0, 0] for kind in ("row", "column", "around")}
    for query in range(n):
        for key in range(n):
            (y, x), (v, u) = divmod(query - prefix, side), divmod(key - prefix, side)
            wanted = {
                "row": query - key
                <= side,  # the row up to here, and of the row above what is not before the same column
                "column": x == u,
                "around": abs(y - v) <= 5 and abs(x - u) <= 5,
            }
            for kind, mask in masks.items():
                behind = key <= query and (key < prefix or (query >= prefix and wanted[kind]))
                assert mask[query, key].item() == behind, (kind, query, key)


@pytest.mark.parametrize("kind, query", [("row", 20), ("column", 20), ("around", 20), ("row", 3), ("around", 27)])
def test_a_block_of_a_sparse_transformer_reads_what_its_mask_allows_and_nothing_after(kind, query):
    prefix, side, layer = 3, 5, {"row": 0, "column": 1, "around": 5}[kind]
    model, n = randomised(sparse(32, 6, 4, prefix, side)), prefix + side**2
    x = torch.randn(1, n, 32, requires_grad=True)
    y, _ = model.blocks[layer](x, x, None, model._picture_masks(n, n, "cpu")[layer], None, None)
    (y[0, query] * torch.randn(32)).sum().backward()
    moved = x.grad[0].abs().sum(-1) > 0
    assert torch.equal(moved, picture_mask(kind, n, n, prefix, side, "cpu")[0, 0, query])
    assert not moved[query + 1 :].any()


def test_before_the_picture_a_sparse_transformer_is_dense():
    thin, dense = randomised(sparse(32, 3, 4, prefix=6, side=4)), randomised(gpt2(32, 3, 4))
    x = torch.randn(1, 6, 32)
    torch.testing.assert_close(thin(x), dense(x))


@pytest.mark.parametrize("chunks", [(7,), (3, 4), (1,) * 7, (4, 1, 2)])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].causal])
def test_reading_in_chunks_with_a_cache_equals_one_full_forward(kind, chunks):
    config = KINDS[kind]
    model, x, where = randomised(config), torch.randn(2, 7, config.width), positions(config, 7)
    cache, parts, start = KVCache(config, batch=2, length=7), [], 0
    for n in chunks:
        here = where[:, start : start + n] if where is not None else None
        parts.append(model(x[:, start : start + n], here, cache=cache))
        start += n
    torch.testing.assert_close(torch.cat(parts, 1), model(x, where), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt1", "gpt2", "gpt3", "modern"])
def test_left_padding_changes_nothing_for_the_positions_that_are_real(kind):
    config = KINDS[kind]
    model, short, long = randomised(config), torch.randn(1, 3, config.width), torch.randn(1, 6, config.width)
    batch = torch.cat((torch.cat((torch.full((1, 3, config.width), 99.0), short), 1), long))
    valid = torch.tensor([[False] * 3 + [True] * 3, [True] * 6])
    where = (valid.cumsum(1) - 1).clamp(min=0)[..., None] if config.rotary_axes else None
    y = model(batch, where, valid)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y[0, 3:], model(short)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(y[1], model(long)[0], atol=1e-4, rtol=1e-4)


def test_selected_rows_of_a_cache_continue_like_rows_read_anew():
    config = KINDS["modern"]
    model, x, rows = randomised(config), torch.randn(2, 5, config.width), torch.tensor([1, 0, 1])
    cache = KVCache(config, batch=2, length=5)
    model(x[:, :4], cache=cache)
    y = model(x[rows, 4:], cache=cache.select(rows))
    torch.testing.assert_close(y, model(x[rows])[:, 4:], atol=1e-4, rtol=1e-4)


def test_a_full_cache_says_so():
    config = KINDS["gpt2"]
    with pytest.raises(ValueError, match="holds 2 positions, 3 were asked for"):
        randomised(config)(torch.randn(1, 3, 32), cache=KVCache(config, 1, 2))


def test_attention_without_causality_does_not_know_the_order_but_rotary_positions_do():
    config = KINDS["image tower"]
    model, x, where = randomised(config), torch.randn(1, 5, config.width), positions(config, 5)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(model(x[:, order], where[:, order]), model(x, where)[:, order], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(x, where), model(x, where.flip(1)), atol=1e-3)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_rotary_attention_sees_only_differences_of_positions(axes):
    config = modern(36, 2, 2, rotary_axes=axes)
    model, x, where = randomised(config), torch.randn(1, 5, 36), torch.randint(0, 9, (1, 5, axes))
    torch.testing.assert_close(model(x, where), model(x, where + 11), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    config = KINDS[kind]
    model = randomised(config)
    (model(torch.randn(2, 5, config.width), positions(config, 5)) * torch.randn(config.width)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_shortcuts_start_as_the_identity_so_they_may_be_put_on_trained_weights():
    from dataclasses import replace

    with_shortcuts, plain = (
        Transformer(modern(32, 3, 4)),
        Transformer(replace(modern(32, 3, 4), shortcuts=False)),
    )
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.2)
    with_shortcuts.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 5, 32)
    assert torch.equal(with_shortcuts(x), plain(x))


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"width": 100, "heads": 6}, "width 100 is not divisible by heads 6; try heads 5 or"),
        ({"width": 0}, "width 0"),
        ({"depth": 10**9}, "depth 1000000000"),
        ({"rotary_axes": 4}, "rotary_axes 4"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_impossible_settings_get_a_sentence_before_memory_is_taken(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        TransformerConfig(**{"width": 64, "depth": 2, "heads": 4, **settings})


@pytest.mark.parametrize("kind", ["causal", "full", "padded"])
def test_attention_while_training_equals_the_fused_kernel(kind):
    q, k, v = (torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3))
    mask = None
    if kind == "padded":
        mask = torch.rand(2, 1, 5, 5) > 0.5
        mask |= torch.eye(5, dtype=torch.bool)
    y = attend(q, k, v, mask, kind == "causal")
    with torch.no_grad():
        expected = attend(q, k, v, mask, kind == "causal")
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    y.square().sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in (q, k, v))


def test_squared_relu_and_its_gradient_are_those_of_the_plain_products():
    torch.manual_seed(0)
    x = torch.randn(40, 30, dtype=torch.float64, requires_grad=True)
    assert torch.equal(SquaredReLU.apply(x), x.relu() * x.relu())
    assert torch.autograd.gradcheck(SquaredReLU.apply, x.detach().clamp(min=0.1).requires_grad_())
    (mine,) = torch.autograd.grad(SquaredReLU.apply(x).sum(), x)
    assert torch.allclose(mine, 2 * x.relu())
    half = x.detach().bfloat16().requires_grad_()
    (rounded,) = torch.autograd.grad(SquaredReLU.apply(half).sum(), half)
    assert torch.allclose(rounded, 2 * half.relu(), rtol=2**-7)


def test_what_is_kept_for_the_backward_pass_of_a_squared_relu_is_its_result_alone():
    kept = []
    x = torch.randn(5, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda t: t):
        y = SquaredReLU.apply(x)
    assert kept == [y.data_ptr()]
