"""What several tests share: tiny models with random weights in directories as training leaves them, and a page on them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = "To be, or not to be, that is the question. In the beginning God created the heaven and the earth. "


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What is kept for later goes where no other session sees it."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with a directory gpt, dalle and clip each. They know nothing, and are the same in every session."""
    import torch

    from clip import model as clip
    from clip.presets import CLIPConfig
    from dalle import model as dalle
    from dalle.dvae import DVAE
    from dalle.presets import DALLEConfig, DVAEConfig
    from gpt import model as gpt
    from gpt.presets import GPTConfig
    from multimodal.config import modern
    from multimodal.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.bpe([TEXT], 300)
    v = tokenizer.vocab_size
    with torch.random.fork_rng():
        torch.manual_seed(0)
        writer = gpt.GPT(GPTConfig(v, 64, modern(32, 2, 2)))
        for parameter in writer.parameters():  # branches start at zero: without, it would see the last token only
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        gpt.save(writer, tokenizer, folder / "gpt", card="# A tiny GPT\n\nIt knows nothing.\n")
        dvae = DVAE(DVAEConfig(size=16, patch=4, grid=4, width=8, depth=1, levels=(4, 4)))
        drawer = dalle.DALLE(DALLEConfig(modern(32, 2, 2, rotary_axes=3), v, 8, grid=4, codes=16))
        torch.nn.init.normal_(drawer.code_head.weight)  # it starts at zero, with nothing to tell captions apart
        dalle.save(folder / "dalle", dalle.Artist(drawer, dvae, tokenizer), card="# A tiny DALL·E\n")
        sizes = {"size": 16, "patch": 8, "vocabulary": v, "embedding": 16}
        towers = {"image": modern(32, 1, 2, causal=False, rotary_axes=2), "text": modern(32, 1, 2)}
        clip.save(folder / "clip", clip.CLIP(CLIPConfig(**towers, **sizes)), tokenizer, card="# A tiny CLIP\n")
    return folder


@pytest.fixture(scope="session")
def page_url(models):
    """The address of the page, started as a person starts it, with the tiny models."""
    from PIL import Image

    options = [part for name in ("gpt", "dalle", "clip") for part in (f"--{name}", str(models / name))]
    (models / "pictures").mkdir()
    for name, colour in (("red", (220, 20, 20)), ("green", (20, 200, 20)), ("blue", (20, 20, 220))):
        Image.new("RGB", (40, 30), colour).save(models / "pictures" / f"{name}.png")
    options += ["--search", str(models / "pictures")]
    command = [sys.executable, str(ROOT / "apps" / "demo.py"), "--port", "0", *options]
    log = models / "page.log"
    with open(log, "w") as talk:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=talk, text=True, cwd=models,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), log.read_text()
        yield address
        process.terminate()
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
