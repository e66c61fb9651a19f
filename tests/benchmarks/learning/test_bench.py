from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning.bench import Bench, Figures


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def accuracy(folder: Path) -> Figures:
    assert folder.is_dir()
    return {"accuracy": 0.5}


def never(folder: Path) -> Figures:
    raise AssertionError("The stored run must be used.")


def test_a_run_on_file_is_not_made_again(bench: Bench) -> None:
    made_with = {"epochs": 8, "shape": (3, 3)}
    first = bench.run("ours-s0", accuracy, made_with)
    again = bench.run("ours-s0", never, made_with)
    assert (again["accuracy"], again["key"], again["at"]) == (0.5, "ours-s0", first["at"])


@pytest.mark.parametrize("now", [{"epochs": 20, "lr0": None}, {"epochs": 8}, {}])
def test_a_run_made_with_other_settings_is_refused(bench: Bench, now: dict[str, object]) -> None:
    bench.run("ours-s0", accuracy, {"epochs": 8, "lr0": None, "batch": 8})
    with pytest.raises(
        SystemExit, match=r"ours-s0\.json was made with settings that are different now: .*batch"
    ):
        bench.run("ours-s0", never, now)


def test_runs_without_a_note_of_their_settings_are_refused(bench: Bench) -> None:
    (bench.folder / "runs" / "ours-s0.json").write_text('{"accuracy": 0.5}')
    with pytest.raises(SystemExit, match="different now: epochs"):
        bench.known("ours-s0", {"epochs": 8})


def test_the_arms_on_file_are_found_with_their_seeds(bench: Bench) -> None:
    for key in ("ours-s10", "ours-s2", "ours-random-s0", "ours:last=1-s1", "teacher"):
        bench.run(key, accuracy, {})
    assert bench.arms == {"ours": [2, 10], "ours-random": [0], "ours:last=1": [1]}
    assert bench.known("alone-s0", {}) is None
