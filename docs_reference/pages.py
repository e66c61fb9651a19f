"""The generated pages by file name."""

from __future__ import annotations

from pathlib import Path

from docs_reference import (
    command_pages,
    error_page,
    format_page,
    metric_page,
    rest_pages,
    scope_page,
    state_page,
)
from docs_reference.settings_page import settings_page

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Generated from the code by `make reference`: change the code, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """File name in docs/reference → its text. The same on every machine and Python."""
    described = rest_pages.described()
    made = {
        "settings.md": settings_page(),
        "rest.md": rest_pages.calls(described),
        "schemas.md": rest_pages.schemas(described),
        "scopes.md": scope_page.scopes(described),
        "commands.md": command_pages.commands(),
        "metrics.md": metric_page.metrics(),
        "states.md": state_page.states(),
        "errors.md": error_page.errors(),
        "formats.md": format_page.formats(),
    }
    return {name: NOTE + text.rstrip() + "\n" for name, text in made.items()}
