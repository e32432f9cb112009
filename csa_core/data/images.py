"""Decoding one image file: one policy, whichever source names the file.

An image is a PNG, JPEG or WebP file with 8 bits a channel, and becomes RGB: grey, palettes and CMYK are converted,
transparent parts are laid on white, photos are turned as their camera says (EXIF), of an animation the first frame is
taken, and colour profiles are not applied. 16 bits a channel are refused: how they map to 8 is not ours to guess.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from csa_core.errors import Missing, UserError, say
from csa_core.files import open_regular

FORMATS = ("JPEG", "PNG", "WEBP")
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # where the header of a PNG has the bits of a channel
RESIZED = {
    "stretch": "data.resize: stretch changes their proportions (crop takes their middle, pad adds black)",
    "crop": "data.resize: crop takes their middle (stretch changes their proportions, pad adds black)",
    "pad": "data.resize: pad adds black (stretch changes their proportions, crop takes their middle)",
}
OTHERS = {
    "a GIF": re.compile(rb"GIF8"),
    "a TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "a BMP": re.compile(rb"BM.{12}", re.DOTALL),
    "a JPEG 2000": re.compile(rb"\0\0\0\x0cjP  "),
    "an AVIF": re.compile(rb".{4}ftypavi", re.DOTALL),
    "a HEIC": re.compile(rb".{4}ftyp(hei|hev|mif|msf)", re.DOTALL),
    "an HTML page": re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE),
}
"""What else people have under the name of an image, and how it starts."""
UNDECODABLE = (OSError, Image.DecompressionBombError, SyntaxError, ValueError, TypeError, struct.error)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; what goes wrong in here, decoding included, is one line that names it.

    Raises:
        UserError: missing, no image, damaged, or of more than 8 bits a channel.
    """
    try:
        start = b""
        with open_regular(path) as file:
            start = file.read(PNG_DEPTH + 1)
            if start.startswith(PNG) and start[PNG_DEPTH:] == b"\x10":
                raise UserError(f"{path}: has 16 bits a channel; save it with 8")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                _scale_transparent_grey(image)  # what is decoded no longer says how many bits it had
                yield image
    except Missing:
        raise UserError(f"{path}: no such file; replace it or take it out") from None
    except UNDECODABLE as error:
        raise UserError(f"{path}: {_reason(error, start)}; replace it or take it out") from None


def _reason(error: Exception, start: bytes) -> str:
    """Return why a file that starts so cannot be decoded."""
    if strerror := getattr(error, "strerror", None):
        return f"cannot be read ({strerror})"
    if isinstance(error, Image.DecompressionBombError):
        return "has too many pixels"
    if not start:
        return "is empty"
    kind = next((kind for kind, form in OTHERS.items() if form.match(start)), None)
    return f"is {kind}, whatever its name says, and not a PNG, JPEG or WebP" if kind else "cannot be decoded"


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image as its camera held it."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image: upright, on white where it is transparent, RGB."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UserError(f"images: one of mode {image.mode} has more than 8 bits a channel; convert it to 8")
    _scale_transparent_grey(image)
    if _orientation(image) > 1:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scale_transparent_grey(image: Image.Image) -> None:
    """Bring the transparent grey of a PNG of 2 or 4 bits to 8, as Pillow brings its pixels."""
    tiles = getattr(image, "tile", None) or [("", (), 0, "")]
    packed = {"L;2": 85, "L;4": 17}.get(str(tiles[0][3]), 1)
    if isinstance(grey := image.info.get("transparency"), int) and packed > 1:
        image.load()
        image.info["transparency"] = grey * packed


def fitted(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """Resize a decoded image to width and height; one of that size stays as it is.

    Args:
        resize: stretch, whatever its proportions; crop, the largest part of these proportions from its middle; pad,
            the whole image in the middle of black.
    """
    bicubic = Image.Resampling.BICUBIC
    if image.size == size:
        return image
    if resize == "crop":
        return ImageOps.fit(image, size, bicubic)
    return ImageOps.pad(image, size, bicubic) if resize == "pad" else image.resize(size, bicubic)


def squared(image: Image.Image, resize: str) -> Image.Image:
    """Make a decoded image square, its longer side kept, by stretch or pad; what crop cuts, it cuts later."""
    side = max(image.size)
    return image if resize == "crop" else fitted(image, (side, side), resize)


def note_not_square(count: int, total: int, resize: str) -> None:
    """Say how many images are not square, and what becomes of them."""
    if count:
        say(f"note: {count:,} of {total:,} images are not square; {RESIZED[resize]}")


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
