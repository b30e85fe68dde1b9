"""Self-describing checkpoint directories: config.json, model.safetensors, tokenizer.json, README.md (model card).

Loading needs a path and nothing else, and trusts nothing: weights are safetensors only, shapes are compared with the
config before memory is taken, every file is written aside, flushed and renamed, so that a reader never sees half.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from multimodal.cli import UserError

VERSION = 1
MAX_CONFIG_BYTES = 1_000_000


@contextlib.contextmanager
def replacing(path: Path):
    """A path to write to; on leaving without an error it takes the place of `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):  # what stopped the writing is what is told
            aside.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no UTF-8


def write_weights(directory: Path, model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """model.safetensors of `model`, floating point tensors as `dtype` (None: as they are)."""
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with replacing(directory / "model.safetensors") as aside:
        save_file(tensors, aside, metadata={"format": "pt"})  # tensor by tensor, never all once more in memory
        aside.chmod(0o644)  # safetensors lets nobody else read what it writes


def write(
    directory: Path,
    kind: str,
    config: dict[str, Any],
    model: nn.Module,
    tokenizer=None,
    dtype: torch.dtype | None = None,
    card: str | None = None,
) -> None:
    """A whole checkpoint. `kind` says which package reads it; `config` holds every setting that builds the model."""
    directory = Path(directory)
    if tokenizer is not None:
        with replacing(directory / "tokenizer.json") as aside:
            tokenizer.save(aside)
    write_weights(directory, model, dtype)
    if card is not None:
        write_text(directory / "README.md", card)
    write_text(directory / "config.json", json.dumps({"kind": kind, "version": VERSION, **config}, indent=2) + "\n")


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The object in a JSON file of bounded size. Raises UserError with what is wrong."""
    if path.stat().st_size > limit:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes; at most {limit:,} are read.")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} could not be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}; an object is needed.")
    return found


def read_config(directory: Path, kind: str) -> dict[str, Any]:
    """The settings of a checkpoint of that kind. Raises UserError with what is wrong."""
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a checkpoint: it has no config.json; give a run directory of {kind}.")
    config = read_json(path)
    if config.get("kind") != kind:
        if "model_type" in config and kind == "gpt":
            raise UserError(
                f"{directory} is a model of transformers: python -m gpt.convert {directory} --out RUN first."
            )
        if "model_type" in config and kind == "clip":
            raise UserError(
                f"{directory} is a model of transformers, whose layout is not read; open_clip has most of them, such as --model "
                "open_clip:ViT-B-32/openai."
            )
        raise UserError(f"{directory} holds a checkpoint of kind {config.get('kind')!r}, but {kind!r} is needed here.")
    if config.pop("version", None) != VERSION:
        raise UserError(f"{directory} is of another version than {VERSION}, the one this toolkit reads.")
    config.pop("kind")
    return config


def load(directory: Path, build: Callable[[], nn.Module], device="cpu", dtype=torch.float32) -> nn.Module:
    """The model that `build` makes, with the directory's weights, ready to use (eval mode, `dtype`).

    It is built without memory first; names and shapes must be those of the file. Raises UserError otherwise.
    """
    path = Path(directory) / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{directory} has no model.safetensors: the run may have stopped before its first save.")
    try:
        with torch.device("meta"):
            model = build()
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        with safe_open(path, "pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if wanted != found:
                odd = sorted(set(wanted.items()) ^ set(found.items()))[0]
                raise UserError(
                    f"{path} does not fit its config.json: {odd[0]} is {found.get(odd[0], 'missing')} in the file, "
                    f"{wanted.get(odd[0], 'not expected')} by the config."
                )
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} could not be read: {error}; it may be cut off, fetch or save it again.") from None
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{directory}/config.json does not describe a model: {error}") from None
    tensors = {n: t.to(device, dtype if t.is_floating_point() else None) for n, t in tensors.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval().requires_grad_(False)


def digest(directory: Path) -> str:
    """What tells a checkpoint from all others: of its settings, weights and tokenizer."""
    found = hashlib.sha256()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if (path := Path(directory) / name).is_file():
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def find(name_or_path: str | Path | None, package: str, default: str = "bundled") -> Path:
    """A run directory, or the name of a model that the package brings along; None is the bundled one."""
    shipped = Path(__file__).resolve().parents[1] / package / "pretrained"
    if name_or_path is None and not (shipped / default / "config.json").is_file():
        raise UserError(f"this installation brings no {package} model along; train one and give it as --model RUN.")
    asked = str(name_or_path or default)
    if (Path(asked) / "config.json").is_file():
        return Path(asked)
    if "/" not in asked and asked not in (".", "..") and (shipped / asked / "config.json").is_file():
        return shipped / asked
    names = sorted(path.parent.name for path in shipped.glob("*/config.json"))
    has = f"bundled models are {', '.join(names)}" if names else "no model is bundled"
    raise UserError(f"--model {asked}: no run directory with a config.json is there; {has}.")
