"""Measures the cost of decoding: `python -m benchmarks.hostile.decode_cost [--side PIXELS]`.

For each format, prints the measured CPU time per pixel in nanoseconds, and the time that
`inference.decode_cost` estimates: for a photograph, an image of one colour and noise. An estimate
should not be far below the measured time.
"""

from __future__ import annotations

import time

import numpy as np
from PIL import Image

from benchmarks.cpu import cpu
from benchmarks.hostile.corpus import VARIANTS, encoded, photograph
from inference.images import decode, read_header
from shell import Parser

MOST = 10**9


def main() -> None:
    parser = Parser(prog=__name__, description=__doc__)
    parser.add_argument(
        "--side", type=int, default=1500, help="side of the square images in pixels (1500)"
    )
    side = parser.parse_args().side
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    contents = {
        "photograph": photograph(side, side),
        "one colour": Image.new("RGB", (side, side), (10, 20, 30)),
        "noise": Image.fromarray(noise),
    }
    print(f"CPU: {cpu()}; nanoseconds per pixel, measured / estimated")
    for kind, mode, options in VARIANTS:
        cells = []
        for name, image in contents.items():
            data = encoded(image, kind, mode, **options)
            began = time.process_time()
            decode(data, MOST)
            measured = (time.process_time() - began) / side**2 * 1e9
            estimated = read_header(data, MOST).seconds / side**2 * 1e9
            cells.append(f"{name} {measured:6.1f} / {estimated:6.1f}")
        print(f"{kind:9}{mode:6}{str(options)[:58]:60}{'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
