"""The suffix of an image file follows its content."""

from __future__ import annotations

import pytest

from dataset.image_files import suffix_of
from errors import InvalidImage
from tests.support.annotated import picture


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("BMP", ".bmp"), ("WEBP", ".webp"), ("TIFF", ".tif")],
)
def test_files_are_named_by_what_they_are(kind: str, suffix: str) -> None:
    assert suffix_of(picture(1, kind)) == suffix


def test_a_format_that_trainers_do_not_read_is_refused() -> None:
    with pytest.raises(InvalidImage):
        suffix_of(picture(1, "GIF"))
