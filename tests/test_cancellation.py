"""Python 3.11's asyncio.wait_for forgets a cancellation that comes together with the result."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("api", "formats", "inference", "models_store", "training")


def test_nothing_of_ours_waits_with_wait_for() -> None:
    """A task that is stopped at such a moment goes on, and who stops it waits for ever."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    found = [str(path) for path in files if re.search(r"asyncio\.wait_for\(", path.read_text())]
    assert len(files) > 100
    assert not found, "Use `async with asyncio.timeout(seconds):` instead."
