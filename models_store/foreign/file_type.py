"""Detection of files that are not checkpoints, by their first bytes, for a helpful refusal."""

from __future__ import annotations

import zipfile
from pathlib import Path

from errors import InvalidModelFile
from zip_bounds import ZipRefused, open_zip

LFS = b"version https://git-lfs"
MOST_ENTRIES = 100_000  # maximum number of entries of a checkpoint; each tensor has one
SIGNATURES = {
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file (Keras?)",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
}


def check_checkpoint(path: Path) -> None:
    """Refuse a file that cannot be a PyTorch checkpoint, and say what it is.

    Raises:
        InvalidModelFile: Empty, a Git LFS pointer, truncated, text, ….
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InvalidModelFile(f"The file cannot be read: {error.strerror or error}.") from error
    if size == 0:
        raise InvalidModelFile("The file is empty (0 bytes). Download or copy it again.")
    if head.startswith(LFS):
        raise InvalidModelFile(
            "The file is a Git LFS pointer and not the weights. Download the weights with `git "
            "lfs pull`."
        )
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
    elif head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return  # a pickle: torch's format before 1.6, or another pickle
    else:
        raise InvalidModelFile(f"The file is not a PyTorch checkpoint, but {_kind(head)}.")


def _check_zip(path: Path, size: int) -> None:
    try:
        with open_zip(path, MOST_ENTRIES) as archive:
            names = archive.namelist()
    except ZipRefused as error:
        raise InvalidModelFile(f"Not a PyTorch checkpoint: {error}") from None
    except (zipfile.BadZipFile, OSError, ValueError):
        raise InvalidModelFile(
            f"The checkpoint is truncated after {size:,} bytes. Download or copy it again."
        ) from None
    if "manifest.json" in names and "model.safetensors" in names:
        raise InvalidModelFile(
            "The file is an exported model archive. Import it with import-archive."
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise InvalidModelFile(
            "The file is not a PyTorch checkpoint, but an ordinary zip archive. Import the .pt "
            "inside it."
        )


def _kind(head: bytes) -> str:
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[8:10] == b'{"':
        return "safetensors (weights without an architecture)"
    if head[:1] == b"\x08" and any(word in head for word in (b"pytorch", b"onnx", b"ONNX")):
        return "an ONNX model; import the .pt checkpoint that it was exported from"
    lowered = head.lstrip().lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        return "a web page (a failed download?)"
    if head[257:262] == b"ustar":
        return "a tar archive"
    try:
        head[:4090].decode("utf-8")
    except UnicodeDecodeError:
        return "of an unknown format"
    return "a text file"
