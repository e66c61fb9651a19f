"""Decoding of image files to upright 8-bit RGB pixels, within limits."""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins register themselves; Pillow would look for all forty
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageOps,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from errors import InvalidImage, PayloadTooLarge, VisionLoopError

Pixels = NDArray[np.uint8]

# Raster formats only: EPS would start Ghostscript, PDF and MPEG are not images.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

ORIENTATION = 0x0112
_SIDEWAYS = {5, 6, 7, 8}
_SCAN_BUDGET = 3e9  # pixels times scans of a JPEG; an ordinary progressive one has ten scans
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # refused below
_MAX_READS = 20_000  # of a file, and one more a KiB; a photograph's header takes a few dozen
PngImagePlugin.MAX_TEXT_MEMORY = 8 << 20  # bytes of comments unpacked while reading a header
_open = Image.open  # before Ultralytics, if it is imported later, replaces it (utils/patches.py)


class Header(NamedTuple):
    """The facts in an image file's header.

    Attributes:
        width, height: Pixels, after EXIF rotation.
        format: Pillow's name of the format.
        ordinary: An 8-bit JPEG or PNG, whose pixels are the same in every decoder.
    """

    width: int
    height: int
    format: str
    ordinary: bool


def check_header(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height after EXIF rotation, read without decoding.

    Raises:
        InvalidImage: The bytes are not of a supported image format.
        PayloadTooLarge: it has more than `max_pixels` pixels.
    """
    header = read_header(data, max_pixels)
    return header.width, header.height


def read_header(data: bytes, max_pixels: int) -> Header:
    """The header of an image file, read without decoding. Raises as `check_header`."""
    with _refusing():
        image = _open_checked(data, max_pixels)
        width, height = image.size
        # a PNG's own getexif would decode the image to look for EXIF behind it
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        # Pillow has turned a TIFF's size already
        turned = image.format != "TIFF" and exif.get(ORIENTATION) in _SIDEWAYS
        plain = image.format == "JPEG" or (
            image.format == "PNG" and b"eXIf" not in data and data[24:25] == b"\x08"  # bits
        )
        ordinary = plain and image.mode in ("RGB", "RGBA", "L")
        if turned:
            width, height = height, width
        return Header(width, height, str(image.format), ordinary)


def decode(data: bytes, max_pixels: int) -> Pixels:
    """The image as RGB uint8 (h, w, 3), C-contiguous and upright.

    Of animations the first frame. Alpha is dropped, not composited: the colours below it are
    what OpenCV, and so Ultralytics' training, sees. 16-bit channels keep their high byte;
    other deep greys are scaled by the range they use.

    Raises:
        InvalidImage: not an image, unsupported, truncated or corrupt.
        PayloadTooLarge: it has more than `max_pixels` pixels.
    """
    with _refusing():
        image = _open_checked(data, max_pixels)
        if image.format in ("JPEG", "MPO"):  # MPO: several JPEGs in a row, the first counts
            scans = data.count(b"\xff\xda")
            if scans * image.width * image.height > _SCAN_BUDGET:
                raise InvalidImage(f"This JPEG has {scans} scans for its size: not a photograph.")
            if len(data) * 8 * 64 < image.width * image.height:  # a block takes a bit at least
                raise InvalidImage("The image file is truncated: send it again, complete.")
            if _is_plain_jpeg(image, data):
                return _decode_jpeg(data)
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


class _refusing:
    """Turns Pillow's exceptions on hostile or damaged bytes into VisionLoop errors.

    Its plugins raise nearly every built-in exception (SyntaxError, struct.error, ValueError,
    IndexError, ...), so `Exception` is caught, and only around Pillow.
    """

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, VisionLoopError) or not isinstance(error, Exception):
            return
        if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            raise PayloadTooLarge("The image has far more pixels than allowed.") from None
        if isinstance(error, (UnidentifiedImageError, ImportError)):
            raise InvalidImage(
                f"The file is not an image that can be read. Send one of: {', '.join(FORMATS)}."
            ) from None
        if "truncated" in str(error).lower():
            raise InvalidImage("The image file is truncated: send it again, complete.") from None
        raise InvalidImage("The image file is damaged and cannot be decoded.") from None


class _Pieces(io.BytesIO):
    """A file object that limits the number of reads.

    Pillow walks JPEG markers, PNG chunks and the like one by one, in Python and without a limit.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = 0
        self._most = _MAX_READS + len(data) // 1024

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > self._most:
            raise InvalidImage("The image file consists of too many tiny pieces: not a photograph.")
        return super().read(size)


def _open_checked(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise InvalidImage("The image file is empty.")
    # Pillow's own limit, for what plugins allocate beyond the header's size, must not be in the way
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    image = _open(_Pieces(data), formats=FORMATS)
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PayloadTooLarge(
            f"The image has {image.width} × {image.height} = {pixels / 1e6:.0f} million pixels; "
            f"at most {max_pixels / 1e6:g} million are allowed. Scale it down first."
        )
    if pixels == 0:
        raise InvalidImage("The image has no pixels.")
    return image


def _is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    """Whether OpenCV may decode it, in half the time and to the same pixels.

    OpenCV fills what a cut file lacks with grey and says nothing, so only a file that ends
    with the end-of-image marker qualifies; for the others Pillow judges.
    """
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and data.endswith(b"\xff\xd9")
        and image.getexif().get(ORIENTATION, 1) == 1
    )


def _decode_jpeg(data: bytes) -> Pixels:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise InvalidImage("The image file is damaged and cannot be decoded.")
    return pixels.astype(np.uint8, copy=False)


def _to_rgb(image: Image.Image) -> Pixels:
    image.info.pop("transparency", None)
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image) >> 8)
    if image.mode in ("I", "F"):
        return _grey(_deep_grey(np.asarray(image)))
    return np.array(image.convert("RGB"))


def _deep_grey(values: NDArray[Any]) -> NDArray[Any]:
    """Eight bits of 32-bit greys, whose white is not written in the file.

    White is taken as the smallest of 1 (floats), 255, 65535 and the maximum that holds the
    values; below zero is black.
    """
    top = float(np.nanmax(values, initial=0.0, where=np.isfinite(values)))
    steps = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    white = next((step for step in steps if top <= step), top)
    finite = np.nan_to_num(values.astype(np.float32), posinf=white, neginf=0.0)
    return np.rint(np.clip(finite / white, 0, 1) * 255)


def _grey(values: NDArray[Any]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
