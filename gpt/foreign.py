"""GPT-2 in the files of others, read as files of strangers are: settings, tensors and tokenizer out, or a sentence.

A directory of transformers holds config.json, safetensors (one file, or several and an index) and tokenizer.json, or the
older vocab.json and merges.txt. nanoGPT writes ckpt.pt, a pickle: torch's restricted reader takes tensors and plain values
from it and executes nothing. Tensors are mapped from their file, and come into memory as they are used.
"""

import json
import pickle
import re
from pathlib import Path

import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from gpt import published
from gpt.presets import GPTConfig
from multimodal.checkpoint import read_json
from multimodal.cli import Failed, UserError
from multimodal.tokenizer import END, MAX_FILE_BYTES, Tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_INDEX_BYTES = 10_000_000  # GPT-2 XL's has 50 KB
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
SUFFIXES = (".safetensors", ".bin", ".json")  # of files that mean the directory they are in


def layout(source: str) -> str:
    """ours, transformers, nanogpt, or hub for what is not on this machine."""
    path = Path(source)
    if path.is_file():
        if path.suffix in SUFFIXES:
            raise UserError(f"{path}: give the directory that holds it, with its config.json.")
        return "nanogpt"
    if path.is_dir():
        if (path / "config.json").is_file():
            return "ours" if "kind" in read_json(path / "config.json") else "transformers"
        if (path / "ckpt.pt").is_file():
            return "nanogpt"
        raise UserError(f"{path} holds neither a config.json (transformers, ours) nor a ckpt.pt (nanoGPT).")
    return "hub"


def fetch(name: str, weights: bool = True) -> Path:
    """Where this machine keeps a model of the hub, fetched if need be; its config is judged before its weights come."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) or Path(name).suffix in (*SUFFIXES, ".pt"):
        raise UserError(f"{name}: there is no such file or directory.")
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    wanted = ["config.json", *TOKENIZER]
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
        if weights:
            read_config(folder)
            wanted += [WEIGHTS, INDEX, "model-*.safetensors"]
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
        return folder
    except UserError:
        raise
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{name}: there is no such file or directory, and no such model on the hub (or it is private)."
        ) from None
    except Exception as error:  # of whatever the network library raises
        reason = next(iter(str(error.__cause__ or error).splitlines()), "").rstrip(".")
        raise Failed(
            f"{name}: there is no such file or directory, and the hub could not be asked ({reason}); "
            f"where there is a network, `hf download {name} --local-dir DIR` fetches a model: then give DIR."
        ) from None


def read_config(directory: Path) -> GPTConfig:
    """The settings of a directory of transformers."""
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} has no config.json; give a directory as transformers' save_pretrained writes it.")
    found = read_json(path)
    try:
        return published.from_transformers_config(found)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def read_safetensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a directory of transformers, by its name there."""
    files = [WEIGHTS]
    if not (directory / WEIGHTS).is_file() and (directory / INDEX).is_file():
        named = read_json(directory / INDEX, MAX_INDEX_BYTES).get("weight_map")
        files = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
        if not files or any(Path(name).name != name for name in files):
            raise UserError(f"{directory / INDEX} does not say in which files of the directory the weights are.")
    for name in files:
        if not (directory / name).is_file():
            sentence = f"{directory} has no {name}; only safetensors are read"
            pickles = sorted(path.name for path in directory.iterdir() if path.suffix in (".bin", ".h5", ".msgpack"))
            if pickles:
                sentence += f", not {pickles[0]}: loading it with transformers and save_pretrained writes them"
            raise UserError(f"{sentence}.")
    tensors = {}
    for name in files:
        try:
            with safe_open(directory / name, "pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{directory / name} could not be read: {error}; it may be cut off, fetch it again."
            ) from None
    return tensors


def read_nanogpt(path: Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """The settings and the tensors, by their names there, of a ckpt.pt."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for what it cannot read
        reason = "it is cut off, or torch.save did not write it"
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and plain values"
        raise UserError(
            f"{path} could not be read as a checkpoint of nanoGPT: {reason}; nothing of it was executed."
        ) from None
    arguments, tensors = (found.get(k) if isinstance(found, dict) else None for k in ("model_args", "model"))
    if not isinstance(arguments, dict) or not isinstance(tensors, dict):
        raise UserError(f"{path} is no checkpoint of nanoGPT: it holds no dictionaries model_args and model.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.device.type != "cpu":
            raise UserError(f"{path} is no checkpoint of nanoGPT: {name!r} in its model is no tensor.")
    # a tensor can be told to repeat a few numbers; the head, which is the embedding, rightly counts twice
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * path.stat().st_size:
        raise UserError(f"{path} promises more numbers than a file of its size can hold.")
    try:
        return published.from_nanogpt_config(arguments), tensors
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def read_tokenizer(place: Path) -> Tokenizer:
    """The tokenizer of a directory, or of a tokenizer.json, without what it would put around a text."""
    path = place / "tokenizer.json" if place.is_dir() else place
    if path.is_file():
        Tokenizer.load(path)  # its checks, and its sentences
        found = json.loads(path.read_text(encoding="utf-8"))
        added = [{**t, "special": t["special"] or t["content"] == END} for t in found.get("added_tokens") or []]
        pipeline = tokenizers.Tokenizer.from_str(json.dumps({**found, "post_processor": None, "added_tokens": added}))
    elif all((place / name).is_file() for name in ("vocab.json", "merges.txt")):
        path, pipeline = place / "vocab.json", _from_vocabulary(place)
    else:
        raise UserError(
            f"{place} has no tokenizer (tokenizer.json, or vocab.json and merges.txt); give one with --tokenizer."
        )
    ids = pipeline.get_vocab().values()
    if max(ids, default=0) + 1 != len(ids):
        raise UserError(f"{path}: its {len(ids):,} tokens have ids up to {max(ids):,}; ids without gaps are needed.")
    try:
        return Tokenizer(pipeline)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _from_vocabulary(directory: Path) -> tokenizers.Tokenizer:
    """GPT-2's pipeline on vocab.json and merges.txt, and the tokens that added_tokens.json may add."""
    files = [directory / name for name in TOKENIZER[1:] if (directory / name).is_file()]
    for file in files:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, a tokenizer at most {MAX_FILE_BYTES:,}.")
    try:
        pipeline = tokenizers.Tokenizer(models.BPE.from_file(str(files[0]), str(files[1])))
        added = json.loads(files[2].read_text(encoding="utf-8")) if len(files) > 2 else {}
        special = [END] if END in pipeline.get_vocab() else []
        pipeline.add_special_tokens([*special, *sorted(added, key=added.get)])
        fits = all(pipeline.token_to_id(token) == i for token, i in added.items())
    except Exception as error:  # the library raises plain Exception for what it cannot read
        raise UserError(f"{' and '.join(map(str, files))} could not be read as a tokenizer: {error}") from None
    if not fits:
        raise UserError(f"{files[2]} does not go on where vocab.json ends.")
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    return pipeline


def read_characters(path: Path, count: int) -> Tokenizer:
    """nanoGPT's `count` characters as our tokenizer: its id i is our id i + 2, after the end and the unknown."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--characters {path} could not be read as text: {error}") from None
    tokenizer = Tokenizer.characters([text])
    if tokenizer.vocab_size - 2 != count:
        raise UserError(
            f"--characters {path} has {tokenizer.vocab_size - 2} different characters, the checkpoint {count}; "
            "give the text that nanoGPT's prepare.py read."
        )
    return tokenizer
