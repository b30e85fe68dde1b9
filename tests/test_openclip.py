"""Claims about published models: our towers compute what open_clip's do, pictures and texts are read alike, nothing of a
stranger's is executed, and nothing is asked of the network that this machine has."""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clip import classify, model, openclip, published, zeroshot
from clip.encoder import Ours, find
from clip.openclip import Foreign
from clip.presets import PUBLISHED, CLIPConfig, vit
from multimodal.cli import Failed, UserError

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    "a photo of a cat",
    "It's 42 o'clock in   Zürich &amp; “Genève” — don't_panic",
    "DÉJÀ VU 🙂 猫 ½ ﬁne naïve <b>bold</b> #1",
    "zq 1 " * 60,
    "one two three four five six seven eight nine ten " * 12,
]


def towers(quick: bool = False, **more) -> dict:
    """Settings of a tiny model of CLIP's own blocks."""
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text} | ({"quick_gelu": True} if quick else {}) | more


def saved(folder: Path, config: dict, preprocess: dict | None = None, seed: int = 0) -> Path:
    """A directory as open_clip users have it, with random weights of open_clip's own module; every weight counts."""
    torch.manual_seed(seed)
    plain = {name: value for name, value in config.items() if name != "custom_text"}
    kinds = (open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP, open_clip.CLIP)
    network = kinds[not config.get("custom_text")](**plain).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


def picture(width: int = 57, height: int = 41, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def theirs(folder: Path, pictures, texts):
    """open_clip's own way: (vectors of pictures, vectors of texts, scale, bias or None)."""
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        return network.eval()(torch.stack([preprocess(p) for p in pictures]), tokenizer(texts))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("published") / "tiny", towers())


@pytest.mark.parametrize(
    "name, count",
    [("ViT-B-32", 151_277_313), ("ViT-B-16", 149_620_737), ("ViT-L-14", 427_616_513), ("ViT-L-14-336", 427_944_193)],
)
def test_the_published_shapes_have_the_published_numbers_of_parameters(name, count):
    with torch.device("meta"):
        network = model.CLIP(PUBLISHED[name])
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    known = open_clip.get_model_config(f"{name}-quickgelu")
    assert published.from_config(known, {}) == PUBLISHED[name]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("more", [{}, {"init_logit_bias": -10.0}, {"custom_text": True, "nonscalar_logit_scale": True}])
def test_our_towers_compute_what_open_clips_compute(tmp_path, quick, more):
    folder = saved(tmp_path / "model", towers(quick, **more))
    pictures = [picture(), picture(40, 200, 1), picture(32, 32, 2)]
    seen, said, scale, *bias = theirs(folder, pictures, TEXTS)
    encoder = find(f"local-dir:{folder}")
    assert isinstance(encoder, Ours) and (encoder.context, encoder.width, encoder.size) == (77, 24, 32)
    mine = encoder.embed_images(torch.stack([encoder.prepare(p) for p in pictures]))
    assert torch.allclose(mine, seen, atol=1e-5) and torch.allclose(encoder.embed_texts(TEXTS), said, atol=1e-5)
    assert (seen[0] - seen[1]).abs().max() > 1e-2 and (said[0] - said[1]).abs().max() > 1e-2
    assert encoder.scale == pytest.approx(scale.item(), rel=1e-6)
    logits = scale * seen @ said.T + (bias[0] if bias else 0)
    wanted = logits.sigmoid() if bias else logits.softmax(dim=-1)
    assert encoder.scores == ("sigmoid" if bias else "softmax")
    assert torch.allclose(zeroshot.probabilities(encoder, mine, encoder.embed_texts(TEXTS)), wanted, atol=1e-5)


def test_the_two_kinds_of_gelu_are_two_models(tmp_path):
    plain, quick = saved(tmp_path / "plain", towers()), saved(tmp_path / "quick", towers(quick=True))
    a, b = find(str(plain)), find(str(quick))
    pictures = torch.stack([a.prepare(picture())])
    assert (a.embed_images(pictures) - b.embed_images(pictures)).abs().max() > 1e-4
    assert a.digest != b.digest


