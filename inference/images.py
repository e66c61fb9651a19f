"""Decoding of image files to upright 8-bit RGB pixels, within limits."""

from __future__ import annotations

import io
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (  # each plugin registers itself; Pillow's own search would import all forty
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
from inference.decode_cost import HEAVY, SAVED_BY_SCALING, check_cost, read_by_opencv
from inference.jpeg import AtLeast, dct_scale, is_complete, turned
from models_store.ultralytics_env import pillow_open

Pixels = NDArray[np.uint8]

# Raster formats only: EPS would start Ghostscript; PDF and MPEG are not image formats.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

DECODING = 2
"""Number of the rules by which files become pixels: it is raised when some file becomes others.

Caches on disk and in browsers name it, so that no image of older rules is shown under labels.
"""

ORIENTATION = 0x0112
_SIDEWAYS = {5, 6, 7, 8}
_TURNED = range(2, 9)
_USUAL = (b"\x01\x12\0\x03\0\0\0\x01", b"\x12\x01\x03\0\x01\0\0\0")  # one number of 16 bits
_JPEGS = ("JPEG", "MPO")  # MPO: several JPEGs in one file; the first is used
# The flags named COLOR stand for BGR and exclude RGB; those named GRAYSCALE are the scale alone.
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # refused below
_MAX_READS = 20_000  # reads per file, plus one per KiB; a photograph's header takes a few dozen
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it logs damaged files
PngImagePlugin.MAX_TEXT_MEMORY = 8 << 20  # maximum bytes of decompressed text chunks in a header
# Pillow holds the interpreter's lock while it decodes one block, which may be a thousandth of its
# pixels, and while it converts one image.
_BLOCK = 4096  # bytes
_STRIP = 2**20  # pixels


class Header(NamedTuple):
    """The properties of an image, read from its file's header.

    Attributes:
        width, height: Size in pixels, after EXIF rotation.
        format: Pillow's name of the format.
        ordinary: Whether it is an 8-bit JPEG or PNG, which every decoder decodes to the same
            pixels.
        seconds: Estimated CPU time of decoding it at full size.
        orientation: EXIF orientation, 1 to 8; another number means 1.
    """

    width: int
    height: int
    format: str
    ordinary: bool
    seconds: float
    orientation: int = 1

    def heavy(self, at_least: AtLeast | None = None) -> bool:
        """Whether decoding takes so long that the image waits in a queue of its own.

        `at_least`: as for `decode_at_least`.
        """
        saved = 0.0
        if at_least is not None and self.format in _JPEGS:
            size = at_least(self.width, self.height)
            if dct_scale(self.width, self.height, self.orientation, size) > 1:
                saved = SAVED_BY_SCALING * 1e-9 * self.width * self.height
        return self.seconds - saved > HEAVY


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image, perhaps smaller than it is.

    Attributes:
        pixels: RGB uint8 (h, w, 3), C-contiguous and upright.
        width, height: Size of the full image, upright.
        scale: 1, 2, 4 or 8: the side, in pixels of the full image, of what a pixel covers. The
            last row and column may reach beyond the edge of the full image.
    """

    pixels: Pixels
    width: int
    height: int
    scale: int = 1

    @classmethod
    def full(cls, pixels: Pixels) -> DecodedImage:
        """An image whose pixels are all there, RGB (h, w, 3)."""
        return cls(pixels, pixels.shape[1], pixels.shape[0])


def check_header(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height after EXIF rotation, read without decoding.

    Raises:
        InvalidImage: The bytes are not of a supported image format.
        PayloadTooLarge: The image has more than `max_pixels` pixels, or takes too long to decode.
    """
    header = read_header(data, max_pixels)
    return header.width, header.height


def read_header(data: bytes, max_pixels: int) -> Header:
    """The header of an image file, read without decoding. Raises as `check_header`."""
    with _refusing():
        image, seconds = _open_checked(data, max_pixels)
        width, height = image.size
        orientation = _orientation(image, data)
        plain = image.format == "JPEG" or (
            image.format == "PNG" and data[24:25] == b"\x08"  # bit depth
        )
        ordinary = (
            plain
            and image.mode in ("RGB", "RGBA", "L")
            and _turned_by_all(image, data, orientation)
        )
        if orientation in _SIDEWAYS:
            width, height = height, width
        return Header(width, height, str(image.format), ordinary, seconds, orientation)


def decode(data: bytes, max_pixels: int) -> Pixels:
    """The full image as RGB uint8 (h, w, 3), C-contiguous and upright.

    For an animation, its first frame. The alpha channel is dropped, not composited, as OpenCV does
    and therefore Ultralytics' training. Of 16-bit greyscale the high byte is kept; 32-bit greyscale
    is scaled, see `_deep_grey`.

    Raises:
        InvalidImage: The file is not an image, not supported, truncated or corrupt.
        PayloadTooLarge: The image has more than `max_pixels` pixels, or takes too long to decode.
    """
    return decode_at_least(data, max_pixels, None).pixels


def decode_at_least(data: bytes, max_pixels: int, at_least: AtLeast | None) -> DecodedImage:
    """The image, decoded as by `decode`; a JPEG at the largest DCT scale that suffices.

    Args:
        data: The image file.
        max_pixels: Maximum number of pixels of the full image.
        at_least: Called with the width and height of the full, upright image; returns those that
            the decoded pixels must not be below. None: the full image.

    Raises:
        InvalidImage, PayloadTooLarge: As `decode`, whatever the scale.
    """
    with _refusing():
        image, _ = _open_checked(data, max_pixels)
        if image.format in _JPEGS:
            if len(data) * 8 * 64 < image.width * image.height:  # at least a bit per block
                raise InvalidImage("The image file is truncated. Send the complete file.")
            return _decode_jpeg(image, data, at_least)
        if image.format == "JPEG2000" and read_by_opencv(image, data):
            pixels = _by_opencv(data)
        else:
            image.decodermaxblock = _BLOCK  # type: ignore[attr-defined]
            orientation = _orientation(image, data)
            pixels = turned(_to_rgb(image), orientation)
        return DecodedImage.full(pixels)


def _decode_jpeg(image: Image.Image, data: bytes, at_least: AtLeast | None) -> DecodedImage:
    """Decode an opened JPEG.

    OpenCV decodes it to the same pixels as Pillow in half the time. But it fills the missing part
    of a truncated or damaged file with grey and reports no error. So Pillow decodes, and usually
    refuses, a file that is not complete; and it decodes CMYK.
    """
    orientation = image.getexif().get(ORIENTATION, 1)
    width, height = image.size
    if orientation in _SIDEWAYS:
        width, height = height, width
    scale = 1
    if at_least is not None:
        scale = dct_scale(width, height, orientation, at_least(width, height))
    if image.mode in ("RGB", "L") and is_complete(data):
        pixels = turned(_by_opencv(data, scale), orientation)
    else:
        image.decodermaxblock = _BLOCK  # type: ignore[attr-defined]
        if scale > 1:
            image.draft(None, (image.width // scale, image.height // scale))
        ImageOps.exif_transpose(image, in_place=True)
        pixels = _to_rgb(image)
    if pixels.shape[1] == width:  # a lossless JPEG has no DCT
        scale = 1
    return DecodedImage(pixels, width, height, scale)


def read_plain_jpeg(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Width and height of a JPEG that a GPU may decode; None for any other image.

    That is a complete, upright JPEG in YCbCr colours, with one scan. Raises as `check_header`.
    """
    with _refusing():
        image, _ = _open_checked(data, max_pixels)
        plain = (
            image.format == "JPEG"
            and image.mode == "RGB"
            and data.endswith(b"\xff\xd9")
            and is_complete(data)
            and not image.info.get("progressive")
            and image.info.get("adobe_transform") != 0
            and image.getexif().get(ORIENTATION, 1) == 1
        )
        return image.size if plain else None


def shown_alike(data: bytes, max_pixels: int) -> bool:
    """Whether browsers show an image file as `decode` reads it: its pixels, their place and turn.

    They do with JPEG, PNG and WebP, unless something is in the file that they treat differently.
    Colour profiles are not looked at: browsers apply them, which moves nothing. Raises as
    `check_header`.
    """
    with _refusing():
        image, _ = _open_checked(data, max_pixels)
        if not _turned_by_all(image, data, _orientation(image, data)):
            return False
        if image.format in _JPEGS:
            return image.mode in ("RGB", "L")
        deep = image.format == "PNG" and data[24] > 8  # bits of a value, which Pillow does not tell
        return (
            image.format in ("PNG", "WEBP")
            and not deep
            and image.mode in ("RGB", "L", "P", "1")
            and "transparency" not in image.info
            and not getattr(image, "is_animated", False)
        )


def _orientation(image: Image.Image, data: bytes) -> int:
    """The orientation by which an opened image is turned, 1 to 8; another number means 1.

    Header and pixels must agree on it, whatever of the file has been read by then.
    """
    if image.format == "TIFF":  # Pillow turns it, and has swapped width and height already
        return 1
    if image.format != "PNG":
        return image.getexif().get(ORIENTATION, 1)
    if "exif" not in image.info and (behind := _exif_behind(data)):
        image.info["exif"] = behind
    # PngImageFile.getexif would decode the image, to find what is stored behind the pixels
    return Image.Image.getexif(image).get(ORIENTATION, 1)


def _exif_behind(data: bytes) -> bytes | None:
    """The EXIF data of a PNG that stands behind its pixels, where ImageMagick writes it."""
    at = data.rfind(b"eXIf")
    if at < 0:
        return None
    end = at + 4 + int.from_bytes(data[at - 4 : at])
    is_part = zlib.crc32(data[at:end]).to_bytes(4) == data[end : end + 4]
    return data[at + 4 : end] if is_part else None


def _turned_by_all(image: Image.Image, data: bytes, orientation: int) -> bool:
    """Whether browsers and OpenCV turn an image as `_orientation` says.

    Pillow finds an orientation in more places than they do: in XMP, and in EXIF in a text of a PNG.
    """
    if image.format in _JPEGS:
        exif = image.info.get("exif", b"")
        return orientation not in _TURNED or any(entry in exif for entry in _USUAL)
    return orientation not in _TURNED and b"eXIf" not in data


class _refusing:
    """Context that converts Pillow's exceptions on malicious or damaged files to VisionLoop errors.

    Pillow's plugins raise many built-in exceptions (SyntaxError, struct.error, ValueError,
    IndexError, ...), so every `Exception` is converted. Use it around calls of Pillow only.
    """

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, VisionLoopError) or not isinstance(error, Exception):
            return
        if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            raise PayloadTooLarge(
                "The image has far more pixels than allowed. Scale it down, or ask the operator "
                "to raise VISIONLOOP_MAX_PIXELS."
            ) from None
        if isinstance(error, (UnidentifiedImageError, ImportError)):
            raise InvalidImage(
                f"The file is not an image that can be read. Send one of: {', '.join(FORMATS)}."
            ) from None
        if "truncated" in str(error).lower():
            raise InvalidImage("The image file is truncated. Send the complete file.") from None
        raise InvalidImage("The image file is damaged and cannot be decoded.") from None


class _Pieces(io.BytesIO):
    """A file object that limits the number of reads.

    Pillow reads JPEG markers, PNG chunks and similar parts one by one, in Python and without a
    limit on their number.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = 0
        self._most = _MAX_READS + len(data) // 1024

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > self._most:
            raise InvalidImage(
                "The image file consists of too many small parts. Save the image again with an "
                "image editor."
            )
        return super().read(size)


def _open_checked(data: bytes, max_pixels: int) -> tuple[Image.Image, float]:
    """The opened image, not decoded, and the estimated seconds of decoding it."""
    if not data:
        raise InvalidImage(
            "The image file is empty. Send the file itself; with curl: -F image=@photo.jpg"
        )
    # Pillow's own limit, which plugins check when they allocate more than the header states, must
    # not be lower than ours
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    image = pillow_open(_Pieces(data), FORMATS)
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PayloadTooLarge(
            f"The image has {image.width} × {image.height} = {pixels / 1e6:.0f} million pixels; "
            f"at most {max_pixels / 1e6:g} million are allowed. Scale it down first."
        )
    if pixels == 0:
        raise InvalidImage("The image has no pixels. Save it again with an image editor.")
    return image, check_cost(image, data, max_pixels)


def _by_opencv(data: bytes, scale: int = 1) -> Pixels:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[scale]
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
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _deep_grey(values: NDArray[Any]) -> NDArray[Any]:
    """32-bit greyscale values, scaled to 0 to 255; the file does not state the value of white.

    White is assumed to be the smallest of 1 (floats only), 255, 65535 and the largest value that is
    not below any value of the image. Negative values become black.
    """
    top = float(np.nanmax(values, initial=0.0, where=np.isfinite(values)))
    steps = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    white = next((step for step in steps if top <= step), top)
    finite = np.nan_to_num(values.astype(np.float32), posinf=white, neginf=0.0)
    return np.rint(np.clip(finite / white, 0, 1) * 255)


def _grey(values: NDArray[Any]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
