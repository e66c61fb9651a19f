"""Evaluations by what clients name them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from dataset.store import DatasetStore
from errors import NotFound, ValidationFailed
from evaluation.lookup import EvaluationQuery, find_evaluation
from evaluation.store import EvaluationRow, EvaluationStore
from evaluation.submission import EvaluationStores
from jobs.store import JobStore
from models_store.registry import Registry
from tests.support.small_models import make_model


def test_an_evaluation_is_found_by_a_unique_beginning_of_its_id(
    registry: Registry, tmp_path: Path
) -> None:
    make_model(tmp_path, "detect")
    model = registry.publish(tmp_path, "shapes", {"kind": "import"})
    stores = EvaluationStores(
        registry,
        DatasetStore(registry.settings),
        EvaluationStore(registry.database),
        JobStore(registry.database),
    )
    first, second = "3f6c" + "0" * 28, "3f6d" + "0" * 28
    for row_id in (first, second):
        with registry.database.write() as session:
            session.add(
                EvaluationRow(
                    id=row_id,
                    name=model.name,
                    version=model.version,
                    dataset="d",
                    dataset_path="/d",
                    fingerprint="f",
                    split="val",
                    figures={},
                )
            )

    def found(evaluation: str) -> str:
        return find_evaluation(stores, model.id, EvaluationQuery(evaluation=evaluation)).id

    assert found("3f6c") == found("3F6C0") == found(first) == first
    assert found("") == found("3f6d") == second
    with pytest.raises(NotFound, match="no such evaluation"):
        found("3f6")
    with pytest.raises(NotFound, match="no such evaluation"):
        found("3f6e")
    with registry.database.write() as session:
        row = session.scalars(select(EvaluationRow).where(EvaluationRow.id == second)).one()
        row.id = "3f6c" + "1" * 28
    with pytest.raises(ValidationFailed, match=f"2 evaluations begin with '3f6c': .*{first}"):
        found("3f6c")