def test_texts_become_the_tokens_of_open_clip():
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    texts = [
        *TEXTS,
        "",
        "  ",
        "\t a \n b ",
        "<|endoftext|> ends nothing",
        "ǅ ΟΔΟΣ İstanbul",
        "a" * 5 + "'s're've" + "!?...;",
    ]
    rows, cut = model.tokenize(openclip.clip_tokenizer(), texts, 77)
    wanted = tokenizer(texts)
    assert cut == 2
    for row, other in zip(rows, wanted, strict=True):
        length = other.argmax() + 1
        assert row[:length].tolist() == other[:length].tolist() and (row[length:] == 49407).all()
    assert [len(row) for row in model.tokenize(openclip.clip_tokenizer(), ["a photo of a cat"], 77)[0]] == [7]


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_picture_is_prepared_as_open_clip_prepares_it_pixel_for_pixel(mode, interpolation):
    how = {"resize_mode": mode, "interpolation": interpolation, "mean": (0, 0, 0), "std": (1, 1, 1), "fill_color": 9}
    for size in (32, (24, 40), (32, 32)):
        transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=size, **how), False)
        for width, height in ((57, 41), (41, 57), (32, 32), (200, 31), (7, 90), (33, 32), (1, 1), (640, 427)):
            wanted = (transform(picture(width, height)) * 255).round().byte()
            sides = size if isinstance(size, tuple) else (size, size)
            found = published.fitted(picture(width, height), sides, mode, interpolation == "bilinear", 9)
            assert torch.equal(found, wanted), (size, width, height)


def test_a_line_of_a_pixels_height_takes_no_more_memory_than_any_picture():
    assert published.fitted(Image.new("RGB", (1000, 1)), (224, 224)).shape == (3, 224, 224)
    for size in ((100_000, 1), (1, 100_000)):
        with pytest.raises(ValueError, match="crop it first"):
            published.fitted(Image.new("RGB", size), (224, 224))
        for mode in ("squash", "longest"):
            assert published.fitted(Image.new("RGB", size), (224, 224), mode).shape == (3, 224, 224)


@pytest.mark.parametrize(
    "config, preprocess",
    [
        (towers() | {"vision_cfg": towers()["vision_cfg"] | {"ls_init_value": 0.1}}, {}),
        (
            towers() | {"vision_cfg": towers()["vision_cfg"] | {"no_ln_pre": True, "pool_type": "avg"}},
            {"resize_mode": "squash"},
        ),
        (
            towers(init_logit_bias=-3.0),
            {"resize_mode": "longest", "mean": [0.5] * 3, "std": [0.5] * 3, "fill_color": 7},
        ),
        (towers(), {"interpolation": "bilinear"}),
    ],
)
def test_what_our_towers_cannot_hold_stays_open_clips_own_module(tmp_path, config, preprocess):
    folder = saved(tmp_path / "model", config, preprocess)
    encoder = find(folder)
    assert isinstance(encoder, Foreign) and (encoder.context, encoder.width, encoder.size) == (77, 24, 32)
    pictures = [picture(), picture(40, 90, 1)]
    seen, said, scale, *bias = theirs(folder, pictures, TEXTS)
    mine = encoder.embed_images(torch.stack([encoder.prepare(p) for p in pictures]))
    assert torch.allclose(mine, seen, atol=1e-5) and torch.allclose(encoder.embed_texts(TEXTS), said, atol=1e-5)
    assert encoder.scale == pytest.approx(scale.item(), rel=1e-6)
    assert encoder.bias == (bias[0].item() if bias else 0) and encoder.scores == ("sigmoid" if bias else "softmax")
    assert encoder.too_long(TEXTS) == 2 == find(saved(tmp_path / "plain", towers())).too_long(TEXTS)
    half = find(folder, precision="bf16")
    assert (half.embed_texts(TEXTS) - said).abs().max() < 0.05 and half.digest != encoder.digest
    with pytest.raises(UserError, match=r"int8: model stays open_clip's own module, since its"):
        find(folder, precision="int8")


def test_less_precise_numbers_give_nearly_the_same_vectors_and_exactly_the_same_scale(tiny):
    exact = find(tiny)
    pictures = torch.stack([exact.prepare(picture(seed=seed)) for seed in range(4)])
    for precision in ("bf16", "int8"):
        encoder = find(tiny, precision=precision)
        for mine, wanted in (
            (encoder.embed_images(pictures), exact.embed_images(pictures)),
            (encoder.embed_texts(TEXTS), exact.embed_texts(TEXTS)),
        ):
            assert mine.dtype == torch.float32 and (mine * wanted).sum(-1).min() > 0.999
        # it is computed otherwise, not only called so
        assert (encoder.embed_images(pictures) - exact.embed_images(pictures)).abs().max() > 1e-6
        assert encoder.scale == exact.scale and encoder.digest != exact.digest
    with pytest.raises(UserError, match="fp16 is unknown"):
        find(tiny, precision="fp16")


