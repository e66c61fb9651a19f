"""The letterbox of an image that is on the device already."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.preprocess import PAD, Letterbox


def letterbox(image: Tensor, place: Letterbox) -> Tensor:
    """An image (3, h, w) uint8, scaled bilinearly and padded to the frame, (rows, columns, 3).

    OpenCV scales in fixed-point numbers: a pixel of `Letterbox.apply` may be one level off.
    """
    (width, height), (columns, rows) = place.resized, place.frame
    left, top = place.offset
    if image.shape[1:] != (height, width):
        scaled = functional.interpolate(
            image[None].to(torch.float32), (height, width), mode="bilinear", align_corners=False
        )
        image = scaled[0].round_().clamp_(0, 255).to(torch.uint8)
    canvas = torch.full((rows, columns, 3), PAD, dtype=torch.uint8, device=image.device)
    canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas
