from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.lifecycle import announce, hold, usable_settings
from settings import Settings, get_settings
from tests.support.serving import ROOT


@pytest.fixture
def fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("fresh_settings")
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("VISIONLOOP_RATE_LIMIT", "often", "VISIONLOOP_RATE_LIMIT: .*valid number"),
        ("VISIONLOOP_IMAGE_URL", "all", "VISIONLOOP_IMAGE_URL: .*'off' or 'public'"),
        ("VISIONLOOP_MAX_BODY_MB", "-1", "VISIONLOOP_MAX_BODY_MB: .*greater than 0"),
    ],
)
def test_an_unusable_setting_ends_the_start_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=sentence):
        usable_settings()


def test_a_folder_is_held_against_other_processes_only(tmp_path: Path) -> None:
    hold(tmp_path, "VISIONLOOP_HOME")
    hold(tmp_path, "VISIONLOOP_HOME")
    code = "import sys; from pathlib import Path; from serving.lifecycle import hold; "
    code += "hold(Path(sys.argv[1]), 'VISIONLOOP_HOME')"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert other.returncode == 1
    assert other.stderr.startswith("Another VisionLoop server is using")
    assert "Traceback" not in other.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit, match=f"BENTOML_HOME cannot be used: .*{file.name}"):
        hold(file / "home", "BENTOML_HOME")


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ({}, "No token is required: everyone who can reach the port"),
        ({"token": "s3cret"}, "Every request needs a token."),
        (
            {"admin_token": "s3cret"},
            "Requests need no token; administration needs the admin token.",
        ),
    ],
)
def test_the_announcement_says_who_may_come_in_and_no_secret(
    capsys: pytest.CaptureFixture[str], tokens: dict[str, str], sentence: str
) -> None:
    announce(Settings.model_validate(tokens))
    printed = capsys.readouterr().out
    assert sentence in printed
    assert "s3cret" not in printed
