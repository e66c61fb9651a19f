"""Weights of a local mirror on their way into the registry. Their hash is not recorded."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from database import Database
from errors import Forbidden, InvalidModelFile
from models_store.__main__ import main
from models_store.pretrained.catalogue import requested
from models_store.pretrained.fetch import fetch, present, require_allowed
from models_store.registry import Registry
from settings import Settings, get_settings
from tests.support.mirror import Mirror, Told, mirror, silent_port
from tests.support.patience import PATIENCE
from tests.support.small_models import NAMES, checkpoint, network

FILE = requested("yolov9t")  # no hash is recorded, so any network of the right task will do


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return checkpoint(tmp_path_factory.mktemp("weights") / "x.pt", network("detect")).read_bytes()


@pytest.fixture
def served(weights: bytes) -> Iterator[Mirror]:
    with mirror(yolov9t=weights) as running:
        yield running


@pytest.fixture
def settings(homes: Path, served: Mirror, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("VISIONLOOP_ALLOW_DOWNLOAD", "auto")
    monkeypatch.setenv("VISIONLOOP_DOWNLOAD_URL", served.url)
    get_settings.cache_clear()
    return get_settings()


@pytest.fixture
def opened(settings: Settings) -> Iterator[Callable[[], Registry]]:
    """Opens the registry of the home once more."""
    made: list[Registry] = []

    def another() -> Registry:
        made.append(Registry(Database(settings)))
        return made[-1]

    yield another
    for registry in made:
        registry.database.close()


def test_weights_are_fetched_once_and_say_where_they_are_from(
    opened: Callable[[], Registry], served: Mirror, weights: bytes, tmp_path: Path
) -> None:
    registry, told = opened(), Told()
    assert present(registry, FILE) is None
    first = fetch(registry, FILE, tmp_path / "job", told.watch, job_id="a1")
    assert first.new
    assert first.model.name == "yolov9t-coco"
    assert first.model.description.names == NAMES
    assert first.model.source["kind"] == "fetch"
    assert first.model.source["address"] == f"{served.url}/yolov9t.pt"
    assert first.model.source["sha256"] == hashlib.sha256(weights).hexdigest()
    assert first.model.source["verified"] is False
    assert first.model.source["fetched_by"] == "a1"
    assert first.model.source.get("job_id") is None  # it is no result of that job
    assert "Converting yolov9t.pt" in told.text
    assert list((tmp_path / "job").iterdir()) == []
    again = fetch(registry, FILE, tmp_path / "job", told.watch)
    assert (again.new, again.model.id) == (False, first.model.id)
    assert served.asked == ["/yolov9t.pt"]


def test_two_that_want_the_same_file_fetch_it_once(
    opened: Callable[[], Registry], served: Mirror, tmp_path: Path
) -> None:
    served.pause = threading.Event()
    first, second, models = Told(), Told(), []

    def start(told: Told, registry: Registry) -> threading.Thread:
        def work() -> None:
            models.append(fetch(registry, FILE, tmp_path / "job", told.watch).model.id)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    one = start(first, opened())
    assert served.stopped.wait(PATIENCE)
    other = start(second, opened())
    for _ in range(int(PATIENCE * 20)):
        if "another process is fetching yolov9t.pt" in second.text:
            break
        other.join(0.05)
    served.pause.set()
    one.join(PATIENCE)
    other.join(PATIENCE)
    assert "another process is fetching" in second.text
    assert served.asked == ["/yolov9t.pt"]
    assert len(models) == 2
    assert len(set(models)) == 1


def test_waiting_for_another_can_be_cancelled(
    opened: Callable[[], Registry], served: Mirror, tmp_path: Path
) -> None:
    class Cancelled(BaseException):
        pass

    served.pause = threading.Event()
    registry, told = opened(), Told()
    one = threading.Thread(target=fetch, args=(opened(), FILE, tmp_path / "job", Told().watch))
    one.start()
    assert served.stopped.wait(PATIENCE)
    told.stop = Cancelled()
    with pytest.raises(Cancelled):
        fetch(registry, FILE, tmp_path / "job", told.watch)
    served.pause.set()
    one.join(PATIENCE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "The model is for classify, not for detect"),
        (b"<!DOCTYPE html><p>Sign in to the network", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ],
)
def test_what_is_no_such_model_is_refused(
    opened: Callable[[], Registry],
    served: Mirror,
    tmp_path: Path,
    content: bytes | None,
    reason: str,
) -> None:
    other = checkpoint(tmp_path / "x.pt", network("classify")) if content is None else None
    served.files["/yolov9t.pt"] = other.read_bytes() if other else content or b""
    registry = opened()
    with pytest.raises(InvalidModelFile, match=reason):
        fetch(registry, FILE, tmp_path / "job", Told().watch)
    assert registry.list() == []
    assert list((tmp_path / "job").iterdir()) == []


def test_never_is_told_with_the_remedy(settings: Settings) -> None:
    require_allowed(settings, FILE)
    never = settings.model_copy(update={"allow_download": "never"})
    with pytest.raises(Forbidden, match=r"models import yolov9t\.pt --name yolov9t-coco"):
        require_allowed(never, FILE)


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """The command silences its own process, which here is that of all tests."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("settings", "logging_as_it_was")
def test_the_shell_command(
    opened: Callable[[], Registry], served: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "yolov9t", "--activate", "--promote", "--json"]) == 0
    output = capsys.readouterr()
    shown = json.loads(output.out)
    assert (shown["name"], shown["active"], shown["promoted"]) == ("yolov9t-coco", True, True)
    assert f"Fetching yolov9t.pt from {served.url.removeprefix('http://')}." in output.err
    assert opened().active().id == shown["id"]
    assert main(["fetch", "yolov9t.pt"]) == 0
    output = capsys.readouterr()
    assert shown["id"] in output.out
    assert "nothing was fetched" in output.err
    assert served.asked == ["/yolov9t.pt"]


@pytest.mark.usefixtures("settings", "logging_as_it_was")
@pytest.mark.parametrize(
    ("name", "value", "network", "reason"),
    [
        ("VISIONLOOP_ALLOW_DOWNLOAD", "never", "yolov9t", "switched off"),
        ("VISIONLOOP_DOWNLOAD_URL", "", "yolov7n", "Known are yolov8, yolov9"),
        ("VISIONLOOP_DOWNLOAD_URL", "ftp://x", "yolov9t", "VISIONLOOP_DOWNLOAD_URL: This is not"),
        ("VISIONLOOP_DOWNLOAD_URL", "nobody", "yolov9t", "mirror by VISIONLOOP_DOWNLOAD_URL"),
    ],
)
def test_the_shell_command_fails_with_a_sentence(
    name: str,
    value: str,
    network: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with silent_port(accepts=False) as nobody:
        monkeypatch.setenv(name, nobody if value == "nobody" else value)
        get_settings.cache_clear()
        assert main(["fetch", network]) == 1
    output = capsys.readouterr()
    assert output.err.splitlines()[-1].startswith("error: ")
    assert reason in output.err
    assert output.out == ""
