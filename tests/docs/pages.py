"""The shell commands of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.serving import ROOT

DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"^(?:<!-- (?P<why>not run[^>]*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SPOKEN = re.compile("not run here", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why no test runs it ("" where one does)."""

    kind: str
    text: str
    why: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["kind"], one["text"], one["why"] or "") for one in found]


def commands(page: Path) -> list[str]:
    """What is run, in order."""
    return [one.text for one in blocks(page) if one.kind == "sh" and not one.why]


PAGES = sorted([*DOCS.glob("tutorial/*.md"), *DOCS.glob("how-to/*.md")])
