"""Published models in open_clip's layouts: a directory, a weights file or a name of the hub in, an encoder out.

    open_clip:ViT-B-32/laion2b_s34b_b79k    a name and a tag of open_clip's list: kept by this machine, or fetched
    hf-hub:OWNER/NAME                       a model of the hub
    local-dir:PATH, or PATH                 a directory with open_clip_config.json and weights
    FILE.safetensors                        weights, with their settings beside: FILE.json or open_clip_config.json

What is on this machine is read without a question to the network, and what is not there is a sentence at once: never a model of
random weights. Weights are safetensors, or torch's files read by its restricted reader, which executes nothing. A model of
CLIP's own blocks comes into our towers (`load`), with open_clip's vocabulary but without importing open_clip; any other stays
open_clip's module (`Foreign`). Ilharco et al. 2021, "OpenCLIP".
"""

import contextlib
import copy
import difflib
import gzip
import hashlib
import importlib.util
import json
import math
import pickle
import re
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError, safe_open
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from clip import published
from clip.encoder import Encoder
from clip.model import CLIP, START
from clip.presets import PIXEL_MEAN, PIXEL_STD
from clip.published import NotOurs, fitted
from multimodal.checkpoint import read_json
from multimodal.cli import Failed, UserError
from multimodal.tokenizer import END, MAX_FILE_BYTES, Tokenizer, byte_symbols

NAMED, HUB, LOCAL = "open_clip:", "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
SAFE, TORCH = (".safetensors",), (".bin", ".pth", ".pt")
WEIGHTS = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")  # the names in use, best first
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
MAX_SIZE, MAX_LAYERS = 1_000_000, 1_024  # of what a stranger's settings may ask for
REACH = 5.0  # seconds in which the hub must answer at all
CHUNK = 32  # pictures of one forward pass
# the way out, wherever the network is missing
HOW_OFFLINE = (
    "where there is one, `hf download {repo} --local-dir DIR` fetches it; --model local-dir:DIR then reads it anywhere"
)


@dataclass(frozen=True)
class Source:
    """A published model and where its parts are."""

    name: str
    """As people know it."""
    config: dict[str, Any]
    """Which towers, as open_clip says it (model_cfg)."""
    preprocess: dict[str, Any]
    """How its pictures are prepared (preprocess_cfg)."""
    weights: Path
    directory: Path | None = None
    """Where its own tokenizer would be; None is the hub."""

    def digest(self) -> str:
        """Of everything that makes its vectors."""
        found = hashlib.sha256(json.dumps([self.config, self.preprocess], sort_keys=True).encode())
        files = [self.directory / name for name in TOKENIZER] if self.directory else []
        for path in [self.weights, *(path for path in files if path.is_file())]:
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()[:16]


def locate(asked: str | Path) -> Source | None:
    """What `asked` means, or None where it is no published model's. Raises UserError with what is wrong."""
    asked = str(asked)
    if asked.startswith(NAMED):
        return named(asked.removeprefix(NAMED))
    if asked.startswith(HUB):
        return on_hub(asked.removeprefix(HUB))
    path = Path(asked.removeprefix(LOCAL))
    if path.is_file() and path.suffix in SAFE + TORCH:
        return beside(path)
    if path.is_dir() and (path / CONFIG).is_file():
        config, preprocess = read_config(path / CONFIG)
        return Source(path.resolve().name, config, preprocess, weights_in(path), path)
    if asked.startswith(LOCAL):
        what = f"has no {CONFIG}" if path.is_dir() else "is no directory"
        raise UserError(f"--model {asked}: {path} {what}; open_clip's directories hold {CONFIG} and weights.")
    if path.suffix in SAFE + TORCH:
        raise UserError(f"--model {asked}: there is no such file.")
    return None


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(which towers, how pictures are prepared) of an open_clip_config.json, or of towers alone."""
    found = read_json(path)
    config, preprocess = found.get("model_cfg", found), found.get("preprocess_cfg", {})
    if not all(isinstance(part, dict) for part in (config, preprocess)) or "embed_dim" not in config:
        raise UserError(
            f"{path} does not say which towers: embed_dim, vision_cfg and text_cfg are needed, as open_clip has them."
        )
    return config, preprocess


def weights_in(directory: Path) -> Path:
    """The weights of a directory: safetensors by the names in use, or the only ones; then torch's files likewise."""
    for suffixes in (SAFE, TORCH):
        known = [directory / f"{name}{suffix}" for name in WEIGHTS for suffix in suffixes]
        for path in known:
            if path.is_file():
                return path
        others = sorted(path for path in directory.iterdir() if path.suffix in suffixes and path.is_file())
        if len(others) > 1:
            raise UserError(
                f"{directory} has several weights ({others[0].name}, {others[1].name} ...): give the file you mean."
            )
        if others:
            return others[0]
    raise UserError(f"{directory} has no weights: {WEIGHTS[0]}.safetensors belongs beside {CONFIG}.")


