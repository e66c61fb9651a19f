"""Promotions, refusals and rollbacks: what is recorded, and where a rollback leads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from errors import Conflict, ModelNotFound
from models_store.decision_log import DecisionReason
from models_store.registry import Registry
from models_store.tables import Promotion

Publish = Callable[..., str]


def actions(registry: Registry, name: str = "signs") -> list[tuple[str, str]]:
    """The newest last."""
    found = registry.decisions(name)
    return [(row.action, row.version) for row in reversed(found)]


def version(model_id: str) -> str:
    return model_id.partition(":")[2]


def test_rollbacks_lead_further_and_further_back(registry: Registry, publish: Publish) -> None:
    first, second, third = publish(), publish(), publish()
    for model in (first, second, third):
        registry.promote(model)
    assert registry.rollback("signs").id == second
    assert registry.get("signs").id == second
    assert registry.rollback("signs").id == first
    with pytest.raises(Conflict, match="nothing to roll back to"):
        registry.rollback("signs")
    assert registry.get("signs").id == first


def test_a_promotion_after_a_rollback_begins_a_new_way(
    registry: Registry, publish: Publish
) -> None:
    first, second, third = publish(), publish(), publish()
    registry.promote(first)
    registry.promote(second)
    registry.rollback("signs")
    registry.promote(third)
    assert registry.rollback("signs").id == first


def test_promoting_a_version_again_is_no_step(registry: Registry, publish: Publish) -> None:
    first, second = publish(), publish()
    for model in (first, second, second):
        registry.promote(model)
    assert registry.rollback("signs").id == first


def test_nothing_promoted_is_nothing_to_roll_back(registry: Registry, publish: Publish) -> None:
    publish()
    with pytest.raises(Conflict, match="ever promoted"):
        registry.rollback("signs")
    with pytest.raises(ModelNotFound):
        registry.rollback("cats")


def test_a_deleted_version_is_not_rolled_back_to(registry: Registry, publish: Publish) -> None:
    first, second = publish(), publish()
    registry.promote(first)
    registry.promote(second)
    registry.delete(first)
    with pytest.raises(Conflict, match=f"'{first}', was deleted"):
        registry.rollback("signs")
    assert registry.get("signs").id == second


def test_a_rollback_passes_over_a_promoted_version_that_was_deleted(
    registry: Registry, publish: Publish
) -> None:
    first, second, _ = publish(), publish(), publish()
    registry.promote(first)
    registry.promote(second)
    registry.delete(second)
    assert registry.rollback("signs").id == first
    assert actions(registry)[2:] == [("deleted", version(second)), ("rolled_back", version(first))]


def test_a_promotion_older_than_the_record_is_rolled_back_to(
    registry: Registry, publish: Publish
) -> None:
    first, second = publish(), publish()
    with registry.database.write() as session:
        session.add(Promotion(name="signs", version=version(first)))
    registry.promote(second)
    assert registry.rollback("signs").id == first


def test_who_decided_and_why_is_kept(registry: Registry, publish: Publish) -> None:
    first = publish(promote=True)
    second = publish()
    gate = {"metric": "mAP50", "min_gain": 0.1}
    why = DecisionReason(
        "the API",
        ("'stop' fell.",),
        gate,
        {"candidate": "a", "promoted": "b"},
        job_id="j",
        regressed=("stop",),
    )
    registry.refuse(second, why)
    refused, promoted = (row.to_json() for row in registry.decisions("signs"))
    assert refused["at"] > promoted["at"]
    assert refused == {
        "model_id": second,
        "previous": first,
        "action": "refused",
        "by": "the API",
        "reasons": ["'stop' fell."],
        "regressed": ["stop"],
        "forced": False,
        "gate": gate,
        "evaluations": {"candidate": "a", "promoted": "b"},
        "job_id": "j",
        "at": refused["at"],
    }
    assert (promoted["action"], promoted["by"], promoted["previous"]) == (
        "promoted",
        "import",
        None,
    )
    assert registry.get("signs").id == first


def test_a_verdict_on_a_version_that_is_promoted_no_more_does_not_count(
    registry: Registry, publish: Publish
) -> None:
    first, second, third = publish(), publish(), publish()
    registry.promote(first, expected_promoted="")
    registry.promote(second, expected_promoted=version(first))
    for stale in ("", version(first)):
        with pytest.raises(Conflict, match="has changed"):
            registry.promote(third, expected_promoted=stale)
    assert registry.get("signs").id == second
    assert len(actions(registry)) == 2


def test_a_promotion_that_fails_is_not_recorded(
    registry: Registry, publish: Publish, homes: Path
) -> None:
    first = publish()
    other = Registry(registry.database)
    registry.delete(first)
    with pytest.raises(ModelNotFound):
        other.promote(first)
    other.database.close()
    publish()
    assert actions(registry) == []
