from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.full_disk import small_disk
from training import data_workers
from training.data_workers import data_workers as workers

MIB = 2**20


@pytest.mark.parametrize(
    ("cores", "batch", "expected"),
    [(1, MIB, 0), (2, MIB, 0), (4, MIB, 2), (64, MIB, 8), (64, 4 * MIB, 2), (64, 20 * MIB, 0)],
)
def test_their_batches_fit_into_the_shared_memory_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, batch: int, expected: int
) -> None:
    with small_disk(tmp_path / "shm", 64) as folder:
        monkeypatch.setattr(data_workers, "SHARED_MEMORY", folder)
        assert workers(cores, batch) == expected


def test_without_such_a_folder_only_the_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_workers, "SHARED_MEMORY", tmp_path / "none")
    assert workers(8, 10**12) == 6
