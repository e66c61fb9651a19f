"""Lets schemathesis call every route of a server with tokens for ten minutes: `make test-api`.

All checks of schemathesis run, in all its phases, including the stateful phase, with two
exceptions. The check that every request that conforms to the schema is accepted is off, because no
schema can say that bytes are an image. For forms, the check that every other request is refused is
off as well. The exit code is that of schemathesis, or 1 if a process of the server died.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cpu import cpu
from benchmarks.server import PYTHON
from benchmarks.stress.server import Service
from shell import Parser

TOKENS = {"VISIONLOOP_TOKEN": "for-use", "VISIONLOOP_ADMIN_TOKEN": "for-administration"}

# In a form every value is text: `0` is read as false, and `null` as a missing value, so requests
# that violate the schema may be valid. In JSON, too, 0 and 1 are read as false and true.
CHECKS = "[checks]\npositive_data_acceptance.enabled = false\n" + "".join(
    f"""
[[operations]]
include-name = "POST {path}"
checks.negative_data_rejection.enabled = false
"""
    for path in (
        "/infer",
        "/predict",
        "/annotate",
        "/api/auto_annotate",
        "/api/auto_annotate/batch",
        "/models/{model_id}/promote",
        "/api/datasets",
        "/api/datasets/{dataset_id}/images",
    )
)
# A stream of events does not end.
CHECKS += """
[[operations]]
include-name = "GET /events"
enabled = false
"""


def main() -> int:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=10, help="duration of the test in minutes (10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of schemathesis (0)")
    options = parser.parse_args()
    print(f"CPU: {cpu()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="visionloop-schema-") as folder:
        service = Service(Path(folder), TOKENS)
        try:
            service.start()
            before = {name: process.pid for name, process in service.services().items()}
            command = [str(Path(PYTHON).with_name("schemathesis")), "run"]
            command.append(f"{service.url}/openapi.json")
            command += ["--header", f"Authorization: Bearer {TOKENS['VISIONLOOP_ADMIN_TOKEN']}"]
            command += ["--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
            command += ["--max-time", str(round(60 * options.minutes)), "--seed", str(options.seed)]
            command += ["--request-timeout", "60", "--workers", "2", "--no-color"]
            Path(folder, "schemathesis.toml").write_text(CHECKS)
            limit = 60 * options.minutes + 600
            code = subprocess.run(command, cwd=folder, timeout=limit).returncode
            after = {name: process.pid for name, process in service.services().items()}
            if before != after:
                print(f"A process died. Process ids before: {before}; now: {after}.")
                print(service.log.read_text(errors="replace")[-3000:])
                return 1
            return code
        finally:
            service.stop()


if __name__ == "__main__":
    sys.exit(main())
