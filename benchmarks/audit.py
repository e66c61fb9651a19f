"""Looks up the known vulnerabilities of every locked package: `make audit`.

pip-audit asks the vulnerability service of PyPI or that of OSV. A package for which the service
gave no answer is listed as not checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from shell import Parser

LOCK = Path(__file__).parents[1] / "requirements.lock"


def report(packages: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Read pip-audit's JSON.

    Returns:
        A line for each known vulnerability; and lines about the packages that were not checked.
    """
    found, unchecked = [], []
    skipped = [str(p["skip_reason"]) for p in packages if "skip_reason" in p]
    reasons = Counter(reason.partition(":")[0] for reason in skipped)
    for package in packages:
        if "skip_reason" in package:
            unchecked.append(package["name"])
        for known in package.get("vulns", ()):
            fixed = ", ".join(known["fix_versions"]) or "no version yet"
            name = f"{package['name']} {package['version']}"
            found.append(f"{name}: {known['id']}; mended in {fixed}")
    lines = [f"{reason}: {count} packages" for reason, count in reasons.items()]
    return found, [*lines, *unchecked]


def main() -> int:
    parser = Parser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Exit codes: 0: no known vulnerability; 1: known vulnerabilities; 2: packages were "
        "not checked.",
    )
    parser.add_argument("--pip-audit", required=True, help="path of the command pip-audit")
    parser.add_argument(
        "--service",
        choices=("pypi", "osv"),
        default="pypi",
        help="vulnerability service to ask (pypi)",
    )
    options = parser.parse_args()
    command = [options.pip_audit, "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--vulnerability-service", options.service]
    command += ["--progress-spinner", "off"]
    answer = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(answer.stdout)["dependencies"]
    except ValueError:
        print(answer.stderr[-2000:], file=sys.stderr)
        return 2
    found, unchecked = report(packages)
    checked = sum("skip_reason" not in package for package in packages)
    print(
        f"{len(packages)} packages of {LOCK.name}, {checked} of them checked: "
        f"{len(found)} known vulnerabilities."
    )
    print("\n".join(found))
    if unchecked:
        print("NOT CHECKED:", "; ".join(unchecked))
    return 1 if found else 2 if unchecked else 0


if __name__ == "__main__":
    sys.exit(main())