def beside(weights: Path) -> Source:
    """A file of weights with the settings that lie beside it."""
    for path in (weights.with_suffix(".json"), weights.with_name(CONFIG)):
        if path.is_file():
            return Source(weights.stem, *read_config(path), weights, weights.parent)
    raise UserError(
        f"{weights} does not say which towers it is of: put open_clip's settings beside it ({weights.stem}.json or {CONFIG}), or "
        f"python -m clip.convert {weights} --architecture ViT-B-32 --out RUN with the name open_clip has for them."
    )


def architecture(name: str) -> dict[str, Any]:
    """The towers that open_clip knows under a name."""
    with quiet():
        import open_clip
    found = open_clip.get_model_config(name) if not name.startswith((HUB, LOCAL)) else None
    if found is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 3, 0.3)
        raise UserError(f"open_clip knows no model {name!r}; near are {', '.join(near) or 'none'}.")
    return found


def named(asked: str) -> Source:
    """A name and a tag of open_clip's list, such as ViT-B-32/openai."""
    name, _, tag = asked.rpartition("/")
    if not name:
        raise UserError(f"--model {NAMED}{asked}: give a name and a tag, as in {NAMED}ViT-B-32/laion2b_s34b_b79k.")
    config = architecture(name)
    from open_clip import pretrained

    how = pretrained.get_pretrained_cfg(name, tag)
    if not how:
        tags = ", ".join(pretrained.list_pretrained_tags_by_model(name)) or "none"
        raise UserError(f"--model {NAMED}{asked}: open_clip has no {tag!r} of {name}; its tags are {tags}.")
    if how.get("quick_gelu"):  # of the weights, whatever the name says: with the other GELU they would be less good
        config["quick_gelu"] = True
    repo, _, file = how.get("hf_hub", "").rpartition("/")
    if not repo:
        raise UserError(
            f"--model {NAMED}{asked}: its weights are on no hub; fetch them from {how.get('url')} and give the file."
        )
    stem = Path(file or "open_clip_pytorch_model.bin")
    files = [*(["open_clip_model.safetensors"] if not file else []), str(stem.with_suffix(".safetensors")), str(stem)]
    return Source(f"{name} {tag}", config, how, fetch(repo, files))


def on_hub(repo: str) -> Source:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo):
        raise UserError(f"--model {HUB}{repo}: a model of the hub is OWNER/NAME.")
    config, preprocess = read_config(fetch(repo, [CONFIG]))
    files = [f"{name}{suffix}" for suffix in (".safetensors", ".bin") for name in WEIGHTS[:2]]
    return Source(repo, config, preprocess, fetch(repo, files))


