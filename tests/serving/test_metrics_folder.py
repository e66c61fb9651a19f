"""Where the counters of the processes are, and that a full disk does not reach them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import metrics_folder
from serving.metrics_folder import chosen, join, renew
from settings import Settings
from tests.support.full_disk import fill, small_disk
from tests.support.serving import ROOT


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found = [tmp_path / "memory", tmp_path / "temporary"]
    for base in found:
        base.mkdir()
    monkeypatch.setattr(metrics_folder, "_bases", lambda: found)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_it_is_private_and_the_same_in_every_process(bases: list[Path], settings: Settings) -> None:
    folder = join(settings)
    assert folder.parent == bases[0]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert chosen(settings) == folder == join(settings)
    other = Settings(home=settings.home / "other")
    assert chosen(other) != folder


def test_choosing_creates_nothing(bases: list[Path], settings: Settings) -> None:
    assert chosen(settings).parent == bases[0]
    assert not list(bases[0].iterdir())
    assert not settings.home.exists()


def test_a_folder_of_someone_else_or_a_link_is_not_used(
    bases: list[Path], settings: Settings, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    chosen(settings).symlink_to(trap)
    assert join(settings).parent == bases[1]
    renew(settings)
    assert not list(trap.iterdir())


def test_a_folder_that_others_may_enter_is_not_used(bases: list[Path], settings: Settings) -> None:
    chosen(settings).mkdir(mode=0o777)
    (bases[0] / chosen(settings).name).chmod(0o777)
    assert join(settings).parent == bases[1]


def test_without_either_it_is_in_the_home(bases: list[Path], settings: Settings) -> None:
    for base in bases:
        base.rmdir()
    assert join(settings) == settings.paths.metrics
    assert settings.paths.metrics.is_dir()


def test_a_start_begins_at_zero_and_sweeps_the_folders_of_dead_servers(
    bases: list[Path], settings: Settings, tmp_path: Path
) -> None:
    dead, living = (Settings(home=tmp_path / name) for name in ("dead", "living"))
    code = "from serving.metrics_folder import join, _bases; from settings import Settings; "
    code += "import serving.metrics_folder as m; from pathlib import Path; "
    code += f"m._bases = lambda: [Path({str(bases[0])!r})]; join(Settings()); "
    command = [sys.executable, "-c", code + "print(flush=True); input()"]
    processes = []
    for one in (dead, living):
        environment = os.environ | {"VISIONLOOP_HOME": str(one.home)}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        processes.append(process)
    try:
        processes[0].kill()
        processes[0].wait()
        (join(settings) / "counter_1.db").touch()
        folder = renew(settings)
        assert not list(folder.iterdir())
        assert not chosen(dead).exists()
        assert chosen(living).exists()
    finally:
        for process in processes:
            process.communicate(b"\n" if process.poll() is None else None)


COUNT = """
import sys
from serving.prometheus_patches import reserve_space
reserve_space()
from prometheus_client import Counter
from tests.support.full_disk import fill
from pathlib import Path
counter = Counter("x", "x", ["label"])
when, folder = sys.argv[1], Path(sys.argv[2])
if when == "before":
    fill(folder)
counter.labels("first").inc()
if when == "after":
    fill(folder)
for number in range(5000):
    counter.labels(f"a label of some length, number {number}").inc()
    counter.labels("first").inc()
if when == "between":
    (folder / "filler").unlink()
print(counter.labels("first")._value.get())
"""


@pytest.mark.parametrize(("when", "stored"), [("before", None), ("after", 5001.0)])
def test_a_full_disk_kills_no_process_that_counts(
    tmp_path: Path, when: str, stored: float | None
) -> None:
    with small_disk(tmp_path / "disk", 2) as folder:
        environment = os.environ | {
            "PROMETHEUS_MULTIPROC_DIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [sys.executable, "-c", COUNT, when, str(folder)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done
        assert done.stdout.strip() == "5001.0"
        assert done.stderr.count("no room for the metrics") == 1
        (folder / "filler").unlink()
        code = "from serving.telemetry import exposition; print(exposition('', (), ())[0].decode())"
        shown = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        line = 'x_total{label="first"} 5001.0'
        assert (line in shown) == (stored is not None)


def test_every_byte_that_a_mapping_reaches_is_reserved(tmp_path: Path) -> None:
    """Otherwise the first write to a missing page would end the process with SIGBUS."""
    with small_disk(tmp_path / "disk", 4) as folder:
        from serving.prometheus_patches import ReservedDict

        values = ReservedDict(str(folder / "counter_1.db"))
        fill(folder)
        key = 0
        while not values.unstored:  # fills what is reserved
            values.write_value(f"key {key}", float(key), 0.0)
            key += 1
        file = folder / "counter_1.db"
        assert file.stat().st_blocks * 512 >= file.stat().st_size
        assert values.read_value("key 7") == (7.0, 0.0)
        assert values.read_value(f"key {key - 1}") == (float(key - 1), 0.0)
        values.close()
