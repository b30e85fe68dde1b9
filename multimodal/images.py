"""Pictures in and out: files, bytes or streams -> RGB; RGB <-> tensors. One convention for the whole toolkit:
float in [0, 1], (b 3 h w), RGB. What a model likes better, it does inside itself.

A picture is a stranger's: size and pixels are bounded before anything is decoded, and what cannot be read is a
sentence, not a trace.
"""

import contextlib
import io
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from multimodal.cli import UserError

MAX_BYTES = 100_000_000
MAX_PIXELS = 64_000_000
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
# how ASCII writes what is no letter with a mark to Unicode
FORMS = str.maketrans({
    "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ı": "i",
    "«": '"', "»": '"', "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-",
})  # fmt: skip
UNSEEN = frozenset(("Mn", "Me", "Cf", "Cc"))  # marks on the letter before, what joins or directs letters, and controls


class ImageError(UserError):
    """A picture that cannot be used, and why."""


class TooLarge(ImageError):
    """A picture with more bytes or pixels than are read."""


def read(source: str | Path | bytes | io.IOBase, size: int | None = None, name: str = "the picture") -> Image.Image:
    """An RGB picture as people see it: turned by its EXIF, transparency on white, of an animation the first frame.

    `size` tells that a `square` of so many pixels is wanted: a JPEG that is much larger is then decoded at a half, a
    quarter or an eighth, never below twice the size. Raises ImageError for what is missing, empty, no picture, cut off
    or too large; it names the path, or the `name`.
    """
    name = str(source) if isinstance(source, (str, Path)) else name
    try:
        if isinstance(source, (str, Path)):
            if Path(source).stat().st_size > MAX_BYTES:
                raise TooLarge(f"{name} has more than {MAX_BYTES // 10**6} MB; scale it down first.")
            source = Path(source).read_bytes()
        data = source if isinstance(source, bytes) else source.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist.") from None
    except OSError as error:
        raise ImageError(f"{name} could not be read: {error.strerror or error}.") from None
    if not data:
        raise ImageError(f"{name} is empty (0 bytes).")
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{name} has more than {MAX_BYTES // 10**6} MB; scale it down first.")
    try:
        with _quiet(), _opened(io.BytesIO(data), name) as image:
            if size is not None:
                image.draft(image.mode, (2 * size, 2 * size))
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:  # the decoders raise whatever they like: RuntimeError of AVIF, struct.error of TIFF
        raise ImageError(f"{name} is damaged or cut off: {error}.") from None


def check(source: str | Path | bytes, name: str = "the picture") -> None:
    """Raises ImageError if by its header it is no picture or too large: cheap, no pixel is decoded."""
    name = str(source) if isinstance(source, (str, Path)) else name
    with _quiet(), _opened(io.BytesIO(source) if isinstance(source, bytes) else source, name):
        pass


def _opened(source: io.BytesIO | str | Path, name: str) -> Image.Image:
    """The picture with its pixels still to be decoded; their number is bounded."""
    try:
        image = Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture of a known format ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise TooLarge(f"{name} announces more than {MAX_PIXELS:,} pixels, the most that are read.") from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist.") from None
    except Exception as error:
        raise ImageError(f"{name} is damaged or cut off: {error}.") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise TooLarge(f"{name} is {image.width}x{image.height}; at most {MAX_PIXELS:,} pixels are read.")
    return image


_talk = threading.Lock()
_muted: list[warnings.catch_warnings] = []  # one for each picture that is being read


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's own word on odd pictures; ours follows. Filters of warnings belong to the whole process, so the
    first of several threads sets them aside, and the last puts them back."""
    with _talk:
        _muted.append(warnings.catch_warnings() if not _muted else _muted[0])
        if len(_muted) == 1:
            _muted[0].__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _talk:
            if len(_muted) == 1:
                _muted[0].__exit__(None, None, None)
            _muted.pop()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel and more: scale, where convert() would clip
        values = np.nan_to_num(np.asarray(image, np.float32))
        white = 65535.0
        if not image.mode.startswith("I;16"):  # what white is, is not said: 1 or 255 or 65535 or the brightest
            most = float(values.max())
            white = 1.0 if image.mode == "F" and most <= 1 else 255.0 if most <= 255 else max(most, 65535.0)
        image = Image.fromarray((values * (255 / white)).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> UInt8[Tensor, "3 size size"]:
    """The middle of the picture: shorter side scaled to `size` with antialiasing, the longer one cropped."""
    fitted = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return rearrange(torch.from_numpy(np.array(fitted)), "h w c -> c h w").contiguous()


def to_float(image: UInt8[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """0..255 -> [0, 1]."""
    return image.float() / 255


def to_pil(image: Float[Tensor, "3 h w"] | UInt8[Tensor, "3 h w"]) -> Image.Image:
    """A tensor as a picture; floats outside [0, 1] are clamped."""
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(rearrange(image.cpu(), "c h w -> h w c").contiguous().numpy())


def plain(text: str) -> str:
    """A text on one line in ASCII, which is all that Pillow's own font has: letters without their marks, and a question mark
    for each letter that has no such form."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()).translate(FORMS))
    return "".join(c for c in letters if unicodedata.category(c) not in UNSEEN).encode("ascii", "replace").decode()


def grid(
    images: Float[Tensor, "b 3 h w"], columns: int = 8, labels: list[str] | None = None, gap: int = 4
) -> Image.Image:
    """Pictures side by side on white, row by row, each with its label below when labels are given, as `plain` writes it."""
    count, _, height, width = images.shape
    columns = max(1, min(columns, count))
    rows, line = -(-count // columns), 12 if labels else 0
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap + line) + gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for i, image in enumerate(images):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + gap + line)
        sheet.paste(to_pil(image), (x, y))
        if labels:
            text = plain(labels[i])[:width]
            while text and pen.textlength(text, font=font) > width:
                text = text[:-1]
            pen.text((x, y + height), text, fill="black", font=font)
    return sheet
