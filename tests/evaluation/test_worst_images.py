"""The drawn images of a report, whatever their sides."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.worst_images import SIDE, class_panel, side_by_side
from inference.images import decode


@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000), (640, 480)])
def test_an_image_longer_than_a_jpeg_is_shown_scaled(size: tuple[int, int]) -> None:
    panel = class_panel(0, ("stop",), size)
    sheet = side_by_side(np.zeros((size[1], size[0], 3), np.uint8), panel, panel)
    assert max(decode(sheet, 10**7).shape[:2]) < 3 * SIDE
