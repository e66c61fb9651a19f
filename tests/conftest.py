"""Before anything of ours is imported: no test touches the user's home, or the network."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu import cpu
from tests.support import postgres, postgres_homes, seeds
from tests.support.browsing import MISSING
from tests.support.process_state import process_state, put_back, reseed

for name in [name for name in os.environ if name.startswith("VISIONLOOP_")]:
    del os.environ[name]

HOME = Path(tempfile.mkdtemp(prefix="visionloop-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["VISIONLOOP_HOME"] = str(HOME / "home")
os.environ["BENTOML_HOME"] = str(HOME / "bento")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["VISIONLOOP_ALLOW_DOWNLOAD"] = "never"  # no test waits for a host that cannot be reached

from models_store import ultralytics_env  # noqa: E402

os.environ.update(ultralytics_env.environment(HOME, threads=1))  # small models: no gain from two

from hypothesis import settings as hypothesis_settings  # noqa: E402

# No examples of former runs: what a run tries depends on its seed alone. No deadline: how long
# an example takes depends on what else the machine does.
hypothesis_settings.register_profile("seeded", database=None, deadline=None)
hypothesis_settings.load_profile("seeded")


pytest_plugins = [
    "tests.support.job_fixtures",
    "tests.support.object_store",
    "tests.support.postgres_fixtures",
    "tests.support.server_fixtures",
    "tests.support.two_machines",
]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The order of the tests and hypothesis' examples follow the seed, unless told otherwise.

    With TEST_DATABASE=postgres, each process that runs tests starts a server of its own.
    """
    if config.getoption("randomly_seed", None) == "default":
        config.option.randomly_seed = seeds.SEED
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = seeds.SEED
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if postgres_homes.chosen() and runs_tests and not config.option.collectonly:
        if postgres.programs() is None:
            pytest.exit(f"TEST_DATABASE=postgres: {postgres.MISSING}.", returncode=1)
        server = postgres.start()
        config.add_cleanup(server.close)
        postgres_homes.prepare(server.url(""))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is about the SQLite file where homes have none."""
    if postgres_homes.chosen():
        for item in items:
            if item.get_closest_marker("sqlite"):
                item.add_marker(pytest.mark.skip(reason="about the SQLite file"))


def pytest_report_header() -> list[str]:
    """What a failure may depend on."""
    return [f"{seeds.VARIABLE}={seeds.SEED}", f"CPU: {cpu()}"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end, where it is seen, that no browser, object store or PostgreSQL was there."""
    from tests.support import object_store  # a plugin: pytest imports it first

    skipped = terminalreporter.stats.get("skipped", [])
    missing = sum(MISSING in str(report.longrepr) for report in skipped)
    if missing:
        terminalreporter.section("NO BROWSER", red=True, bold=True)
        terminalreporter.line(f"{missing} tests of the console did NOT run: {MISSING}.", red=True)
    missing = sum(object_store.MISSING in str(report.longrepr) for report in skipped)
    if missing:
        terminalreporter.section("NO OBJECT STORE", red=True, bold=True)
        terminalreporter.line(f"{missing} tests did NOT run: {object_store.MISSING}.", red=True)
    missing = sum(postgres.MISSING in str(report.longrepr) for report in skipped)
    if missing:
        terminalreporter.section("NO POSTGRESQL", red=True, bold=True)
        terminalreporter.line(f"{missing} tests did NOT run: {postgres.MISSING}.", red=True)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failure at once, in case the run is ended before its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        reason = (str(report.longrepr).strip().splitlines() or [""])[-1]
        print(f"\nFAILED {report.nodeid} ({report.when}): {reason[:300]}", flush=True)


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """What ran before a test is nothing to it.

    Chance depends on its name and the seed of the run, and it leaves the process as it was.
    """
    on_postgres = postgres_homes.chosen() and "tmp_path" in request.fixturenames
    homes = request.getfixturevalue("tmp_path") if on_postgres else None
    before = process_state()
    with put_back():
        reseed(seeds.derived(zlib.crc32(request.node.nodeid.encode()) % seeds.PLACES))
        yield
    if homes is not None:
        postgres_homes.drop_below(homes)
    after = process_state()
    changed = [name for name, value in before.items() if after[name] != value]
    assert not changed, f"The test left changed: {', '.join(changed)}."
