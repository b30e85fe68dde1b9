"""Claims about clip.convert: published models come in and ours go out, and both sides compute the same."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clip import model, openclip
from clip.convert import main as convert
from clip.encoder import Ours, find
from clip.openclip import Foreign
from clip.presets import CLIPConfig, vit
from multimodal.tokenizer import Tokenizer

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    "a red square",
    "Un_carré  BLEU",
    "écoute — le cœur de naïveté",
    "one two three " * 20,
    "a <|endoftext|> inside",
]
TOWERS = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """A directory as open_clip users have it."""
    folder = tmp_path_factory.mktemp("published") / "tiny"
    torch.manual_seed(0)
    network = open_clip.CLIP(**TOWERS)
    folder.mkdir()
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": TOWERS, "preprocess_cfg": {"mean": [0.4] * 3}})
    )
    return folder


def blocks(**changes) -> CLIPConfig:
    """Tiny towers of the published blocks, for a vocabulary of our own."""
    config = vit(32, 8, 64, 1, 16, 64, 2)
    return replace(config, **{"vocabulary": 300, "context": 20, "end": 0, "resize": "fit"} | changes)


def ours(folder: Path, config: CLIPConfig) -> Path:
    tokenizer = Tokenizer.bpe([" ".join(TEXTS)], 300)
    torch.manual_seed(0)
    network = model.CLIP(replace(config, vocabulary=tokenizer.vocab_size))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save(folder, network, tokenizer, card="# ours\n")
    return folder


def pictures(count: int = 2) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]


def vectors(encoder) -> tuple[torch.Tensor, torch.Tensor]:
    prepared = torch.stack([encoder.prepare(picture) for picture in pictures()])
    return encoder.embed_images(prepared), encoder.embed_texts(TEXTS)


def test_a_published_model_becomes_a_run_directory_with_the_same_vectors(foreign, tmp_path, capsys):
    out = tmp_path / "run"
    assert convert([f"local-dir:{foreign}", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "out": str(out),
        "parameters": sum(t.numel() for t in load_file(out / "model.safetensors").values()),
    }
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    before, after = find(foreign), find(out)
    for mine, wanted in zip(vectors(after), vectors(before), strict=True):
        assert torch.equal(mine, wanted)
    assert after.too_long(TEXTS) == before.too_long(TEXTS) and after.network.config.mean == (0.4, 0.4, 0.4)
    assert "nothing was trained or measured" in " ".join((out / "README.md").read_text().split())


def test_a_run_directory_of_published_blocks_goes_back_unchanged(foreign, tmp_path):
    assert convert([str(foreign), "--out", str(tmp_path / "run")]) == 0
    assert convert([str(tmp_path / "run"), "--to", "open_clip", "--out", str(tmp_path / "back")]) == 0
    before, after = (load_file(place / "open_clip_model.safetensors") for place in (foreign, tmp_path / "back"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "back" / "tokenizer.json").exists()  # open_clip brings it along
    assert torch.equal(
        open_clip.get_tokenizer(f"local-dir:{tmp_path / 'back'}")(TEXTS),
        open_clip.get_tokenizer(f"local-dir:{foreign}")(TEXTS),
    )


@pytest.mark.parametrize("changes", [{}, {"scores": "sigmoid"}])
def test_our_model_is_opened_by_open_clip_with_equal_vectors_and_tokens(tmp_path, changes):
    pytest.importorskip("transformers", reason="open_clip opens foreign tokenizers by transformers")
    run, out = ours(tmp_path / "run", blocks(**changes)), tmp_path / "out"
    assert convert([str(run), "--to", "open_clip", "--out", str(out)]) == 0
    encoder = find(run)
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{out}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
    tokens = tokenizer(TEXTS)
    rows = model.tokenize(encoder.tokenizer, TEXTS, encoder.context)[0]
    assert rows.shape == (len(TEXTS), 20) and encoder.too_long(TEXTS) >= 1
    assert torch.equal(tokens, rows)
    with torch.inference_mode():
        seen, said, scale, *bias = network.eval()(torch.stack([preprocess(p) for p in pictures()]), tokens)
    mine = vectors(encoder)
    assert torch.allclose(mine[0], seen, atol=1e-5) and torch.allclose(mine[1], said, atol=1e-5)
    assert encoder.scale == pytest.approx(scale.item()) and encoder.bias == (bias[0].item() if bias else 0)
    assert (seen[0] - seen[1]).abs().max() > 1e-2 and (said[0] - said[1]).abs().max() > 1e-2


def test_what_went_out_to_open_clip_comes_in_again_with_its_tokenizer(tmp_path):
    run = ours(tmp_path / "run", blocks())
    assert convert([str(run), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 0
    again = find(tmp_path / "out")
    assert isinstance(again, Ours)
    for mine, wanted in zip(vectors(again), vectors(find(run)), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-6)
    assert convert([str(tmp_path / "out"), "--out", str(tmp_path / "back")]) == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "back"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run" / "tokenizer.json").read_text() == (tmp_path / "back" / "tokenizer.json").read_text()


def test_a_tokenizer_that_reads_otherwise_than_ours_is_not_taken_for_ours(tmp_path):
    pytest.importorskip("transformers", reason="open_clip opens foreign tokenizers by transformers")
    run = ours(tmp_path / "run", blocks())
    assert convert([str(run), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 0
    path = tmp_path / "out" / "tokenizer.json"
    found = json.loads(path.read_text())
    found["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(found))
    encoder = find(tmp_path / "out")
    assert isinstance(encoder, Foreign)
    assert (encoder.embed_texts(["a red square"]) - find(run).embed_texts(["a red square"])).abs().max() > 1e-3


def test_what_open_clip_cannot_hold_is_told_and_leaves_nothing_behind(models, tmp_path, capsys):
    assert convert([str(models / "clip"), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "open_clip cannot hold this model" in told and "rotary" in told and "--to onnx can" in told
    mean = ours(tmp_path / "mean", blocks(pooling="mean"))
    assert convert([str(mean), "--to", "open_clip", "--out", str(tmp_path / "out")]) == 2
    assert "pooling 'mean'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_our_towers_cannot_hold_is_told(tmp_path, capsys):
    config = TOWERS | {"vision_cfg": TOWERS["vision_cfg"] | {"ls_init_value": 0.1}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(open_clip.CLIP(**config).state_dict(), tmp_path / "open_clip_model.safetensors")
    assert convert([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "its image tower has ls_init_value 0.1" in told and "give it as --model" in told


def test_a_checkpoint_of_training_is_read_by_the_name_of_its_architecture(foreign, tmp_path, capsys):
    weights = tmp_path / "epoch_2.pt"
    tensors = load_file(foreign / "open_clip_model.safetensors")
    torch.save({"epoch": 2, "optimizer": {}, "state_dict": {f"module.{k}": t for k, t in tensors.items()}}, weights)
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "very-tiny.json").write_text(json.dumps(TOWERS))
    open_clip.add_model_config(tmp_path / "known")
    asked = [str(weights), "--out", str(tmp_path / "run"), "--architecture"]
    assert convert([*asked, "very-tinny"]) == 2
    assert "knows no model 'very-tinny'; near are very-tiny" in capsys.readouterr().err
    assert convert([*asked, "very-tiny"]) == 0
    plain = json.loads((foreign / "open_clip_config.json").read_text())
    (foreign / "plain.json").write_text(json.dumps(plain["model_cfg"]))
    assert torch.equal(find(tmp_path / "run").embed_texts(TEXTS), find(foreign).embed_texts(TEXTS))
    assert convert([str(foreign), "--out", str(tmp_path / "other"), "--architecture", "very-tiny"]) == 2
    assert "is for a file of weights" in capsys.readouterr().err


def test_nothing_is_overwritten(foreign, tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    assert convert([str(foreign), "--out", str(tmp_path)]) == 2
    assert "already holds something" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_ours_to_ours_is_told(models, tmp_path, capsys):
    assert convert([str(models / "clip"), "--out", str(tmp_path / "out")]) == 2
    assert "in our layout already" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["rotary", "published"])
def test_onnx_computes_what_torch_computes_for_any_batch(models, foreign, tmp_path, kind):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="--to onnx needs the extra")
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    source, out = {"rotary": models / "clip", "published": foreign}[kind], tmp_path / "out"
    # a process of its own: the shapes that the tests check are symbols while the exporter looks
    done = subprocess.run(
        [sys.executable, "-m", "clip.convert", str(source), "--to", "onnx", "--out", str(out), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["difference"] < 1e-5
    encoder, told = find(source), json.loads((out / "clip.json").read_text())
    assert (told["size"], told["context"], told["embedding"]) == (encoder.size, encoder.context, encoder.width)
    assert told["scale"] == pytest.approx(encoder.scale)
    sessions = {name: onnxruntime.InferenceSession(out / f"{name}.onnx") for name in ("image", "text")}
    tokenizer = Tokenizer.load(out / "tokenizer.json")
    for count in (1, 2, 5):
        seen = torch.stack([encoder.prepare(picture) for picture in pictures(count)])
        found = sessions["image"].run(None, {"images": (seen / 255).numpy()})[0]
        assert np.abs(found - encoder.embed_images(seen).numpy()).max() < 1e-5
        texts = TEXTS[:count] if count < 5 else TEXTS
        tokens = model.tokenize(tokenizer, texts, told["context"])[0]
        tokens = torch.nn.functional.pad(tokens, (0, told["context"] - tokens.shape[1]), value=told["end"])
        found = sessions["text"].run(None, {"tokens": tokens.numpy()})[0]
        assert np.abs(found - encoder.embed_texts(texts).numpy()).max() < 1e-5


def test_an_export_that_differs_from_torch_is_not_kept(models, tmp_path, monkeypatch, capsys):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="--to onnx needs the extra")
    from clip import onnx

    monkeypatch.setattr(onnx, "write", lambda *arguments: None)
    monkeypatch.setattr(onnx, "compute", lambda path, given, values: np.ones((len(values), 16), np.float32))
    assert convert([str(models / "clip"), "--to", "onnx", "--out", str(tmp_path / "out")]) == 1
    assert "differ from torch's by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_onnx_is_a_sentence(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert convert([str(models / "clip"), "--to", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'multimodal-text-image[onnx]'" in capsys.readouterr().err


def test_the_published_vocabulary_survives_being_saved(foreign, tmp_path):
    openclip.clip_tokenizer().save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert torch.equal(model.tokenize(again, TEXTS, 77)[0], model.tokenize(openclip.clip_tokenizer(), TEXTS, 77)[0])