def test_a_picture_alone_has_the_vector_that_it_has_among_others(tiny):
    encoder = find(tiny)
    pictures = torch.stack([encoder.prepare(picture(seed=seed)) for seed in range(3)])
    together = encoder.embed_images(pictures)
    for i in range(3):
        assert torch.allclose(encoder.embed_images(pictures[i : i + 1])[0], together[i], atol=1e-6)
    said = encoder.embed_texts(TEXTS)
    for i, text in enumerate(TEXTS):  # alone it is shorter than among longer ones
        assert torch.allclose(encoder.embed_texts([text])[0], said[i], atol=1e-6)


def test_pictures_shared_out_among_processors_have_the_same_vectors(tiny, monkeypatch):
    from clip import encoder as module

    encoder = find(tiny)
    pictures = torch.stack([encoder.prepare(picture(seed=seed)) for seed in range(7)])
    alone = encoder.embed_images(pictures)
    monkeypatch.setattr(module, "NUMBERS", {"cpu": 1})  # a part for each picture
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = encoder.embed_images(pictures)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(shared, alone, atol=1e-6) and (alone[0] - alone[6]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["residual", "timm", "coca"])
def test_residual_networks_and_others_are_used_as_they_are(tmp_path, kind):
    config = towers()
    if kind == "residual":
        config["vision_cfg"] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    elif kind == "timm":
        vision = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
        config |= {"custom_text": True, "vision_cfg": vision}
    else:
        config["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 3, "output_tokens": True}
        config["text_cfg"] |= {"context_length": 76, "embed_cls": True, "output_tokens": True}
        more = {"context_length": 76, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1, "attn_pooler_heads": 3}
        config |= {"custom_text": True, "multimodal_cfg": more}
    folder = saved(tmp_path / "model", config)
    encoder = find(folder)
    assert isinstance(encoder, Foreign)
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        seen = network.eval().encode_image(preprocess(picture())[None], normalize=True)
        said = network.encode_text(tokenizer(TEXTS), normalize=True)
    assert torch.allclose(encoder.embed_images(encoder.prepare(picture())[None]), seen, atol=1e-5)
    assert torch.allclose(encoder.embed_texts(TEXTS), said, atol=1e-5)


def test_a_weights_file_with_its_settings_beside_it_is_a_model(tiny, tmp_path):
    texts = TEXTS[:2]
    wanted = find(tiny).embed_texts(texts)
    assert torch.equal(find(str(tiny / "open_clip_model.safetensors")).embed_texts(texts), wanted)
    tensors = load_file(tiny / "open_clip_model.safetensors")
    training = {"epoch": 3, "name": "run", "state_dict": {f"module.{name}": t for name, t in tensors.items()}}
    torch.save(training, tmp_path / "epoch_3.pt")
    with pytest.raises(UserError, match=r"does not say which towers.*--architecture"):
        find(tmp_path / "epoch_3.pt")
    (tmp_path / "epoch_3.json").write_text(json.dumps(towers()))  # as open_clip's own model_configs are
    assert torch.equal(find(tmp_path / "epoch_3.pt").embed_texts(texts), wanted)


def test_the_digest_is_that_of_the_content(tiny, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in tiny.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert find(moved).digest == find(tiny).digest
    assert find(saved(tmp_path / "other", towers(), seed=1)).digest != find(tiny).digest
    assert find(saved(tmp_path / "size", towers(), {"mean": [0.5] * 3})).digest != find(tiny).digest


def test_what_lies_on_this_machine_is_read_without_a_network_and_without_open_clip(tiny):
    code = f"""
import socket, sys
def refuse(*arguments, **options):
    raise SystemExit("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from clip.encoder import find
vectors = find("local-dir:{tiny}").embed_texts(["a cat"])
print(tuple(vectors.shape), [m for m in ("open_clip", "huggingface_hub", "torchvision", "transformers") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "(1, 24) []", done.stdout + done.stderr


def test_open_clips_own_module_is_opened_without_a_network(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda *a: asked.append(a))
    config = towers() | {"vision_cfg": towers()["vision_cfg"] | {"ls_init_value": 0.1}}
    find(saved(tmp_path / "model", config)).embed_texts(["a cat"])
    assert not asked


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """A hub that refuses, a cache that is empty, and a client that must not be called."""
    import huggingface_hub
    from huggingface_hub import constants

    def called(*arguments, **options):
        raise AssertionError("the hub's client was asked, and would try again and again")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, called)
    return monkeypatch


@pytest.mark.parametrize(
    "asked", ["open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:ViT-B-32/openai", "hf-hub:laion/some"]
)
def test_a_model_that_is_not_here_without_a_network_is_a_sentence_with_the_way_out(no_network, asked):
    with pytest.raises(
        Failed, match=r"cannot be reached.*hf download .*--local-dir DIR.*--model local-dir:DIR"
    ) as caught:
        find(asked)
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_that_this_machine_keeps_needs_no_network(no_network, tiny):
    import huggingface_hub

    kept = {
        "open_clip_config.json": tiny / "open_clip_config.json",
        "open_clip_model.safetensors": tiny / "open_clip_model.safetensors",
    }
    no_network.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repo, file: str(kept[file]) if file in kept else None
    )
    assert torch.equal(find("hf-hub:someone/tiny").embed_texts(["a cat"]), find(tiny).embed_texts(["a cat"]))
    found = openclip.locate("open_clip:ViT-B-32/openai")
    assert found.config["quick_gelu"] is True  # its weights were trained so, though the name says otherwise
    assert found.weights == tiny / "open_clip_model.safetensors"
    assert published.from_config(found.config, found.preprocess) == PUBLISHED["ViT-B-32"]
    other = openclip.locate("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert published.from_config(other.config, other.preprocess) == vit(224, 32, 768, 12, 512, 512, activation="gelu")


@pytest.mark.parametrize(
    "asked, sentence",
    [
        ("open_clip:ViT-B-32", "give a name and a tag"),
        ("open_clip:ViT-B-33/openai", "no model 'ViT-B-33'; near are .*ViT-B-32"),
        ("open_clip:ViT-B-32/nope", "no 'nope' of ViT-B-32; its tags are openai, .*laion2b_s34b_b79k"),
        ("hf-hub:alone", "OWNER/NAME"),
        ("local-dir:nowhere", "nowhere is no directory"),
        ("nowhere.safetensors", "there is no such file"),
        ("nowhere", "published models are open_clip:NAME/TAG, hf-hub:OWNER/NAME and local-dir:PATH"),
    ],
)
def test_what_names_no_model_is_a_sentence(asked, sentence):
    with pytest.raises(UserError, match=sentence):
        find(asked)


def test_a_directory_of_transformers_is_told_from_one_of_open_clip(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 512}))
    with pytest.raises(UserError, match="is a model of transformers.*open_clip:ViT-B-32/openai"):
        find(tmp_path)


def test_weights_are_never_random(tiny, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(UserError, match="bare has no open_clip_config.json"):
        find(f"local-dir:{bare}")
    (bare / "open_clip_config.json").write_text((tiny / "open_clip_config.json").read_text())
    with pytest.raises(UserError, match=r"bare has no weights: open_clip_model.safetensors belongs beside"):
        find(bare)
    tensors = load_file(tiny / "open_clip_model.safetensors")
    for change, sentence in (
        (lambda t: t.pop("visual.proj"), "visual.proj is missing"),
        (lambda t: t.update(more=torch.zeros(2)), "more belongs to no part"),
        (
            lambda t: t.update({"visual.proj": torch.zeros(3, 3)}),
            r"image.projection.weight is \(3, 3\) in the file, \(24, 32\)",
        ),
        (lambda t: t.update({"transformer.resblocks.0.attn.in_proj_bias": torch.zeros(7)}), "three maps in one"),
    ):
        changed = dict(tensors)
        change(changed)
        save_file(changed, bare / "open_clip_model.safetensors")
        with pytest.raises(UserError, match=sentence):
            find(bare)
    whole = (tiny / "open_clip_model.safetensors").read_bytes()
    (bare / "open_clip_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off"):
        find(bare)
    (bare / "open_clip_model.safetensors").unlink()
    for name in ("first.safetensors", "second.safetensors"):
        (bare / name).write_bytes(whole)
    with pytest.raises(UserError, match=r"several weights \(first.safetensors, second.safetensors"):
        find(bare)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_nothing_in_a_file_of_weights_is_executed(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open_clip_config.json").write_text((tiny / "open_clip_config.json").read_text())
    weights = tmp_path / "open_clip_pytorch_model.bin"
    for content in ({"state_dict": Evil()}, Evil(), {"visual.proj": "text"}, torch.zeros(3)):
        torch.save(content, weights)
        with pytest.raises(UserError, match="more than tensors|no tensors by name"):
            find(tmp_path)
    weights.write_bytes(b"no weights at all")
    with pytest.raises(UserError, match="nothing of it was executed"):
        find(tmp_path)
    torch.save({"visual.proj": torch.zeros(1).expand(10**6)}, weights)
    with pytest.raises(UserError, match="more numbers than a file of its size"):
        find(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "tower, change, sentence",
    [
        (
            "text_cfg",
            {"tokenizer_kwargs": {"trust_remote_code": True}, "hf_tokenizer_name": "x"},
            "asks for trust_remote_code",
        ),
        ("vision_cfg", {"layers": 10**9}, "layers of its vision_cfg is 1000000000"),
        ("vision_cfg", {"width": 10**5, "ls_init_value": 1.0}, "which .* cannot hold"),
        ("vision_cfg", {"timm_model_name": "hf-hub:someone/else"}, "which is no name"),
        ("vision_cfg", {"ls_init_value": 1.0, "unheard_of": 3}, "could not be built by open_clip: TypeError"),
        ("text_cfg", {"ls_init_value": 0.1}, "could not be built by open_clip: RuntimeError: .*Missing key"),
    ],
)
def test_settings_of_a_stranger_are_bounded(tiny, tmp_path, tower, change, sentence):
    config = towers()
    config[tower] = config[tower] | change
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (tmp_path / "open_clip_model.safetensors").write_bytes((tiny / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(UserError, match=sentence):
        find(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"model_cfg": 3}', "no JSON"])
def test_settings_that_are_none_are_a_sentence(tmp_path, content):
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(UserError, match="open_clip_config.json"):
        find(tmp_path)


def test_a_scale_beyond_ours_keeps_the_model_with_open_clip(tmp_path):
    folder = saved(tmp_path / "model", towers())
    tensors = load_file(folder / "open_clip_model.safetensors")
    save_file(tensors | {"logit_scale": torch.tensor(math.log(150.0))}, folder / "open_clip_model.safetensors")
    encoder = find(folder)
    assert isinstance(encoder, Foreign) and encoder.scale == pytest.approx(150.0)


def test_a_tower_with_learned_positions_knows_where_a_patch_is():
    config = CLIPConfig.from_dict(vit(32, 8, 64, 1, 16, 64, 1).to_dict())
    torch.manual_seed(0)
    network = model.CLIP(config).eval()
    image = torch.ones(1, 3, 32, 32)
    image[..., :8, :8] = 0
    assert (network.image(image) - network.image(image.roll((8, 16), (2, 3)))).abs().max() > 1e-5
    tokens = torch.tensor([[config.end - 1, 5, 6, config.end]])
    assert (network.text(tokens) - network.text(tokens[:, [0, 2, 1, 3]])).abs().max() > 1e-5


def test_a_sigmoid_model_has_a_bias_that_learns_and_a_softmax_model_has_none():
    network = model.CLIP(CLIPConfig.from_dict(vit(32, 8, 64, 1, 16, 64, 1).to_dict() | {"scores": "sigmoid"}))
    assert network.bias.item() == 0 and network.bias.requires_grad
    network.log_scale.data.fill_(math.log(118.0))  # as SigLIP's
    assert network.scale().item() == pytest.approx(118.0)
    assert model.CLIP(CLIPConfig.from_dict(vit(32, 8, 64, 1, 16, 64, 1).to_dict())).bias is None


def test_a_published_model_classifies_from_the_command_line_as_open_clip_would(tiny, tmp_path, capsys):
    paths = []
    for seed in range(2):
        paths.append(tmp_path / f"{seed}.png")
        picture(50, 40, seed).save(paths[-1])
    labels = ["cat", "dog", "pizza"]
    template = "a photo of a {}."
    options = ["--labels", *labels, "--template", template, "--model", f"local-dir:{tiny}", "--json"]
    assert classify.main([*map(str, paths), *options]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen, said, scale = theirs(tiny, [Image.open(path) for path in paths], [template.format(label) for label in labels])
    wanted = (scale * seen @ said.T).softmax(dim=-1)
    assert len(records) == 2
    for record, row in zip(records, wanted, strict=True):
        found = {p["label"]: p["probability"] for p in record["predictions"]}
        assert [found[label] for label in labels] == pytest.approx(row.tolist(), abs=0.02)
