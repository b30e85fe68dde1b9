"""A CLIP as ONNX: a network in, image.onnx (b 3 h w -> b d) and text.onnx (t n -> t d) out, for any runtime.

How many pictures and texts come together is free; n is the context, which the end token fills up. Before the files are kept,
ONNX Runtime (or, where that is missing, the slow evaluator of the onnx package) computes both towers, and its vectors are
compared with torch's.
"""

import io
import json
import shutil
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clip.model import CLIP, START, tokenize
from multimodal import checkpoint
from multimodal.cli import Failed, UserError
from multimodal.tokenizer import Tokenizer

TOLERANCE = 1e-4  # between unit vectors of the two in fp32
ONE_FILE = 1_500_000_000  # bytes of weights that still fit into one file of this format, which holds 2 GB
TEXTS = ("a photo of a cat", "two", "a very small drawing of a red house beside a green tree")


def export(network: CLIP, tokenizer: Tokenizer, out: Path, about: str) -> float:
    """Writes the directory; returns by how much the vectors differ from torch's at most."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to onnx needs {error.name}: pip install 'multimodal-text-image[onnx]'.") from None
    config = network.config
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, config.size, config.size, generator=generator)
    tokens = tokenize(tokenizer, TEXTS, config.context)[0]
    tokens = F.pad(tokens, (0, config.context - tokens.shape[1]), value=config.end)
    out = out.resolve()
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        differences = []
        for name, tower, given, example in (
            ("image", network.image, "images", pictures),
            ("text", network.text, "tokens", tokens),
        ):
            path = aside / f"{name}.onnx"
            write(tower, given, example, path)
            for some in (example, example[:1]):
                with torch.inference_mode():
                    wanted = tower(some).numpy()
                differences.append(np.abs(compute(path, given, some.numpy()) - wanted).max())
        worst = float(np.max(differences))
        if not worst <= TOLERANCE:  # nor NaN
            raise Failed(
                f"the exported towers differ from torch's by {worst:.2g}, more than {TOLERANCE}: nothing was kept."
            )
        tokenizer.save(aside / "tokenizer.json")
        about_it = {
            "scale": network.scale().item(), "bias": None if network.bias is None else network.bias.item(),
            "scores": config.scores, "size": config.size, "resize": config.resize, "context": config.context,
            "embedding": config.embedding, "start": tokenizer.pipeline.token_to_id(START), "end": config.end,
        }  # fmt: skip
        checkpoint.write_text(aside / "clip.json", json.dumps(about_it, indent=2) + "\n")
        checkpoint.write_text(aside / "README.md", about)
        if out.exists():
            out.rmdir()  # it is empty
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return worst


def write(tower: nn.Module, given: str, example: torch.Tensor, path: Path) -> None:
    """One tower; the first side of what it is given is free."""
    size = sum(parameter.numel() * 4 for parameter in tower.parameters())
    # the exporter talks on stdout, which is for results, and warns of what its own packages will change
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower, (example,), path, input_names=[given], output_names=["vectors"], dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("count")},), external_data=size > ONE_FILE, verbose=False,
        )  # fmt: skip


def compute(path: Path, given: str, values: np.ndarray) -> np.ndarray:
    """What a file computes."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(path).run(None, {given: values})[0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {given: values})[0]
