"""Measures the seconds from the start command to the first answer, and each process's memory.

Starts the service twice with the same temporary VISIONLOOP_HOME and BENTOML_HOME, which are empty
at first: only the first start imports the starter models. `python -m benchmarks.startup`
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.server import PYTHON, ROOT, free_port, serving
from shell import Parser


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--image",
        type=Path,
        default=ROOT / "docs" / "street_scene.jpg",
        help="image that is sent to /infer (docs/street_scene.jpg)",
    )
    image = parser.parse_args().image.read_bytes()

    with tempfile.TemporaryDirectory(prefix="visionloop-startup-") as folder:
        home = Path(folder)
        env = {"VISIONLOOP_HOME": str(home / "home"), "BENTOML_HOME": str(home / "bento")}
        for name in ("bento", "home"):
            (home / name).mkdir()
        for title in ("first start, starter models imported", "second start"):
            port = free_port()
            command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop"]
            command += ["--port", str(port)]
            with serving(command, port, home / "log.txt", "/readyz", env) as server:
                ready = time.perf_counter() - server.started
                answer = httpx.post(server.url + "/infer", files={"image": image}, timeout=60)
                answered = time.perf_counter() - server.started
                answer.raise_for_status()
                found = len(answer.json()["predictions"])
                print(f"{title}: ready {ready:.1f} s, first answer {answered:.1f} s, {found} boxes")
                for name, mebibytes in server.memory():
                    print(f"  {mebibytes:6.0f} MiB  {name}")


if __name__ == "__main__":
    main()
