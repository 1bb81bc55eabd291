"""One encoded image to an array of bytes, the same for whatever way the image was stored."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""What is decoded. Other formats that Pillow knows run programs (EPS) or are never meant."""
_SIXTEEN_BITS = 65535
_CLIPPED_CHARS = 200


class UndecodableError(Exception):
    """The bytes are no image that can be used; the text says why."""


def decode(data: bytes, mode: str, size: tuple[int, int] | None) -> Pixels:
    """The pixels of an image: (height, width, channels), uint8.

    Turned as EXIF says; the first frame of several; transparency laid over white; CMYK, palettes
    and 16 bits a channel brought to 8 bits.

    Args:
        data: the encoded image.
        mode: RGB or L (grey).
        size: height and width to scale to (bilinear, with antialiasing); None: as it is.

    Raises:
        UndecodableError: not an image, cut off, of an unknown format, or so large when decoded
            that it would fill the memory (more pixels than Pillow's limit of 89 million).
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _pixels(image, mode, size)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UndecodableError(
            f"it would have more than {Image.MAX_IMAGE_PIXELS:,} pixels"
        ) from None
    except Image.UnidentifiedImageError:
        raise UndecodableError("it is not an image of a known format") from None
    except Exception as error:  # hostile bytes make decoders raise anything
        told = f"{type(error).__name__}: {error}"[:_CLIPPED_CHARS]
        raise UndecodableError(f"it cannot be decoded ({told})") from None


def _pixels(image: Any, mode: str, size: tuple[int, int] | None) -> Pixels:
    from PIL import Image, ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    image = _on_white(_eight_bits(image)).convert(mode)
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    found = np.asarray(image, np.uint8)
    return found.reshape(*found.shape[:2], -1)


def _eight_bits(image: Any) -> Any:
    """Pillow itself would cut 16 bits off at 255 instead of scaling them."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("pixels are floating point numbers, of a range that nobody says")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > _SIXTEEN_BITS):
        raise ValueError("pixels have more than 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_white(image: Any) -> Any:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV") else image
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, seen).convert("RGB")