def fetch(repo: str, files: Sequence[str]) -> Path:
    """The first of these files that a model of the hub has: where this machine keeps it, or fetched."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    for file in files:
        kept = huggingface_hub.try_to_load_from_cache(repo, file)
        if isinstance(kept, str):
            return Path(kept)
    way_out = HOW_OFFLINE.format(repo=repo)
    if not reachable():
        raise Failed(
            f"{repo} is not kept on this machine, and the hub cannot be reached for want of a network: {way_out}."
        )
    try:
        for file in files:
            with contextlib.suppress(EntryNotFoundError):
                return Path(huggingface_hub.hf_hub_download(repo, file))
    except RepositoryNotFoundError:
        raise UserError(f"there is no model {repo} on the hub, or it is private.") from None
    except Exception as error:  # of whatever the network library raises
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise Failed(f"{repo} could not be fetched ({reason}): {way_out}.") from None
    raise UserError(f"{repo} has none of {', '.join(files)}.")


def reachable() -> bool:
    """Whether the hub answers at all: asked once and shortly, where its own client would try for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=REACH).close()
        except urllib.error.HTTPError:
            pass  # an answer, if not the best
        except (OSError, ValueError):
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name heeds no limit of time
    asking.start()
    asking.join(REACH)
    return answered.is_set()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file by its name there, without what training wraps around a model."""
    if path.suffix in SAFE:
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} could not be read: {error}; it may be cut off, fetch it again.") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what it cannot read
        reason = "it is cut off, or torch.save did not write it"
        if isinstance(error, pickle.UnpicklingError) or "TorchScript" in str(error):
            reason = "it holds more than tensors and plain values"
        raise UserError(f"{path} could not be read: {reason}; nothing of it was executed.") from None
    found = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(t, Tensor) for k, t in found.items()):
        raise UserError(f"{path} holds no tensors by name, and no state_dict of them.")
    # a tensor can be told to repeat a few numbers
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > 2 * path.stat().st_size:
        raise UserError(f"{path} promises more numbers than a file of its size can hold.")
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", name): tensor for name, tensor in found.items()}


@cache
def clip_tokenizer() -> Tokenizer:
    """The published models' vocabulary (byte-level BPE with a mark at a word's end), from the file that open_clip brings."""
    place = importlib.util.find_spec("open_clip")
    if place is None or not place.submodule_search_locations:
        raise UserError("the published models' vocabulary comes with open_clip: pip install open_clip_torch.")
    path = Path(place.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    letters = list(byte_symbols())
    count = published.VOCABULARY - 2 - 2 * len(letters)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        pairs = [tuple(line.split()) for line in file.read().split("\n")[1 : 1 + count]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, pairs), START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pipeline = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, end_of_word_suffix="</w>"))
    words = tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    pipeline.decoder = decoders.ByteLevel()
    pipeline.add_special_tokens([START, END])
    return Tokenizer(pipeline)


def exported(tokenizer: Tokenizer) -> dict[str, Any]:
    """Our own tokenizer as open_clip can use it: a tokenizer.json that itself does what `tokenize` does around it."""
    found = json.loads(tokenizer.pipeline.to_str())
    around = tokenizers.Tokenizer(models.BPE())
    around.add_special_tokens([END])
    around.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace("_", " "),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
        ]
    )
    around.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, tokenizer.end)])
    made = json.loads(around.to_str())
    return {**found, "normalizer": made["normalizer"], "post_processor": made["post_processor"]}


def own_tokenizer(directory: Path | None) -> Tokenizer:
    """Our own tokenizer from what `exported` made of it. Raises NotOurs where the file does anything else."""
    path = (directory or Path(".")) / published.OWN
    if directory is None or not path.is_file():
        raise NotOurs(f"its {published.OWN} is missing.")
    found = read_json(path, MAX_FILE_BYTES)
    try:
        plain = tokenizers.Tokenizer.from_str(json.dumps({**found, "normalizer": None, "post_processor": None}))
        tokenizer = Tokenizer(plain)
    except Exception as error:  # the library raises plain Exception for what it cannot read
        raise NotOurs(f"{path} could not be read: {error}") from None
    if exported(tokenizer) != {**found, "truncation": None, "padding": None}:
        raise NotOurs(f"{path} reads texts in another way than ours.")
    return tokenizer


def load(source: Source, device: torch.device | str = "cpu") -> tuple[CLIP, Tokenizer]:
    """The model in our towers, and its tokenizer. Raises NotOurs where they cannot hold it, UserError for what is broken."""
    config = published.from_config(source.config, source.preprocess)
    own = source.config["text_cfg"].get("hf_tokenizer_name") == published.OWN
    tokenizer = own_tokenizer(source.directory) if own else clip_tokenizer()
    if (tokenizer.vocab_size, tokenizer.end) != (config.vocabulary, config.end):
        raise NotOurs(
            f"its tokenizer has {tokenizer.vocab_size:,} tokens and ends texts by {tokenizer.end}, not as its towers."
        )
    tensors = read_weights(source.weights)
    try:
        ours = published.to_ours(tensors, config)
    except ValueError as error:
        raise UserError(f"{source.weights} does not fit its settings: {error}") from None
    with torch.device("meta"):
        network = CLIP(config)
    for name, wanted in network.state_dict().items():
        if ours[name].shape != wanted.shape:
            raise UserError(
                f"{source.weights} does not fit its settings: {name} is {tuple(ours[name].shape)} in the file, "
                f"{tuple(wanted.shape)} by the settings."
            )
    scale = ours["log_scale"].item()
    if not 0 <= scale <= network.max_log_scale + 1e-4:
        raise NotOurs(f"its scale is {math.exp(scale):.4g}, ours goes from 1 to {math.exp(network.max_log_scale):.0f}.")
    network.load_state_dict({name: tensor.to(device) for name, tensor in ours.items()}, assign=True)
    return network.eval().requires_grad_(False), tokenizer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries around open_clip have to say about one another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def offline(wanted: bool) -> Iterator[None]:
    """Inside, the hub's client answers from what this machine keeps."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class Foreign(Encoder):
    """A model of open_clip as it is, in its own module."""

    def __init__(self, source: Source, device: torch.device | str = "cpu", precision: str = "fp32", reason: str = ""):
        if precision not in ("fp32", "bf16"):
            why = f", since {reason.rstrip('.')}" if reason else ""
            raise UserError(
                f"--precision {precision}: {source.name} stays open_clip's own module{why}: take fp32 or bf16."
            )
        self.source, self.name, self.device, self.precision = source, source.name, torch.device(device), precision
        text = source.config.get("text_cfg", {})
        needs_hub = source.directory is None and any(text.get(f"hf_{name}_name") for name in ("model", "tokenizer"))
        with quiet(), offline(not (needs_hub and reachable())):
            self.module = build(source)
            self.tokenizer = their_tokenizer(source)
        self.context, self.width = self.tokenizer.context_length, source.config["embed_dim"]
        with torch.inference_mode():
            self.scale = self.module.logit_scale.exp().item()
            bias = getattr(self.module, "logit_bias", None)
            self.bias = 0.0 if bias is None else bias.item()
        self.scores = "softmax" if bias is None else "sigmoid"
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.module.to(self.device, self.dtype)
        how = source.preprocess
        size = getattr(self.module.visual, "image_size", None) or how.get("size") or 224
        self.sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        self.size = max(self.sides)
        mean, std = (
            published.three(how.get(name) or usual) for name, usual in (("mean", PIXEL_MEAN), ("std", PIXEL_STD))
        )
        self.mean, self.std = (rearrange(torch.tensor(c, device=self.device), "c -> c 1 1") for c in (mean, std))

    @property
    def digest(self) -> str:
        return f"{self.source.digest()}-{self.precision}"

    def prepare(self, picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
        how = self.source.preprocess
        mode, fill = how.get("resize_mode") or "shortest", how.get("fill_color") or 0
        return fitted(picture, self.sides, mode, how.get("interpolation") == "bilinear", fill)

    def embed_images(self, pictures: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        with torch.inference_mode():
            parts = (part.to(self.device).float().div(255) for part in pictures.split(CHUNK))
            parts = [self.module.encode_image(((x - self.mean) / self.std).to(self.dtype)) for x in parts]
            return F.normalize(torch.cat(parts).float(), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "t d"]:
        with torch.inference_mode():
            parts = (self.tokenizer(list(texts[i : i + CHUNK])).to(self.device) for i in range(0, len(texts), CHUNK))
            return F.normalize(torch.cat([self.module.encode_text(tokens) for tokens in parts]).float(), dim=-1)

    def too_long(self, texts: Sequence[str]) -> int:
        if not texts:
            return 0
        # what is cut is another row where there is room for one token more; `clips` puts a token of its own at the end
        last = -1 if getattr(self.tokenizer, "tokenizer_mode", "") == "clips" else None
        rows, longer = (self.tokenizer(list(texts), context_length=self.context + more) for more in (0, 1))
        return int((rows[:, :last] != longer[:, : self.context][:, :last]).any(dim=1).sum())


def build(source: Source) -> nn.Module:
    """open_clip's module with its weights. Raises UserError with what is wrong."""
    config = copy.deepcopy(source.config)
    bound(config, source)
    text, vision = config["text_cfg"], config["vision_cfg"]
    vision["timm_model_pretrained"] = text["hf_model_pretrained"] = False  # the weights are those of the file
    custom = config.pop("custom_text", False) or bool(text.get("hf_model_name"))
    try:
        import open_clip

        kind = (
            open_clip.CLIP if not custom else open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
        )
        module = kind(**config)
        open_clip.load_checkpoint(module, str(source.weights), weights_only=True)
    except ImportError as error:
        raise UserError(f"{source.name} needs a package more: {error}.") from None
    except Exception as error:  # of towers of many kinds and their libraries
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{source.name} could not be built by open_clip: {type(error).__name__}: {reason}") from None
    return module.eval().requires_grad_(False)


def bound(config: dict[str, Any], source: Source) -> None:
    """Raises UserError for settings that ask for more than the weights can fill, or for what is not theirs to say."""
    least = 0
    for name in ("vision_cfg", "text_cfg"):
        tower = config.get(name)
        if not isinstance(tower, dict):
            raise UserError(f"{source.name}: its settings have no {name}.")
        for key, value in tower.items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and abs(number) > (MAX_LAYERS if key == "layers" else MAX_SIZE):
                    raise UserError(f"{source.name}: {key} of its {name} is {number}, more than is read.")
        for key in ("timm_model_name", "hf_model_name", "hf_tokenizer_name"):
            if tower.get(key) and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(tower[key])):
                raise UserError(f"{source.name}: {key} of its {name} is {tower[key]!r}, which is no name.")
        width, layers = tower.get("width") or 0, tower.get("layers") or 0
        if isinstance(layers, list):  # a residual network's stages, each twice as wide
            least += sum(17 * n * (width << i) ** 2 for i, n in enumerate(layers[:8]))
        elif not tower.get("timm_model_name") and not tower.get("hf_model_name"):
            least += 4 * layers * width**2 + (tower.get("vocab_size") or 0) * width
    if least > source.weights.stat().st_size:
        raise UserError(
            f"{source.name}: its settings ask for {least:,} numbers and more, which {source.weights} cannot hold."
        )


def their_tokenizer(source: Source):
    """open_clip's tokenizer of a model: its own vocabulary, or that of the directory or of the hub."""
    text = source.config["text_cfg"]
    options = dict(text.get("tokenizer_kwargs") or {})
    name = text.get("hf_tokenizer_name")
    allowed = {"clean", "strip_sep_token", "language"} if name else {"clean"}
    if odd := sorted(set(options) - allowed):  # such as trust_remote_code
        raise UserError(f"{source.name}: tokenizer_kwargs asks for {odd[0]}, which is not read.")
    context = text.get("context_length", 77)
    try:
        from open_clip import tokenizer

        if not name:
            return tokenizer.SimpleTokenizer(context_length=context, **options)
        place = name if source.directory is None else str(source.directory)
        mode = text.get("tokenizer_mode")
        return tokenizer.HFTokenizer(place, context, tokenizer_mode=mode, trust_remote_code=False, **options)
    except ImportError as error:
        raise UserError(f"{source.name} has a tokenizer of transformers ({error}): pip install transformers.") from None
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")[:300]
        way = "its files belong into the directory" if source.directory else HOW_OFFLINE.format(repo=name)
        raise UserError(f"the tokenizer of {source.name} could not be opened ({reason}): {way}.") from None
