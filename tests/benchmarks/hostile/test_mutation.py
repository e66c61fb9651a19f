from __future__ import annotations

from random import Random

import pytest

from benchmarks.hostile.corpus import VARIANTS, empty_png, encoded, photograph
from benchmarks.hostile.mutation import KINDS, mutated
from inference.images import check_header, decode


def test_changes_follow_chance_alone() -> None:
    data = bytes(range(256)) * 4
    assert mutated(data, Random(1)) == mutated(data, Random(1))
    assert len({mutated(data, Random(seed)) for seed in range(50)}) > 45


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_a_file_of_a_byte_can_be_changed(kind: object) -> None:
    for seed in range(30):
        assert isinstance(mutated(b"x", Random(seed)), bytes)


@pytest.mark.parametrize(("kind", "mode", "options"), VARIANTS)
def test_every_variant_is_an_image_that_the_service_reads(
    kind: str, mode: str, options: dict[str, object]
) -> None:
    data = encoded(photograph(96, 80), kind, mode, **options)
    assert decode(data, 50_000_000).shape == (80, 96, 3)


def test_the_empty_png_is_small_for_its_pixels() -> None:
    data = empty_png(2000, 1000)
    assert len(data) < 2000 * 1000 // 200
    assert check_header(data, 50_000_000) == (2000, 1000)
