"""Measures how much bulk annotation slows `/infer`: `python -m benchmarks.annotation_interference`.

One server with the starter detector gets drawn street scenes at `/infer`, one request at a time:
first while it is otherwise idle, then while clients annotate images without a pause, then idle
again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from benchmarks.http_load import BOUNDARY, LoadResult, drive, form
from benchmarks.server import PYTHON, free_port, serving
from benchmarks.serving import pictures
from shell import Parser

WARM = 5.0  # seconds


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=40, help="duration of each measurement in seconds (40)"
    )
    parser.add_argument(
        "--clients", type=int, default=4, help="number of clients that annotate at once (4)"
    )
    parser.add_argument(
        "--tiles",
        default="auto",
        help="tiles of the annotation requests: auto, off or 2 to 8 (auto)",
    )
    parser.add_argument(
        "--images", type=Path, help="folder of JPEGs to send; default: drawn street scenes"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visionloop-interference-") as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    images = pictures(options.images)
    bodies = [form(image) for image in images]
    fields = {"tool": "object_detection", "tiles": options.tiles}
    bulk = [with_fields(body, fields) for body in bodies]
    env = {"VISIONLOOP_HOME": str(folder / "home"), "BENTOML_HOME": str(folder / "bento")}
    env |= {"BENTOML_DO_NOT_TRACK": "true"}
    port = free_port()
    command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
    with serving(command, port, folder / "log.txt", "/readyz", env) as server:
        infer, annotate = f"{server.url}/infer", f"{server.url}/api/auto_annotate"
        asyncio.run(drive(infer, bodies, 1, WARM))
        asyncio.run(drive(annotate, bulk, 1, WARM))
        rows = {"idle": asyncio.run(drive(infer, bodies, 1, options.seconds))}

        async def both() -> tuple[LoadResult, LoadResult]:
            annotating = asyncio.create_task(
                drive(annotate, bulk, options.clients, options.seconds + WARM)
            )
            await asyncio.sleep(WARM / 2)  # the queue fills
            asked = await drive(infer, bodies, 1, options.seconds)
            return asked, await annotating

        rows["while annotating"], rows["the annotations"] = asyncio.run(both())
        rows["idle again"] = asyncio.run(drive(infer, bodies, 1, options.seconds))
    report(rows, options)


def with_fields(body: bytes, fields: dict[str, str]) -> bytes:
    """The body of a multipart form with text fields added before its file."""
    parts = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return parts.encode() + body


def report(rows: dict[str, LoadResult], options: argparse.Namespace) -> None:
    print(f"{os.cpu_count()} cores, {options.clients} annotating clients, tiles {options.tiles}")
    print("\n| | requests/s | p50 ms | p99 ms | errors |\n|---|--:|--:|--:|--:|")
    for name, row in rows.items():
        cells = f"{row.rate:.1f} | {row.percentile(50):.0f} | {row.percentile(99):.0f}"
        print(f"| {name} | {cells} | {len(row.errors)} |")
    idle, busy = rows["idle"], rows["while annotating"]
    ratios = [busy.percentile(q) / idle.percentile(q) for q in (50, 99)]
    print(f"\nwhile annotating / idle: p50 {ratios[0]:.2f}, p99 {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
