"""The scope that every call needs, from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from access.scopes import MEANINGS, ORDER
from docs_reference.markdown import code, table

HEAD = """# Scopes

A token has one scope, which includes those above it. [Secure it](../how-to/secure-it.md) says how
to create tokens. `VISIONLOOP_TOKEN` has the scope `use` if `VISIONLOOP_ADMIN_TOKEN` is set as well,
else `admin`; the latter has `admin`. Without any token the calls are open to all.

"""

TAIL = """
BentoML's own routes `/tasks/train/…` and `/tasks/evaluate/…` need `train`; every other path of the
server, known or not, needs `use`. Inside a call more may be needed: `admin` to cancel the job of
another token, for `"promote": "auto"` of a training or of a Label Studio project; `train` for Label
Studio's event `START_TRAINING`; `annotate` to have `/label-studio/setup` store a configuration.
"""


def scopes(described: Mapping[str, Any]) -> str:
    """What each scope adds, and a table of the calls by scope."""
    calls: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            calls.setdefault(operation.get("x-scope", "none"), []).append(
                f"{method.upper()} {path}"
            )
    rows = [(code(scope), MEANINGS[scope]) for scope in ORDER]
    text = HEAD + table(("scope", "allows"), rows)
    for scope in ORDER:
        text += f"\n## {code(scope)}\n\n" + "".join(f"- {code(c)}\n" for c in calls[scope])
    return text + "\n## No token\n\n" + "".join(f"- {code(c)}\n" for c in calls["none"]) + TAIL
