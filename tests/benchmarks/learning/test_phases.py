from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.learning.phases import cut, track
from dataset.inspection import check
from models_store.description import Task
from synthetic.shapes import SHAPES
from tests.support.shapes import write_shapes


@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize("old", [1, ("triangle", "circle")])
def test_a_phase_labels_its_own_classes_only(
    tmp_path: Path, task: Task, old: int | tuple[str, ...]
) -> None:
    source = write_shapes(tmp_path / "source", task, train=8, val=8, imgsz=32, seed=3)
    whole = check(source, task, [tmp_path])
    phases = cut(source, task, old, tmp_path / "phases")
    before = SHAPES[:old] if isinstance(old, int) else old
    assert phases.old_names == before
    assert set(phases.new_names) == set(SHAPES) - set(before)
    for phase, names in (("old", before), ("new", phases.new_names), ("all", SHAPES)):
        found = phases.read(phase)
        assert found.names == tuple(names)
        for split in ("train", "val"):
            expected = {SHAPES[i]: n for i, n in whole.counts[split].items() if SHAPES[i] in names}
            counted = {found.names[i]: n for i, n in found.counts[split].items() if n}
            assert counted == expected
            assert all(image.resolve() in whole.splits[split] for image in _real(found, split))
            assert all(found.labels[image].read_text() for image in found.splits[split])


def test_a_classifiers_phases_share_no_picture(tmp_path: Path) -> None:
    source = write_shapes(tmp_path / "source", "classify", train=9, val=6, imgsz=32)
    phases = cut(source, "classify", 2, tmp_path / "phases")
    old, new, both = (phases.read(phase) for phase in ("old", "new", "all"))
    assert (old.names, new.names, both.names) == (SHAPES[:2], SHAPES[2:], SHAPES)
    for split in ("train", "val"):
        some, others, all_ = (set(_real(data, split)) for data in (old, new, both))
        assert not some & others
        assert some | others == all_
        assert {image.parent.name for image in others} == {"triangle"}
    assert Counter(both.classes.values()) == Counter({0: 5, 1: 5, 2: 5})


def test_a_cut_is_made_once_and_anew_where_the_classes_change(tmp_path: Path) -> None:
    source = write_shapes(tmp_path / "source", "classify", train=6, val=3, imgsz=32)
    cut(source, "classify", 2, tmp_path / "phases")
    mark = tmp_path / "phases" / "old" / "mark"
    mark.touch()
    cut(source, "classify", 2, tmp_path / "phases")
    assert mark.exists()
    assert cut(source, "classify", 1, tmp_path / "phases").read("old").names == ("circle",)
    assert not mark.exists()
    with pytest.raises(SystemExit, match="The dataset has no class lamp"):
        cut(source, "classify", ["lamp"], tmp_path / "phases")


def _real(dataset: object, split: str) -> list[Path]:
    return [image.resolve() for image in dataset.splits[split]]  # type: ignore[attr-defined]


def test_a_third_split_is_a_half_of_val_and_tracks_stay_whole(tmp_path: Path) -> None:
    source = write_shapes(tmp_path / "source", "classify", train=6, val=24, imgsz=32)
    for number, image in enumerate(sorted((source / "val").glob("*/*"))):
        image.rename(image.with_name(f"{number // 4:02}_{number % 4}{image.suffix}"))
    phases = cut(source, "classify", 2, tmp_path / "phases", halved=True, tracks=True)
    found = phases.read("all")
    assert found.counts["val"] == found.counts["test"] == Counter({0: 4, 1: 4, 2: 4})
    tracks = [{(i.parent.name, track(i)) for i in found.splits[s]} for s in ("val", "test")]
    assert not tracks[0] & tracks[1]
    assert phases.read("old").counts["test"] == Counter({0: 4, 1: 4})


def test_some_new_images_and_some_classes_are_taken(tmp_path: Path) -> None:
    source = write_shapes(tmp_path / "source", "classify", train=30, val=6, imgsz=32)
    kinds = ("triangle",), ("square", "circle")
    phases = cut(source, "classify", kinds[0], tmp_path / "a", new=kinds[1], new_images=5)
    counts = {phase: phases.read(phase).counts["train"] for phase in ("old", "new", "all")}
    assert counts["old"].total() == 10
    assert sorted(counts["new"].values()) == [2, 3]
    assert counts["all"].total() == 15
    assert cut(source, "classify", 1, tmp_path / "b", new=("square",)).read("all").names == (
        "circle",
        "square",
    )


@pytest.mark.parametrize("few", [0, 3])
def test_a_detectors_third_split(tmp_path: Path, few: int) -> None:
    source = write_shapes(tmp_path / "source", "detect", train=12, val=8, imgsz=32)
    phases = cut(source, "detect", 2, tmp_path / "phases", halved=True, new_images=few)
    found = phases.read("all")
    assert not {*_real(found, "val")} & {*_real(found, "test")}
    assert len(found.splits["val"]) == len(found.splits["test"]) == 4
    if few:
        assert len(phases.read("new").splits["train"]) == few
