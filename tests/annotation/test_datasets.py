"""The store of annotated datasets: one for each source."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from annotation.datasets import AnnotatedDatasets
from annotation.tables import AnnotatedDataset
from errors import DatasetNotFound
from tests.support.annotated import BOX, marked, picture, put


def test_a_source_has_one_dataset(annotated: AnnotatedDatasets) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: annotated.ensure("tool:1", "Name", {"n": i}).id, range(16)))
    assert len(set(found)) == 1
    assert annotated.ensure("tool:2", "Name", {}).id not in found
    with pytest.raises(DatasetNotFound):
        annotated.get("none")


def test_a_deleted_dataset_leaves_no_annotation(
    annotated: AnnotatedDatasets, dataset: AnnotatedDataset
) -> None:
    kept = annotated.ensure("tool:2", "Other", {})
    for owner in (dataset, kept):
        put(annotated, owner.id, "1", picture(1), marked(BOX))
    annotated.delete(dataset.id)
    assert annotated.find("tool:1") is None
    assert (annotated.entries.count(dataset.id), annotated.entries.count(kept.id)) == (0, 1)
