"""What several tests share: tiny models with random weights in directories as training leaves them, made in a second."""

from pathlib import Path

import pytest

TEXT = "To be, or not to be, that is the question. In the beginning God created the heaven and the earth. "


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with a directory gpt, dalle and clip each. They know nothing; the same ones in every session."""
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
        gpt.save(writer, tokenizer, folder / "gpt", card="# A tiny GPT\n\nIt knows nothing.\n")
        dvae = DVAE(DVAEConfig(size=16, patch=4, grid=4, width=8, depth=1, levels=(4, 4)))
        drawer = dalle.DALLE(DALLEConfig(modern(32, 2, 2, rotary_axes=3), v, 8, grid=4, codes=16))
        torch.nn.init.normal_(drawer.code_head.weight)  # it starts at zero: every drawing would be noise of one kind
        dalle.save(folder / "dalle", dalle.Artist(drawer, dvae, tokenizer), card="# A tiny DALL·E\n")
        sizes = {"size": 16, "patch": 8, "vocabulary": v, "embedding": 16}
        towers = {"image": modern(32, 1, 2, causal=False, rotary_axes=2), "text": modern(32, 1, 2)}
        clip.save(folder / "clip", clip.CLIP(CLIPConfig(**towers, **sizes)), tokenizer, card="# A tiny CLIP\n")
    return folder
