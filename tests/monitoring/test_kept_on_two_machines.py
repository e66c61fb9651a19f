"""Kept images of two machines with one object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import NotFound, StoreUnavailable
from monitoring import kept_images
from monitoring.kept_images import KeptImages
from settings import Settings
from storage.object_trees import ObjectTrees
from tests.monitoring.test_kept_images import ANSWER, photo


@pytest.fixture
def machines(
    tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[KeptImages, KeptImages]:
    monkeypatch.setattr(kept_images, "SYNC", 0)
    one, two = (
        KeptImages(Settings(home=tmp_path / name, store_url=store_url, keep_mb=1))
        for name in ("one", "two")
    )
    return one, two


Machines = tuple[KeptImages, KeptImages]


def test_an_image_of_one_machine_is_seen_and_removed_on_the_other(machines: Machines) -> None:
    one, two = machines
    first = one.keep(photo(1), ANSWER, 0.31)
    assert first is not None
    assert two.list("signs:1") == [first]
    assert two.open(first.id) == one.open(first.id) == photo(1)
    assert two.keep(photo(1), ANSWER, 0.3) is None  # a near-duplicate
    two.remove(first.id)
    assert one.list() == []
    for machine in machines:
        with pytest.raises(NotFound):
            machine.open(first.id)
        assert list(machine.folder.iterdir()) == []


def test_the_oldest_are_deleted_on_all_machines_together(machines: Machines) -> None:
    one, two = machines
    kept = [
        machine.keep(photo(n, (500, 400), "BMP"), ANSWER, 0.3)
        for n, machine in ((1, one), (2, two))
    ]
    assert all(kept)
    assert one.list() == two.list() == kept[1:]  # both together exceed 1 MiB


def test_what_is_known_stays_while_the_store_is_away(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    first = one.keep(photo(1), ANSWER, 0.31)
    assert two.list() == [first]

    def unreachable(*_: object) -> None:
        raise StoreUnavailable("The object store cannot be reached.", 10)

    monkeypatch.setattr(ObjectTrees, "list_bytes", unreachable)
    monkeypatch.setattr(ObjectTrees, "put_bytes", unreachable)
    assert two.list() == [first]
    with pytest.raises(StoreUnavailable):
        two.keep(photo(2), ANSWER, 0.31)
    assert two.list() == [first]
