"""`python -m docs_reference`: writes docs/reference/ anew; `make reference` runs it.

With a file's name it writes the OpenAPI document there instead, of which the console's client is
generated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from docs_reference.pages import FOLDER, pages
from docs_reference.rest_pages import described


def main(arguments: Sequence[str]) -> int:
    """Writes every generated page, or the OpenAPI document; returns the exit code."""
    if arguments:
        Path(arguments[0]).write_text(json.dumps(described(), indent=1), encoding="utf-8")
        return 0
    for name, text in pages().items():
        FOLDER.joinpath(name).write_text(text, encoding="utf-8")
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
