"""Weights in the files of strangers: a path in, {name: tensor} out, or a sentence. Nothing in a file is executed.

safetensors holds tensors only. What torch.save writes is a pickle, which is a program: here it runs on a machine that has
nothing but numbers, texts, lists and dictionaries. The functions that build tensors are replaced by our own; every other
class or function, whole modules (OpenAI's dVAE) and the state of a training (Lightning) included, is never looked for: a
`Record` in its place keeps what it is given. Tensors are mapped from the file, and come into memory as they are used.
"""

import codecs
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from multimodal.cli import UserError

MAX_PICKLE = 16_000_000  # bytes beside the numbers; a training's state of 2,000 tensors takes less than one
MAX_STEPS = 2_000_000  # instructions of such a program
MAX_TUPLES = 100_000  # a tensor takes four; nested more deeply they would end the interpreter
MAX_ENTRIES = 50_000  # storages, names and modules of a file
MAX_NESTING = 64  # modules within modules
MAX_YAML = 100_000
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what torch.save began its files with until 2020
DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Odd(ValueError):
    """What is wrong with a file, as the end of a sentence."""


class Storage(NamedTuple):
    """Numbers somewhere in the file."""

    dtype: torch.dtype
    key: str
    count: int


class Place(NamedTuple):
    """Where in the file a storage lies, in bytes."""

    begin: int
    size: int


class Promise(NamedTuple):
    """A tensor as the pickle tells it; nothing of it is checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


class Record:
    """An object of a class that is not known here: nothing but its state, as it stands in the file."""

    __slots__ = ("state",)

    def __new__(cls, *args: Any, **options: Any) -> "Record":
        record = object.__new__(cls)
        record.state = None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *contents: Any) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


class Entries(dict):
    """An ordered dictionary, without the attributes that a pickle may want to give it."""

    def __setstate__(self, state: Any) -> None:
        pass


class Reader(pickle.Unpickler):
    """Runs a pickle without anything that could do something."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return Entries
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        # new functions each time: what a pickle may do to one of them is gone with it
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *rest: Promise(storage, offset, shape, strides)
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda data, *rest: data
        return Record

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", torch.dtype() as dtype, str() as key, _, int() as count, *view) if not any(view):
                storage = Storage(dtype, key, count)
                self.storages.setdefault(key, storage)
                return storage
            case ("module", found, *_):  # files until 2020 carry the source of classes along
                return found
        raise Odd("it refers to numbers in a way that torch.save does not")


def read(path: Path) -> dict[str, Tensor]:
    """Every named tensor of a file: safetensors, or torch.save's of a dictionary, of a training, or of a whole module.

    Raises UserError with what is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise UserError(f"{path} is empty (0 bytes).")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
            raise Odd("it is packed: unpack it (tar -xf) and give what comes out")
        if head[:4] == b"PK\x03\x04":
            content, places = _read_zip(path)
        elif head[:1] == b"\x80":
            content, places = _read_legacy(path)
        elif _is_text(head):
            raise Odd("it is text (did a download save a page, or git a pointer, in its place?)")
        else:
            raise Odd("it is neither of safetensors nor of torch.save")
        promises = _named(content)
        if sum(_size(promise) for promise in promises.values()) > 2 * size:
            raise Odd("it promises more numbers than a file of its size can hold")
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return {name: _tensor(promise, places, mapped) for name, promise in promises.items()}
    except Odd as error:
        raise UserError(f"{path} could not be read: {error}.") from None
    except Exception:  # a damaged pickle raises anything
        raise UserError(
            f"{path} could not be read: it is cut off or damaged, fetch it again; nothing of it was executed."
        ) from None


def _is_text(head: bytes) -> bool:
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(head).translate({9: "", 10: "", 13: ""}).isprintable()
    except UnicodeDecodeError:
        return False


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file of bounded size."""
    import yaml

    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    if path.stat().st_size > MAX_YAML:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_YAML:,} are read.")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} could not be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings by name.")
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} could not be read: {error}; it may be cut off, fetch it again.") from None


def _run(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The content of the pickle that begins here and the storages it names. Its instructions are all looked at first."""
    begin, tuples = stream.tell(), 0
    for step, (code, argument, _) in enumerate(pickletools.genops(stream)):
        tuples += code.name.startswith("TUPLE")
        if step > MAX_STEPS or tuples > MAX_TUPLES:
            raise Odd(f"its pickle has more than {MAX_STEPS:,} instructions or {MAX_TUPLES:,} tuples")
        # a place in the table of what was seen is made as far away as told: a large number is a lot of memory
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument) > MAX_STEPS:
            raise Odd("its pickle asks for a table larger than itself")
    program = stream.getvalue()[begin : stream.tell()]
    reader = Reader(io.BytesIO(program))
    return reader.load(), reader.storages


def _read_zip(path: Path) -> tuple[Any, dict[str, Place]]:
    """The content and the places of the storages in what torch.save has written since 2020: an archive."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        infos = archive.infolist()
        if len(infos) > MAX_ENTRIES:
            raise Odd(f"it has {len(infos):,} parts; at most {MAX_ENTRIES:,} are read")
        pickles = [info for info in infos if info.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise Odd("it is an archive, but not of torch.save: unpack it and give the weights that are in it")
        if pickles[0].file_size > MAX_PICKLE:
            raise Odd(f"its pickle has {pickles[0].file_size:,} bytes; at most {MAX_PICKLE:,} are read")
        root = pickles[0].filename.removesuffix("data.pkl")
        places = {}
        for info in infos:
            if info.filename == f"{root}byteorder" and (info.file_size > 16 or archive.read(info) != b"little"):
                raise Odd("its numbers have their bytes in the other order")
            if not info.filename.startswith(f"{root}data/"):
                continue
            file.seek(info.header_offset)
            header = file.read(30)
            begin = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))  # a name and an extra field
            if header[:4] != b"PK\x03\x04" or begin + info.file_size > size:
                raise Odd("it is cut off or damaged, fetch it again")
            if info.compress_type != zipfile.ZIP_STORED:
                raise Odd("its numbers are compressed, which torch.save never does")
            places[info.filename.removeprefix(f"{root}data/")] = Place(begin, info.file_size)
        return _run(io.BytesIO(archive.read(pickles[0])))[0], places


def _read_legacy(path: Path) -> tuple[Any, dict[str, Place]]:
    """The same of what torch.save wrote before: five pickles one after the other, then the storages, each after its count."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = io.BytesIO(file.read(MAX_PICKLE))
        if _run(head)[0] != MAGIC or _run(head)[0] != PROTOCOL:
            raise Odd("it is a pickle, but not of torch.save")
        if _run(head)[0].get("little_endian") is not True:
            raise Odd("its numbers have their bytes in the other order")
        content, storages = _run(head)
        keys, begin = _run(head)[0], head.tell()
        places = {}
        for key in keys:
            file.seek(begin)
            (count,) = struct.unpack("<q", file.read(8))
            places[key] = Place(begin + 8, count * storages[key].dtype.itemsize)
            begin += 8 + places[key].size
            if count < 0 or begin > size:
                raise Odd("it is cut off, fetch it again")
        return content, places


def _named(content: Any) -> dict[str, Promise]:
    """The tensors of a state dict, of the `state_dict` in a training's state, or of a module and the modules in it."""
    found: dict[str, Promise] = {}
    if isinstance(content, dict):
        inner = content.get("state_dict", content)
        if isinstance(inner, dict):
            found = _tensors(inner, "")
    waiting, seen = [("", content)], 0
    while waiting:
        prefix, module = waiting.pop()
        state = module.state if isinstance(module, Record) else None
        if isinstance(state, dict):
            for kind in ("_parameters", "_buffers"):
                found |= _tensors(state.get(kind), prefix)
            inner = state.get("_modules")
            inner = inner.items() if isinstance(inner, dict) else ()
            waiting += [(f"{prefix}{name}.", part) for name, part in inner if isinstance(name, str)]
        seen += 1
        if seen + len(waiting) + len(found) > MAX_ENTRIES or prefix.count(".") > MAX_NESTING:
            raise Odd(f"it has more than {MAX_ENTRIES:,} names, or modules within themselves")
    if not found:
        entries = content if isinstance(content, dict) else ("a single object",)
        names = [name for name in entries if isinstance(name, str)]
        raise Odd(f"it holds no tensors by name (it has: {', '.join(names[:9])[:200] or 'nothing'})")
    return found


def _tensors(entries: Any, prefix: str) -> dict[str, Promise]:
    if not isinstance(entries, dict):
        return {}
    named = ((name, value) for name, value in entries.items() if isinstance(name, str))
    return {f"{prefix}{name}": value for name, value in named if isinstance(value, Promise)}


def _tensor(promise: Promise, places: Mapping[str, Place], mapped: Tensor) -> Tensor:
    """The tensor, where it lies in the mapped file."""
    (dtype, key, count), offset, shape, strides = promise
    begin, room = places[key]
    item = dtype.itemsize
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min(offset, count, *shape, *strides, 0) < 0 or max(count, last + 1, math.prod(shape)) * item > room:
        raise Odd("a tensor is larger than the numbers that are there for it; it may be cut off, fetch it again")
    numbers = mapped[begin : begin + room // item * item]
    if begin % item:  # files until 2020 put the storages where they happen to come
        numbers = numbers.clone()
    numbers = numbers.view(dtype)
    return numbers.as_strided(shape, strides, numbers.storage_offset() + offset)


def _size(promise: Promise) -> int:
    """Bytes of a promised tensor."""
    return math.prod(promise.shape) * promise.storage.dtype.itemsize
