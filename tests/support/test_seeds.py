"""Chance has one owner, and what a test drew does not depend on what ran before it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support import seeds
from tests.support.patience import PATIENCE
from tests.support.small_models import small_description, write_model

TESTS = Path(__file__).parents[1]
OWNERS = ("seeds.py", "process_state.py", Path(__file__).name)
UNOWNED = re.compile(
    r"default_rng\((?!rng)|RandomState\(|random\.seed\(|random\.Random\(\)"
    r"|manual_seed\((?!derived|self\.|recipe)"
)


def test_no_test_has_a_seed_of_its_own() -> None:
    files = [path for path in TESTS.rglob("*.py") if path.name not in OWNERS]
    found = [
        f"{path.relative_to(TESTS)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if UNOWNED.search(line)
    ]
    assert len(files) > 100
    assert not found, "Take rng(), derived() or drawing() of tests/support/seeds.py instead."


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "20001", "٣"])
def test_a_seed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TEST_SEED"):
        seeds.read(text)


def test_places_and_runs_have_chances_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for seed in (0, 1):
        monkeypatch.setattr(seeds, "SEED", seed)
        drawn += [seeds.rng(*place).random() for place in ((1,), (2,), (1, 1), (1, 2))]
        assert seeds.rng(1).random() == drawn[4 * seed]
        assert seeds.derived(seeds.PLACES - 1) < 2**31
    assert len(set(drawn)) == len(drawn)
    monkeypatch.setattr(seeds, "SEED", seeds.LARGEST)
    assert seeds.derived(seeds.PLACES - 1) < 2**31


def test_a_network_is_the_same_whatever_was_drawn_before(tmp_path: Path) -> None:
    for name in ("first", "again"):
        torch.rand(7)
        before = torch.random.get_rng_state()
        write_model(tmp_path / name, small_description("classify"), seed=3)
        assert torch.equal(torch.random.get_rng_state(), before)
    one, other = (tmp_path / name / "model.safetensors" for name in ("first", "again"))
    assert one.read_bytes() == other.read_bytes()


CHECK = """
import random
import numpy as np
import pytest
import torch

@pytest.mark.parametrize("i", range(3))
def test_drawn(i):
    print("DRAWN", i, random.random(), np.random.rand(), torch.rand(1).item())
"""


@pytest.mark.slow
def test_what_a_test_draws_follows_the_seed_and_not_the_order(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(CHECK)
    conftest = (TESTS / "conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(conftest)

    def drawn(seed: str, *names: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *names],
            cwd=tmp_path,
            env={**os.environ, seeds.VARIABLE: seed, "PYTHONPATH": str(TESTS.parent)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line.split("DRAWN ")[1] for line in done.stdout.splitlines() if "DRAWN" in line]
        return dict(line.split(" ", 1) for line in lines)

    every = drawn("4", "test_a.py")
    assert len(set(every.values())) == len(every) == 3
    assert drawn("4", "test_a.py::test_drawn[2]") == {"2": every["2"]}
    assert drawn("5", "test_a.py") != every
