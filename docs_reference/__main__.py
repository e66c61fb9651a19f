"""`python -m docs_reference`: writes docs/reference/ anew; `make reference` runs it."""

from __future__ import annotations

import sys

from docs_reference.pages import FOLDER, pages


def main() -> int:
    """Writes every generated page; returns the exit code."""
    for name, text in pages().items():
        FOLDER.joinpath(name).write_text(text, encoding="utf-8")
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
