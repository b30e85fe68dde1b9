"""Claims about published weights: dVAE, VQGAN and minDALL-E come in as they compute elsewhere, and no file executes anything."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import CharBPETokenizer
from torch import nn

from dalle import convert, dvae, foreign, mindalle, openai, tokenizers, vqgan
from dalle.model import PADDING
from dalle.presets import DVAEConfig
from multimodal.cli import UserError
from multimodal.transformer import KVCache

FORMATS = {"archive": True, "legacy": False}  # what torch.save writes, and wrote until 2020
DVAE = {"width": 16, "start": 8, "vocabulary": 64}
VQ = {"width": 32, "levels": (1, 2), "attention": (1,), "latent": 8, "embedding": 6, "vocabulary": 40}
GUMBEL = {"width": 32, "levels": (1, 1, 2), "attention": (0, 2), "latent": 8, "embedding": 8, "vocabulary": 40}


def random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """A weight that keeps the size of what passes it, or a bias that shows."""
    fan = shape[1:] if len(shape) > 1 else (25,)
    return torch.randn(shape, generator=generator) * 1.5 * torch.Size(fan).numel() ** -0.5


def pictures(size: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


# OpenAI's dVAE, written down from its description (Ramesh et al. 2021, appendix A; its parameters are called w and b)


def openai_weights(part: str, width: int, start: int, vocabulary: int, blocks: int = 2) -> dict[str, torch.Tensor]:
    """Random weights of an encoder or a decoder under their published names."""
    g, found = torch.Generator().manual_seed(1), {}
    first, kernels, sizes = {
        "encoder": ((width, 3, 7), (3, 3, 3, 1), [width, width, 2 * width, 4 * width, 8 * width]),
        "decoder": ((start, vocabulary, 1), (1, 3, 3, 3), [start, 8 * width, 4 * width, 2 * width, width]),
    }[part]
    last = (vocabulary, 8 * width, 1) if part == "encoder" else (6, width, 1)
    maps = {"blocks.input": first, "blocks.output.conv": last}
    for group in range(4):
        for block in range(blocks):
            before, after = sizes[group + (block > 0)], sizes[group + 1]
            name, inner = f"blocks.group_{group + 1}.block_{block + 1}", after // 4
            if before != after:
                maps[f"{name}.id_path"] = (after, before, 1)
            for i, ends in enumerate([(inner, before), (inner, inner), (inner, inner), (after, inner)]):
                maps[f"{name}.res_path.conv_{i + 1}"] = (*ends, kernels[i])
    for name, (outputs, inputs, kernel) in maps.items():
        found[f"{name}.w"] = random(g, outputs, inputs, kernel, kernel) * (4 if "res_path" in name else 1)
        found[f"{name}.b"] = random(g, outputs)
    return found


def openai_network(weights: dict[str, torch.Tensor], x: torch.Tensor, resize, blocks: int = 2) -> torch.Tensor:
    def convolution(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weights[f"{name}.w"], weights[f"{name}.b"], padding=weights[f"{name}.w"].shape[-1] // 2)

    x = convolution("blocks.input", x)
    for group in range(1, 5):
        for block in range(1, blocks + 1):
            name, branch = f"blocks.group_{group}.block_{block}", x
            for i in range(1, 5):
                branch = convolution(f"{name}.res_path.conv_{i}", F.relu(branch))
            short = convolution(f"{name}.id_path", x) if f"{name}.id_path.w" in weights else x
            x = short + branch / (4 * blocks) ** 2
        x = resize(x) if group < 4 else x
    return convolution("blocks.output.conv", F.relu(x))


def openai_codes(weights, images, blocks: int = 2) -> torch.Tensor:
    return openai_network(weights, 0.8 * images + 0.1, lambda x: F.max_pool2d(x, 2), blocks).argmax(1).flatten(1)


def openai_pictures(weights, codes, vocabulary: int, blocks: int = 2) -> torch.Tensor:
    side = round(codes.shape[1] ** 0.5)
    one_hot = F.one_hot(codes.view(-1, side, side), vocabulary).permute(0, 3, 1, 2).float()
    found = openai_network(weights, one_hot, lambda x: F.interpolate(x, scale_factor=2), blocks)
    return ((torch.sigmoid(found[:, :3]) - 0.1) / 0.8).clamp(0, 1)


class Part(nn.Module):
    """A module tree that has its parameters under the given names, as the published files hold one."""

    def __init__(self, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.use_mixed_precision, self.device = True, torch.device("cpu")  # what theirs remember besides
        inner: dict[str, dict] = {}
        for name, tensor in weights.items():
            first, _, rest = name.partition(".")
            if rest:
                inner.setdefault(first, {})[rest] = tensor
            else:
                self.register_parameter(first, nn.Parameter(tensor, requires_grad=False))
        for name, part in inner.items():
            self.add_module(name, Part(part))


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, torch.Tensor]]:
    return {part: openai_weights(part, **DVAE) for part in ("encoder", "decoder")}


def write_parts(folder: Path, parts, form: str, archive: bool = True) -> Path:
    """A folder as people have it: whole modules, plain dictionaries, or safetensors."""
    folder.mkdir()
    for part, weights in parts.items():
        if form == "safetensors":
            save_file(weights, folder / f"{part}.safetensors")
        else:
            content = Part(weights) if form == "module" else weights
            torch.save(content, folder / f"{part}.pkl", _use_new_zipfile_serialization=archive)
    return folder


@pytest.fixture(scope="module")
def published(parts, tmp_path_factory) -> Path:
    return write_parts(tmp_path_factory.mktemp("published") / "dall-e", parts, "module")


@pytest.mark.parametrize("form", ["module", "names", "safetensors"])
@pytest.mark.parametrize("archive", FORMATS.values(), ids=FORMATS)
def test_openais_dvae_has_the_codes_and_pictures_of_its_description(form, archive, parts, tmp_path):
    folder = write_parts(tmp_path / "dall-e", parts, form, archive)
    assert convert.main([str(folder), "--out", str(tmp_path / "ours"), "--size", "32"]) == 0
    ours, images = tokenizers.load(tmp_path / "ours"), pictures(32, 8)
    expected = openai_codes(parts["encoder"], images)
    assert len(expected.unique()) > 3  # the comparison says something
    assert torch.equal(ours.encode(images), expected)
    codes = torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(2))
    drawn = openai_pictures(parts["decoder"], codes, 64)
    assert drawn.std() > 0.1
    torch.testing.assert_close(ours.decode(codes), drawn, atol=1e-5, rtol=0)


def test_openais_dvae_equals_the_package_that_published_it(tmp_path):
    package = pytest.importorskip("dall_e", reason="dall-e is the reference; it is not installed")
    torch.manual_seed(0)
    theirs = {
        "encoder": package.Encoder(n_hid=64, vocab_size=512, n_blk_per_group=1),
        "decoder": package.Decoder(n_hid=64, vocab_size=512, n_blk_per_group=1, n_init=16),
    }
    for part, module in theirs.items():
        torch.save(module, tmp_path / f"{part}.pkl")
    ours = openai.from_published(*(foreign.read(tmp_path / f"{part}.pkl") for part in theirs), 32)
    images = pictures(32)
    expected = theirs["encoder"](package.map_pixels(images))
    torch.testing.assert_close(ours.encoder(0.8 * images + 0.1), expected, atol=1e-5, rtol=0)
    codes = expected.argmax(1)
    one_hot = F.one_hot(codes, 512).permute(0, 3, 1, 2).float()
    drawn = package.unmap_pixels(theirs["decoder"](one_hot).float()[:, :3].sigmoid())
    torch.testing.assert_close(ours.decode(codes.flatten(1)), drawn, atol=1e-5, rtol=0)


def test_the_published_sizes_are_the_defaults():
    with torch.device("meta"):
        network = openai.OpenAIDVAE(openai.OpenAIConfig())
    halves = [sum(p.numel() for p in part.parameters()) for part in (network.encoder, network.decoder)]
    assert halves == [53_786_240, 43_829_766]  # as the published files hold
    assert (network.config.grid, network.config.length, network.config.vocabulary) == (32, 1024, 8192)


def test_encoder_and_decoder_may_lie_apart_or_in_one_file(parts, published, tmp_path):
    encoder, decoder = tmp_path / "first.pkl", tmp_path / "second.pt"
    encoder.write_bytes((published / "encoder.pkl").read_bytes())
    decoder.write_bytes((published / "decoder.pkl").read_bytes())
    both = tmp_path / "both.safetensors"
    save_file({f"{part}.{name}": t for part, weights in parts.items() for name, t in weights.items()}, both)
    arguments = {"apart": [str(encoder), "--decoder", str(decoder)], "one": [str(both)]}
    for name, source in arguments.items():
        assert convert.main([*source, "--out", str(tmp_path / name), "--size", "32"]) == 0
    first, second = (tokenizers.load(tmp_path / name).state_dict() for name in arguments)
    assert all(torch.equal(first[name], second[name]) for name in first)


# VQGAN, written down from its description (Esser et al. 2021; the networks of Ho et al. 2020 without time)


def vqgan_weights(
    width: int, levels, attention, latent: int, embedding: int, vocabulary: int, gumbel: bool = False, blocks: int = 2
) -> dict[str, torch.Tensor]:
    """Random weights under their published names."""
    g, found = torch.Generator().manual_seed(3), {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        found[f"{name}.weight"] = random(g, outputs, inputs, kernel, kernel)
        found[f"{name}.bias"] = random(g, outputs)

    def norm(name: str, channels: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + random(g, channels), random(g, channels)

    def residual(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.norm1", inputs)
        convolution(f"{name}.conv1", inputs, outputs, 3)
        norm(f"{name}.norm2", outputs)
        convolution(f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            convolution(f"{name}.nin_shortcut", inputs, outputs, 1)

    def attend(name: str, channels: int) -> None:
        norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            convolution(f"{name}.{part}", channels, channels, 1)

    widths = [width * level for level in levels]
    for side, count, order in (("encoder.down", blocks, 1), ("decoder.up", blocks + 1, -1)):
        channels = width if order == 1 else widths[-1]
        for i in range(len(levels))[::order]:
            for j in range(count):
                residual(f"{side}.{i}.block.{j}", channels, widths[i])
                channels = widths[i]
                if i in attention:
                    attend(f"{side}.{i}.attn.{j}", channels)
            if order == 1 and i + 1 < len(levels):
                convolution(f"{side}.{i}.downsample.conv", channels, channels, 3)
            if order == -1 and i > 0:
                convolution(f"{side}.{i}.upsample.conv", channels, channels, 3)
        network = side.split(".")[0]
        residual(f"{network}.mid.block_1", widths[-1], widths[-1])
        attend(f"{network}.mid.attn_1", widths[-1])
        residual(f"{network}.mid.block_2", widths[-1], widths[-1])
        norm(f"{network}.norm_out", channels)
        convolution(f"{network}.conv_in", *((3, width) if order == 1 else (latent, widths[-1])), 3)
        convolution(f"{network}.conv_out", channels, latent if order == 1 else 3, 3)
    convolution("quant_conv", latent, embedding, 1)
    convolution("post_quant_conv", embedding, latent, 1)
    if gumbel:
        convolution("quantize.proj", embedding, vocabulary, 1)
    found["quantize.embed.weight" if gumbel else "quantize.embedding.weight"] = random(g, vocabulary, embedding) * 3
    return found


def vqgan_network(weights: dict[str, torch.Tensor], side: str, x: torch.Tensor) -> torch.Tensor:
    """What the encoder or the decoder computes, as far as the weights go."""

    def convolution(name: str, x: torch.Tensor, **options) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        options.setdefault("padding", kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, weights[f"{name}.bias"], **options)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        grouped = x.reshape(x.shape[0], 32, -1)
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        x = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        return x * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    def swish(x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)

    def residual(name: str, x: torch.Tensor) -> torch.Tensor:
        y = convolution(f"{name}.conv1", swish(norm(f"{name}.norm1", x)))
        y = convolution(f"{name}.conv2", swish(norm(f"{name}.norm2", y)))
        return y + (convolution(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in weights else x)

    def attend(name: str, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (convolution(f"{name}.{part}", norm(f"{name}.norm", x)).flatten(2) for part in "qkv")
        shares = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)  # of each place, over all places
        return x + convolution(f"{name}.proj_out", (v @ shares.transpose(1, 2)).reshape(x.shape))

    def level(name: str, x: torch.Tensor) -> torch.Tensor:
        for j in range(10):
            if f"{name}.block.{j}.conv1.weight" in weights:
                x = residual(f"{name}.block.{j}", x)
            if f"{name}.attn.{j}.q.weight" in weights:
                x = attend(f"{name}.attn.{j}", x)
        return x

    def middle(x: torch.Tensor) -> torch.Tensor:
        return residual(f"{side}.mid.block_2", attend(f"{side}.mid.attn_1", residual(f"{side}.mid.block_1", x)))

    count = sum(f"{side}.{d}.{i}.block.0.conv1.weight" in weights for d in ("down", "up") for i in range(10))
    x = convolution(f"{side}.conv_in", x)
    if side == "encoder":
        for i in range(count):
            x = level(f"encoder.down.{i}", x)
            if i + 1 < count:
                x = convolution(f"encoder.down.{i}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
        x = middle(x)
    else:
        x = middle(x)
        for i in reversed(range(count)):
            x = level(f"decoder.up.{i}", x)
            if i:
                x = convolution(f"decoder.up.{i}.upsample.conv", F.interpolate(x, scale_factor=2))
    return convolution(f"{side}.conv_out", swish(norm(f"{side}.norm_out", x)))


def vqgan_codes(weights, images) -> torch.Tensor:
    latent = vqgan_network(weights, "encoder", 2 * images - 1)
    latent = F.conv2d(latent, weights["quant_conv.weight"], weights["quant_conv.bias"])
    if "quantize.proj.weight" in weights:
        return F.conv2d(latent, weights["quantize.proj.weight"], weights["quantize.proj.bias"]).argmax(1).flatten(1)
    vectors = weights["quantize.embedding.weight"]
    return torch.cdist(latent.flatten(2).transpose(1, 2), vectors.expand(len(images), -1, -1)).argmin(2)


def vqgan_pictures(weights, codes) -> torch.Tensor:
    side = round(codes.shape[1] ** 0.5)
    vectors = weights.get("quantize.embed.weight", weights.get("quantize.embedding.weight"))[codes]
    latent = vectors.transpose(1, 2).reshape(len(codes), -1, side, side)
    latent = F.conv2d(latent, weights["post_quant_conv.weight"], weights["post_quant_conv.bias"])
    return (vqgan_network(weights, "decoder", latent) / 2 + 0.5).clamp(0, 1)


class Anything:
    """A class of a training that is not installed here."""

    def __init__(self):
        self.best, self.path = torch.ones(2), Path("somewhere")


def lightning(weights: dict[str, torch.Tensor], prefix: str = "") -> dict:
    """A checkpoint as Lightning leaves it: the weights, among losses, optimisers and objects of all sorts."""
    state = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    state |= {f"{prefix}loss.discriminator.main.0.weight": torch.ones(2, 2), "transformer.pos_emb": torch.ones(3)}
    return {
        "epoch": 3,
        "callbacks": {Anything: {"best": torch.tensor(0.5), "of": Anything()}},
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "betas": (0.5, 0.9)}],
        "hyper_parameters": {"callable": os.path.join, "some": {1, 2}, "shape": torch.Size((1, 2)), "raw": b"bytes"},
    }


@pytest.mark.parametrize("archive", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("prefix", ["", "first_stage_model."], ids=["alone", "within a transformer"])
@pytest.mark.parametrize("sizes", [VQ, {**GUMBEL, "gumbel": True}], ids=["nearest", "gumbel"])
def test_vqgan_has_the_codes_and_pictures_of_its_description(sizes, prefix, archive, tmp_path):
    weights, images = vqgan_weights(**sizes), pictures(16, 4)
    checkpoints = tmp_path / "logs" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(lightning(weights, prefix), checkpoints / "last.ckpt", _use_new_zipfile_serialization=archive)
    assert convert.main([str(tmp_path / "logs"), "--out", str(tmp_path / "ours"), "--size", "16"]) == 0
    ours, expected = tokenizers.load(tmp_path / "ours"), vqgan_codes(weights, images)
    for name, size in sizes.items():
        assert getattr(ours.config, name) == size
    assert len(expected.unique()) > 5
    assert torch.equal(ours.encode(images), expected)
    drawn = vqgan_pictures(weights, expected)
    assert drawn.std() > 0.1
    torch.testing.assert_close(ours.decode(expected), drawn, atol=1e-5, rtol=0)


def test_the_sizes_of_the_vqgan_for_imagenet_are_the_defaults():
    config = vqgan.VQGANConfig()
    assert (config.factor, config.grid, config.length, config.vocabulary) == (16, 16, 256, 16384)


# minDALL-E, written down from its description


def mindalle_weights(width: int, depth: int, tokens: int, length: int, codes: int, places: int) -> dict:
    g = torch.Generator().manual_seed(4)
    found = {
        "tok_emb_txt.weight": random(g, tokens, width) * 4,
        "tok_emb_img.weight": random(g, codes, width) * 4,
        "pos_emb_txt.weight": random(g, length, width) * 4,
        "pos_emb_img.weight": random(g, places, width) * 4,
        "head_txt.weight": random(g, tokens, width),
        "head_img.weight": random(g, codes, width),
    }
    norms = ["ln_f", *(f"blocks.{i}.ln{j}" for i in range(depth) for j in (1, 2))]
    found |= {f"{name}.weight": 1 + random(g, width) for name in norms} | {f"{n}.bias": random(g, width) for n in norms}
    for i in range(depth):
        maps = {f"attn.{name}": (width, width) for name in ("key", "query", "value", "proj")}
        for name, shape in {**maps, "mlp.0": (4 * width, width), "mlp.2": (width, 4 * width)}.items():
            found[f"blocks.{i}.{name}.weight"], found[f"blocks.{i}.{name}.bias"] = (
                random(g, *shape),
                random(g, shape[0]),
            )
    return found


def mindalle_logits(weights, heads: int, tokens: torch.Tensor, codes: torch.Tensor):
    """Logits of the second token on, and of all codes."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = torch.cat(
        (
            weights["tok_emb_txt.weight"][tokens] + weights["pos_emb_txt.weight"],
            weights["tok_emb_img.weight"][codes] + weights["pos_emb_img.weight"],
        ),
        dim=1,
    )
    b, n, width = x.shape
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    for i in range(sum(f"blocks.{i}.ln1.weight" in weights for i in range(100))):
        y = norm(f"blocks.{i}.ln1", x)
        parts = (linear(f"blocks.{i}.attn.{part}", y) for part in ("query", "key", "value"))
        q, k, v = (part.view(b, n, heads, -1).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(future, float("-inf"))
        x = x + linear(f"blocks.{i}.attn.proj", (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, width))
        x = x + linear(f"blocks.{i}.mlp.2", F.gelu(linear(f"blocks.{i}.mlp.0", norm(f"blocks.{i}.ln2", x))))
    x, l = norm("ln_f", x), tokens.shape[1]  # noqa: E741
    return linear("head_txt", x[:, : l - 1]), linear("head_img", x[:, l - 1 : -1])


HEADS, LENGTH = 4, 8
CAPTIONS = ["A Cat", "a monkey, with Sunglasses!", "?"]


@pytest.fixture(scope="module")
def mindalle_folder(tmp_path_factory) -> Path:
    """The files of minDALL-E, small: pictures of 8 pixels as 4 x 4 codes."""
    folder = tmp_path_factory.mktemp("minDALL-E")
    (folder / "tokenizer").mkdir()
    words = CharBPETokenizer(unk_token="[UNK]", lowercase=True)
    words.train_from_iterator(
        ["a cat and a monkey with sunglasses, in the frame!"] * 3, 60, 1, ["[UNK]", "[PAD]"], show_progress=False
    )
    words._tokenizer.model.save(str(folder / "tokenizer"), "bpe-16k")
    tokens = words.get_vocab_size()
    torch.save(lightning(vqgan_weights(**VQ)), folder / "stage1_last.ckpt")
    torch.save(
        {"state_dict": mindalle_weights(32, 3, tokens, LENGTH, VQ["vocabulary"], 16)}, folder / "stage2_last.ckpt"
    )
    settings = f"stage2:\n  type: transformer1d\n  hparams:\n    n_heads: {HEADS}\n    gelu_use_approx: False\n"
    (folder / "config.yaml").write_text(settings)
    return folder


@pytest.fixture(scope="module")
def mindalle_run(mindalle_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ours") / "mindalle"
    assert convert.main([str(mindalle_folder), "--out", str(out)]) == 0
    return out


def some_codes(count: int = len(CAPTIONS)) -> torch.Tensor:
    return torch.randint(VQ["vocabulary"], (count, 16), generator=torch.Generator().manual_seed(6))


def test_mindalle_has_the_logits_of_its_description(mindalle_folder, mindalle_run):
    model, pictures_of, words = mindalle.load(mindalle_run)
    reference = CharBPETokenizer.from_file(
        *(str(mindalle_folder / "tokenizer" / f"bpe-16k-{name}") for name in ("vocab.json", "merges.txt")),
        unk_token="[UNK]", lowercase=True,
    )  # fmt: skip
    reference.add_special_tokens(["[PAD]"])
    reference.enable_padding(length=LENGTH, pad_id=reference.token_to_id("[PAD]"))
    reference.enable_truncation(LENGTH)
    tokens = torch.tensor([reference.encode(text).ids for text in CAPTIONS])
    assert len(tokens.unique(dim=0)) == len(CAPTIONS)
    weights = torch.load(mindalle_folder / "stage2_last.ckpt", weights_only=True)["state_dict"]
    text_logits, code_logits = mindalle_logits(weights, HEADS, tokens, some_codes())
    found_text, found_codes = model(encode_captions_loosely(words), some_codes())
    assert code_logits.std() > 0.5
    torch.testing.assert_close(found_codes, code_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found_text[:, 1:], text_logits, atol=1e-4, rtol=0)
    assert (found_text[:, 0] == 0).all()  # nothing tells the first
    assert (model.config.transformer.heads, pictures_of.config.size) == (HEADS, 8)


def encode_captions_loosely(words) -> torch.Tensor:
    """What `encode_captions` of dalle/model.py makes of the captions."""
    rows = torch.full((len(CAPTIONS), LENGTH), PADDING)
    for row, text in zip(rows, CAPTIONS, strict=True):
        found = [*words.encode(text)[: LENGTH - 1], words.end]
        row[: len(found)] = torch.tensor(found)
    return rows


@pytest.mark.parametrize("known", [0, 5])
def test_mindalle_draws_code_by_code_with_the_logits_of_the_whole(mindalle_run, known):
    model, _, words = mindalle.load(mindalle_run)
    text, codes = encode_captions_loosely(words), some_codes()
    order, expected = model.raster(len(text)), model(text, codes)[1]
    cache = KVCache(model.config.transformer, len(text), LENGTH + model.config.blocks)
    features = model.prefill(text, codes[:, :known, None], order, cache)
    nothing = torch.empty(len(text), 0, dtype=torch.long)
    for i in range(known, 16):
        torch.testing.assert_close(model.paint(features, nothing), expected[:, i], atol=1e-4, rtol=1e-4)
        if i < 15:
            features = model.advance(text, codes[:, i, None], order, cache)


def test_a_code_of_mindalle_depends_on_what_is_before_it_only(mindalle_run):
    model, _, words = mindalle.load(mindalle_run)
    text, codes = encode_captions_loosely(words), some_codes()
    changed = codes.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VQ["vocabulary"]
    before, after = model(text, codes)[1], model(text, changed)[1]
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert ((before[:, 8:] - after[:, 8:]).abs().amax((0, 2)) > 1e-3).all()


def test_the_backbone_holds_the_published_size_of_mindalle():
    with torch.device("meta"):
        theirs = mindalle_weights_on_meta()
    model = mindalle.from_published(theirs, {"n_heads": 24}, 1)
    blocks = model.config.transformer
    assert (blocks.width, blocks.depth, blocks.heads, model.config.length) == (1536, 42, 24, 256)
    assert 1.2e9 < sum(p.numel() for p in model.parameters()) < 1.4e9


def mindalle_weights_on_meta() -> dict[str, torch.Tensor]:
    small = mindalle_weights(4, 1, 5, 3, 7, 4)
    sizes = {4: 1536, 16: 6144, 5: 16384, 3: 64, 7: 16384}
    found = {}
    for name, tensor in small.items():
        rows = 256 if name == "pos_emb_img.weight" else sizes[tensor.shape[0]]
        big = torch.empty(rows, *(sizes[n] for n in tensor.shape[1:]))
        for i in range(42 if name.startswith("blocks.0.") else 1):
            found[name.replace("blocks.0.", f"blocks.{i}.")] = big
    return found


# one interface


@pytest.fixture(scope="module", params=["dvae", "openai-dvae", "vqgan", "gumbel"])
def tokenizer(request, parts):
    torch.manual_seed(0)
    if request.param == "dvae":
        return dvae.DVAE(DVAEConfig(size=16, grid=4, width=16, depth=1, levels=(4, 3, 5))).eval()
    if request.param == "openai-dvae":
        return openai.from_published(parts["encoder"], parts["decoder"], 16)
    return vqgan.from_published(vqgan_weights(**(VQ if request.param == "vqgan" else GUMBEL | {"gumbel": True})), 16)


@torch.no_grad()
def test_a_tokenizer_of_any_kind_comes_back_from_its_directory_the_same(tokenizer, tmp_path):
    tokenizers.save(tmp_path, tokenizer, card="# A card\n")
    again, images = tokenizers.load(tmp_path), pictures(16)
    codes = tokenizer.encode(images)
    assert again.config == tokenizer.config and isinstance(again, tokenizers.PictureTokenizer)
    assert torch.equal(again.encode(images), codes) and torch.equal(again.decode(codes), tokenizer.decode(codes))
    assert (tmp_path / "README.md").read_text() == "# A card\n"


@torch.no_grad()
def test_codes_of_any_kind_are_in_the_codebook_and_pictures_in_0_to_1(tokenizer):
    config, codes = tokenizer.config, tokenizer.encode(pictures(16))
    assert codes.shape == (2, config.length) and config.length == config.grid**2 and config.size == 16
    assert codes.min() >= 0 and codes.max() < config.vocabulary
    drawn = tokenizer.decode(codes * 7 % config.vocabulary)
    assert drawn.shape == (2, 3, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1


@torch.no_grad()
def test_a_picture_has_its_codes_alone_in_a_batch_and_in_a_batch_that_is_split(tokenizer, monkeypatch):
    images = pictures(16, 5)
    whole = tokenizer.encode(images)
    assert torch.equal(whole[2:3], tokenizer.encode(images[2:3]))
    monkeypatch.setattr("dalle.published.MAX_FEATURES", 1)
    assert torch.equal(whole, tokenizer.encode(images))


@torch.no_grad()
def test_published_codes_do_not_depend_on_the_precision_around_them(parts):
    network, images = openai.from_published(parts["encoder"], parts["decoder"], 32), pictures(32, 8)
    codes = network.encode(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.encoder.input(images).dtype == torch.bfloat16  # else there would be nothing to claim
        assert torch.equal(network.encode(images), codes)
        drawn = network.decode(codes)
    assert torch.equal(network.decode(codes), drawn)


def test_the_same_weights_take_pictures_of_another_size(published, tmp_path):
    for size in (16, 40):
        out = tmp_path / str(size)
        assert convert.main([str(published), "--out", str(out), "--size", str(size)]) == 0
        network = tokenizers.load(out)
        assert network.config.grid == size // 8
        assert network.decode(network.encode(pictures(size, 1))).shape == (1, 3, size, size)


def test_a_conversion_prints_what_it_found_and_leaves_a_card(published, tmp_path, capsys):
    assert convert.main([str(published), "--out", str(tmp_path / "a"), "--size", "32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found | {"out": "", "parameters": 0} == {
        "out": "", "kind": "openai-dvae", "parameters": 0, "size": 32, "grid": 4, "vocabulary": 64,
    }  # fmt: skip
    card = (tmp_path / "a" / "README.md").read_text()
    assert "python -m dalle.convert" in card and "openai/DALL-E" in card and "modified MIT" in card
    assert convert.main([str(published), "--out", str(tmp_path / "b")]) == 0
    assert "OpenAI's dVAE" in (said := capsys.readouterr().out) and "256x256 pictures as 32x32 codes out of 64" in said


# nothing of a file is executed


class Call:
    """Pickled as a call of any function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


class Restored:
    """A real class whose way of being restored leaves a trace."""

    marker = ""

    def __setstate__(self, state):
        Path(state["marker"]).write_text("executed")


def evils(marker: Path) -> dict[str, object]:
    restored = Restored()
    restored.marker = str(marker)
    return {
        "os.system": Call(os.system, f"echo executed > {marker}"),
        "eval": Call(eval, f"__import__('pathlib').Path({str(marker)!r}).write_text('executed')"),
        "exec": Call(exec, f"import pathlib; pathlib.Path({str(marker)!r}).write_text('executed')"),
        "setstate": restored,
        "nested": Call(getattr, Call(Path, str(marker)), "touch"),
    }


@pytest.mark.parametrize("archive", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "setstate"])
def test_code_beside_the_weights_is_not_run_and_the_weights_come(name, archive, tmp_path):
    marker, path, weights = tmp_path / "marker", tmp_path / "model.ckpt", {"a.weight": torch.arange(6.0).view(2, 3)}
    evil = evils(marker)[name]
    torch.save({"evil": evil, "state_dict": weights}, path, _use_new_zipfile_serialization=archive)
    found = foreign.read(path)
    assert torch.equal(found.pop("a.weight"), weights["a.weight"]) and not found
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # the file does what it says where it may


@pytest.mark.parametrize("archive", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["os.system", "eval", "exec", "setstate", "nested"])
def test_code_in_place_of_the_weights_is_a_sentence(name, archive, tmp_path):
    marker = tmp_path / "marker"
    for i, content in enumerate(({"state_dict": evils(marker)[name]}, evils(marker)[name])):
        path = tmp_path / f"{i}.ckpt"
        torch.save(content, path, _use_new_zipfile_serialization=archive)
        with pytest.raises(UserError, match="holds no tensors by name"):
            foreign.read(path)
    path.write_bytes(pickle.dumps(evils(marker)[name]))
    with pytest.raises(UserError, match="not of torch.save"):
        foreign.read(path)
    assert not marker.exists()


def archive_of(program: bytes, path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", program)
        for name, content in parts.items():
            archive.writestr(f"model/{name}", content)
    return path


def test_what_a_pickle_does_to_our_functions_is_gone_with_it(tmp_path):
    # GLOBAL torch._utils _rebuild_tensor_v2, then BUILD with attributes that are set one by one
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xs\x86b."
    with pytest.raises(UserError, match="holds no tensors by name"):
        foreign.read(archive_of(program, tmp_path / "a.pt"))
    torch.save({"a": torch.ones(2)}, tmp_path / "b.pt")
    assert torch.equal(foreign.read(tmp_path / "b.pt")["a"], torch.ones(2))


def test_a_module_within_itself_is_a_sentence(tmp_path):
    module = nn.Linear(2, 2)
    module.inner = module
    torch.save(module, tmp_path / "a.pkl")
    with pytest.raises(UserError, match="modules within themselves"):
        foreign.read(tmp_path / "a.pkl")


def test_sizes_that_a_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path):
    one = torch.zeros(1)
    torch.save({"a": one.expand(10**9)}, tmp_path / "repeated.pt")
    with pytest.raises(UserError, match="promises more numbers"):
        foreign.read(tmp_path / "repeated.pt")
    torch.save(
        {f"a{i}": one.expand(1) for i in range(10)} | {"b": torch.zeros(9).as_strided((3, 3), (0, 1))},
        tmp_path / "b.pt",
    )
    assert foreign.read(tmp_path / "b.pt")["b"].shape == (3, 3)  # what fits may lie as it likes
    table = b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"."
    with pytest.raises(UserError, match="a table larger than itself"):
        foreign.read(archive_of(table, tmp_path / "table.pt"))
    deep = b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."  # a key that no stack is deep enough for
    with pytest.raises(UserError, match="instructions or 100,000 tuples"):
        foreign.read(archive_of(deep, tmp_path / "deep.pt"))
    text = b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x."
    with pytest.raises(UserError, match="cut off or damaged"):
        foreign.read(archive_of(text, tmp_path / "text.pt"))


@pytest.mark.parametrize("archive", FORMATS.values(), ids=FORMATS)
def test_a_file_cut_off_anywhere_is_one_sentence(archive, published, parts, tmp_path, capsys):
    torch.save(Part(parts["encoder"]), tmp_path / "whole.pkl", _use_new_zipfile_serialization=archive)
    data = (tmp_path / "whole.pkl").read_bytes()
    for share in (0.0005, 0.01, 0.5, 0.99, 0.99999):
        (tmp_path / "cut.pkl").write_bytes(data[: int(len(data) * share)])
        assert convert.main([str(tmp_path / "cut.pkl"), "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and "could not be read" in said.err and not said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("archive", FORMATS.values(), ids=FORMATS)
def test_damage_anywhere_is_a_sentence_or_other_numbers(archive, parts, tmp_path):
    torch.save({"state_dict": parts["decoder"]}, tmp_path / "whole.pt", _use_new_zipfile_serialization=archive)
    data, generator = (tmp_path / "whole.pt").read_bytes(), torch.Generator().manual_seed(0)
    refused = 0
    for place in torch.randint(min(len(data), 6000), (150,), generator=generator).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            foreign.read(tmp_path / "damaged.pt")
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
    assert refused > 10


def test_half_precision_comes_as_the_same_numbers(parts, tmp_path):
    halves = {part: {n: t.half() for n, t in weights.items()} for part, weights in parts.items()}
    folder = write_parts(tmp_path / "half", halves, "names")
    assert convert.main([str(folder), "--out", str(tmp_path / "ours"), "--size", "16"]) == 0
    weight = tokenizers.load(tmp_path / "ours").encoder.input.weight
    assert torch.equal(weight, halves["encoder"]["blocks.input.w"].float())


# bad input is one sentence


def changed(weights: dict, **changes) -> dict:
    return {**weights, **{name.replace("__", "."): value for name, value in changes.items()}}


SENTENCES = {
    "nothing there": "there is no such file or directory; nothing is downloaded here",
    "a name on a hub": "there is no such file or directory; nothing is downloaded here",
    "an empty folder": "holds no file of weights",
    "two files": "holds 2 files of weights (a.ckpt, b.ckpt)",
    "an empty file": "is empty (0 bytes)",
    "a page": "it is text (did a download save a page",
    "bytes": "it is neither of safetensors nor of torch.save",
    "packed": "it is packed: unpack it",
    "zip of something": "it is an archive, but not of torch.save",
    "compressed": "its numbers are compressed",
    "big-endian": "bytes in the other order",
    "broken safetensors": "could not be read",
    "only the decoder": "is the decoder of OpenAI's dVAE: give the encoder",
    "only the encoder": "is the encoder of OpenAI's dVAE: give its decoder with --decoder",
    "a wrong decoder": "what is given as the decoder is the encoder",
    "another decoder": "decoder.blocks.input.w is (8, 64, 1, 1), (8, 32, 1, 1) expected",
    "a missing weight": "encoder.blocks.group_2.block_1.res_path.conv_2.b is missing, (8,) expected",
    "whole numbers": "encoder.blocks.input.w holds int64; 32 or 16 bit floats can be read",
    "no codebook": "it has no codebook",
    "other channels": "its pictures have 1 channels",
    "other names": "its encoder has no down.0.block.0",
    "one weight too many": "encoder.mid.attn_2.q.weight is (1,), not expected",
    "renumbered": "it renumbers its codes",
    "another model": "is of no model known here: 1 tensors, the first 'wte.weight'",
    "a size between": "size 33 is off: a multiple of 8 up to 1024 is needed",
    "ours already": "has a config.json already",
    "only the transformer": "is the transformer of minDALL-E: give the directory",
}


@pytest.mark.parametrize("case", SENTENCES)
def test_bad_input_is_one_sentence_and_nothing_is_written(case, parts, published, tmp_path, capsys):
    source, options = tmp_path / "source", []
    encoder, vq = parts["encoder"], vqgan_weights(**VQ)
    if case == "a name on a hub":
        source = Path("CompVis/vqgan")
    elif case in ("an empty folder", "two files", "ours already"):
        source.mkdir()
        for name in {"two files": ("a.ckpt", "b.ckpt"), "ours already": ("config.json",)}.get(case, ()):
            (source / name).write_text("{}")
    elif case == "zip of something":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("model.ckpt", b"1")
    elif case in ("compressed", "big-endian"):
        torch.save({"a": torch.zeros(100)}, tmp_path / "plain")
        with zipfile.ZipFile(tmp_path / "plain") as old, zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as new:
            for info in old.infolist():
                swapped = case == "big-endian" and info.filename.endswith("byteorder")
                how = zipfile.ZIP_DEFLATED if case == "compressed" else zipfile.ZIP_STORED
                new.writestr(info.filename, b"big" if swapped else old.read(info), how)
    elif case == "broken safetensors":
        source = tmp_path / "a.safetensors"
        source.write_bytes(b"\xff" * 100)
    elif case in ("an empty file", "a page", "bytes", "packed"):
        contents = {
            "a page": "<html>\nNot found · DALL·E</html>".encode(),
            "bytes": b"\x00\x01\xfe" * 99,
            "packed": b"\x1f\x8b\x08\x00",
        }
        source.write_bytes(contents.get(case, b""))
    elif case in ("a wrong decoder", "another decoder"):
        source = published / "encoder.pkl"
        torch.save(openai_weights("decoder", **{**DVAE, "vocabulary": 32}), tmp_path / "decoder.pt")
        torch.save(openai_weights("decoder", **DVAE), tmp_path / "fitting.pt")
        if case == "another decoder":
            torch.save(openai_weights("encoder", **{**DVAE, "vocabulary": 32}), tmp_path / "small.pt")
            source = tmp_path / "small.pt"
        other = source if case == "a wrong decoder" else tmp_path / "fitting.pt"
        options = ["--decoder", str(other)]
    elif case == "a size between":
        source, options = published, ["--size", "33"]
    elif case != "nothing there":
        torch.save(
            {
                "only the decoder": parts["decoder"],
                "only the encoder": encoder,
                "a missing weight": {
                    n: t for n, t in encoder.items() if n != "blocks.group_2.block_1.res_path.conv_2.b"
                },
                "whole numbers": {n: t.long() for n, t in encoder.items()},
                "no codebook": {n: t for n, t in vq.items() if not n.startswith("quantize")},
                "other channels": changed(vq, encoder__conv_in__weight=torch.zeros(32, 1, 3, 3)),
                "other names": {n.replace("down.", "down_blocks."): t for n, t in vq.items()},
                "one weight too many": changed(vq, encoder__mid__attn_2__q__weight=torch.zeros(1)),
                "renumbered": changed(vq, quantize__used=torch.zeros(3)),
                "another model": {"wte.weight": torch.zeros(3, 3)},
                "only the transformer": mindalle_weights(4, 1, 5, 3, 7, 4),
            }[case],
            source,
        )
        if case in ("a missing weight", "whole numbers"):
            options = ["--decoder", str(published / "decoder.pkl")]
    assert convert.main([str(source), "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr()
    assert SENTENCES[case] in said.err and said.err.startswith("dalle.convert: ") and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists() and not said.out


MISSING = {
    "stage1_last.ckpt": "there is no such file",
    "stage2_last.ckpt": "there is no such file",
    "config.yaml": "there is no such file",
    "tokenizer/bpe-16k-vocab.json": "is missing",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_part_of_mindalle_that_is_missing_is_named(name, mindalle_folder, tmp_path, capsys):
    for path in mindalle_folder.rglob("*"):
        if path.is_file() and path != mindalle_folder / name:
            (tmp_path / "in" / path.relative_to(mindalle_folder)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / path.relative_to(mindalle_folder)).symlink_to(path)
    assert convert.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "in" / name) in said and MISSING[name] in said and said.count("\n") == 1


def test_a_size_for_mindalle_and_a_full_directory_are_refused(mindalle_folder, mindalle_run, tmp_path, capsys):
    assert convert.main([str(mindalle_folder), "--out", str(tmp_path / "out"), "--size", "64"]) == 2
    assert "draws pictures of 8 pixels only" in capsys.readouterr().err
    assert convert.main([str(mindalle_folder), "--out", str(mindalle_run)]) == 2
    assert "already holds something" in capsys.readouterr().err


def test_a_directory_of_another_kind_is_no_tokenizer_for_pictures(mindalle_run, tmp_path):
    with pytest.raises(UserError, match="of kind 'mindalle'; tokenizers for pictures are dvae, openai-dvae, vqgan"):
        tokenizers.load(mindalle_run)
    with pytest.raises(UserError, match="has no config.json"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize(
    "change", [{"vocabulary": 10**9}, {"levels": [1] * 99}, {"levels": 3}, {"nonsense": 1}, {"size": 10**6}]
)
def test_a_config_that_describes_no_vqgan_is_a_sentence(change, tmp_path):
    tokenizers.save(tmp_path, vqgan.from_published(vqgan_weights(**VQ), 16))
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not describe a model"):
        tokenizers.load(tmp_path)


def test_a_mindalle_is_not_trained_on_and_that_is_a_sentence(mindalle_run, tmp_path, capsys):
    from PIL import Image

    from dalle import train

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a square")
    arguments = ["finetune", "--model", str(mindalle_run), "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert train.main(arguments) == 2
    assert "a MinDALLE draws here, and is not trained" in capsys.readouterr().err
