"""JPEG decoding on the device by nvJPEG, and whether it is faster there than on the host.

A CPU has no such decoder; there torchvision's decoder on the host stands in for it in the tests.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from cores import cpu_count

log = logging.getLogger("visionloop.inference")

SAMPLE = (1024, 768)  # width and height of the image that is measured
COPIES = 16  # of it, decoded at once
FASTER = 1.25  # times that the device must be faster, as its time is taken from the networks
LEVELS = 2.0  # mean difference from the host's decoder, in levels of 0 to 255, that is no fault


def decode_each(jpegs: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """The images (3, h, w) uint8 on the device; None for a file that it cannot decode."""
    files = [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in jpegs]
    try:
        return list(_decode(files, device))
    except RuntimeError:  # says not of which file
        return [_decode_one(file, device) for file in files]


def _decode_one(file: Tensor, device: torch.device) -> Tensor | None:
    try:
        return _decode([file], device)[0]
    except RuntimeError:
        return None


def _decode(files: list[Tensor], device: torch.device) -> list[Tensor]:
    with warnings.catch_warnings():
        # torchvision 0.29 announces that TorchCodec, no requirement of ours, will replace it
        warnings.simplefilter("ignore")
        return decode_jpeg(files, ImageReadMode.RGB, device=device)


@cache
def pays_here(device: torch.device) -> bool:
    """What `pays` found, measured once in a process."""
    return pays(device)


def pays(device: torch.device) -> bool:
    """Whether the device decodes faster than all cores of the host, and the same; measured here."""
    blobs = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    picture = cv2.resize(blobs, SAMPLE, interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", picture)[1].tobytes()

    def on_host() -> Tensor:
        flat = np.frombuffer(data, np.uint8)
        return torch.from_numpy(cv2.imdecode(flat, cv2.IMREAD_COLOR_RGB))

    def on_device() -> None:
        found = decode_each([data] * COPIES, device)
        assert found[0] is not None
        found[0].flatten()[0].item()  # waits for the device

    try:
        found = decode_each([data], device)[0]
        if found is None:
            return False
        difference = (found.cpu().permute(1, 2, 0).float() - on_host().float()).abs().mean().item()
        if difference > LEVELS:
            log.warning("JPEGs decoded on %s differ by %.1f levels: not used", device, difference)
            return False
        with ThreadPoolExecutor(cpu_count()) as pool:
            host = _seconds(lambda: list(pool.map(lambda _: on_host(), range(COPIES))))
        taken = _seconds(on_device)
    except Exception:  # a torchvision without nvJPEG, or a driver's fault
        log.exception("JPEGs cannot be decoded on %s", device)
        return False
    milliseconds = 1000 / COPIES
    log.info(
        "A JPEG of %d × %d takes %.2f ms on %s and %.2f ms on the host",
        *SAMPLE, taken * milliseconds, device, host * milliseconds,
    )  # fmt: skip
    return host > FASTER * taken


def _seconds(work: Callable[[], object], runs: int = 3) -> float:
    """The shortest time of some runs, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
