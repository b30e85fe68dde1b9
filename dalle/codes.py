"""Pictures encoded once and kept: a source of captioned pictures in, codes (count, n) on disk and their captions out.

The folder's name is a digest of all that the codes depend on: the tokenizer's weights, the pictures and captions, their
number, their size, and how they are cropped. So another run finds them again, and never finds others. They are written as they
come; a run that was killed goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8
from torch import Tensor

from dalle.tokenizers import PictureTokenizer
from multimodal import checkpoint, cli, images
from multimodal.cli import Failed
from multimodal.data import pairs

CHUNK, SHOWN = 64, 8  # pictures encoded together; pictures of the preview
LEAST_CROP = 0.8  # of a side


class Codes:
    """Codes and captions on disk; item i is view i // pictures of picture i % pictures."""

    def __init__(self, folder: Path, count: int, length: int):
        self.folder, self.count = folder, count
        # never copied into memory as a whole; a large codebook has 65,536 codes, which is what 16 bits tell apart
        self._codes = np.memmap(folder / "codes.u16", np.uint16, "r", shape=(count, length))
        with open(folder / "captions.jsonl", encoding="utf-8") as file:
            self.captions = [json.loads(line) for line in file]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, items) -> Int[Tensor, "b n"]:
        return torch.from_numpy(self._codes[items].astype(np.int64))


def digest(tokenizer: Path, source: pairs.PairSource, size: int, count: int, views: int, seed: int) -> str:
    """What tells these codes from all others. `tokenizer` is the directory of the tokenizer."""
    asked = f"{source.fingerprint()} {size} {count} {views} {seed if views > 1 else ''} {checkpoint.digest(tokenizer)}"
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def cropped(picture: UInt8[Tensor, "3 s s"], item: int, view: int, seed: int) -> UInt8[Tensor, "3 s s"]:
    """View 0 is the picture itself; every other is a random square of it, at least 0.8 of a side, by item, view, seed."""
    if view == 0:
        return picture
    rng, side = np.random.default_rng([seed, item, view]), picture.shape[-1]
    part = round(side * rng.uniform(LEAST_CROP, 1))
    top, left = rng.integers(0, side - part + 1, 2)
    part = picture[:, top : top + part, left : left + part][None].float()
    return F.interpolate(part, (side, side), mode="bicubic", antialias=True)[0].clamp(0, 255).round().to(torch.uint8)


def encoded(
    source: pairs.PairSource,
    dvae: PictureTokenizer,
    tokenizer: Path,
    count: int,
    cache: Path,
    encode: Callable[[Tensor], Tensor],
    views: int = 1,
    seed: int = 0,
) -> Codes:
    """The codes of the first `count` pictures of the source, `views` of each, from the cache or made now by `encode`."""
    size, length = dvae.config.size, dvae.config.length
    folder = cache / digest(tokenizer, source, size, count, views, seed)
    folder.mkdir(parents=True, exist_ok=True)
    total, done = count * views, _whole(folder, length)
    if done < total:
        with (
            cli.bar(total=total, initial=done, unit="picture", desc="encoding") as shown,
            open(folder / "codes.u16", "ab") as codes,
            open(folder / "captions.jsonl", "a", encoding="utf-8") as captions,
        ):
            for start in range(done, total, CHUNK):
                items = range(start, min(start + CHUNK, total))
                pictures, said = _batch(source, items, count, size, seed)
                codes.write(encode(images.to_float(pictures)).cpu().numpy().astype(np.uint16).tobytes())
                captions.writelines(json.dumps(text) + "\n" for text in said)
                codes.flush()
                captions.flush()
                shown.update(len(items))
    found = Codes(folder, total, length)
    _check(found, source, count, dvae, encode, seed)
    return found


def _batch(source, items, count: int, size: int, seed: int) -> tuple[UInt8[Tensor, "b 3 s s"], list[str]]:
    batch = pairs.batch(source, [item % count for item in items], size)
    pictures = [cropped(picture, i % count, i // count, seed) for i, picture in zip(items, batch["image"], strict=True)]
    return torch.stack(pictures), batch["caption"]


def _whole(folder: Path, length: int) -> int:
    """How many items both files hold whole; what is beyond, of a run that was killed, is cut off."""
    codes, captions = folder / "codes.u16", folder / "captions.jsonl"
    if not (codes.is_file() and captions.is_file()):
        codes.unlink(missing_ok=True)
        captions.unlink(missing_ok=True)
        return 0
    ends, end = [0], 0
    with open(captions, "rb") as file:
        for line in file:
            end += len(line)
            if line.endswith(b"\n"):
                ends.append(end)
    whole = min(codes.stat().st_size // (2 * length), len(ends) - 1)
    with open(codes, "r+b") as file:
        file.truncate(whole * 2 * length)
    with open(captions, "r+b") as file:
        file.truncate(ends[whole])
    return whole


def _check(found: Codes, source, count: int, dvae: PictureTokenizer, encode, seed: int) -> None:
    """A few pictures are encoded anew and compared with what is kept; preview.png shows them and what is painted of that."""
    items = list(range(0, len(found), max(1, len(found) // SHOWN)))[:SHOWN]
    pictures, said = _batch(source, items, count, dvae.config.size, seed)
    kept = found[items]
    same = (encode(images.to_float(pictures)).cpu() == kept).float().mean().item()
    # the same picture may fall on the other side of a border between two codes when it is computed beside others
    if same < 0.98 or said != [found.captions[i] for i in items]:
        raise Failed(
            f"{found.folder}: only {same:.0%} of the codes kept there are those of these pictures; delete the folder and "
            "start again."
        )
    where = next(iter(getattr(dvae, "parameters", list)()), kept).device
    painted = dvae.decode(kept.to(where)).float().cpu()
    sheet = images.grid(torch.cat((images.to_float(pictures), painted)), len(items), [*said, *["kept"] * len(items)])
    with checkpoint.replacing(found.folder / "preview.png") as aside:
        sheet.save(aside, "PNG")
