"""Keeps what a bare name means while an unproved version of it is published."""

from __future__ import annotations

from contextlib import suppress

from errors import Conflict, ModelNotFound
from models_store.decision_log import DecisionReason
from models_store.registry import Registry


def keep_current(name: str, registry: Registry, by: str, event: str) -> None:
    """Promote the newest version of a name if none of its versions is promoted.

    Without a promoted version, requests for the name get the newest one. They would get the new
    version as soon as it is published. A version that was refused, as one that has forgotten a
    class, is promoted only if there is no other.

    Args:
        name: Of the model; nothing happens if it has no version.
        registry: Has its versions.
        by: What publishes, as in `DecisionReason`.
        event: What it does, as the end of a sentence: `this training published a newer one`.
    """
    registry.refresh()
    versions = [version for version in registry.list() if version.name == name]
    if not versions or any(version.promoted for version in versions):
        return
    with suppress(Conflict, ModelNotFound):  # promoted or deleted meanwhile
        refused = {one.version for one in registry.decisions(name) if one.action == "refused"}
        current = next((one for one in versions if one.version not in refused), versions[0])
        reason = f"{current.id} was the version of {name!r} before {event}."
        if current.version in refused:
            reason += " It was refused before, but there is no other."
        elif current is not versions[0]:
            reason += " Newer ones were refused."
        registry.promote(current.id, DecisionReason(by, (reason,)), expected_promoted="")
