from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from settings import Settings

README = Path(__file__).parent.parent / "README.md"


def test_every_setting_is_in_the_readme() -> None:
    text = README.read_text()
    missing = [
        name for name in Settings.model_fields if f"| `VISIONLOOP_{name.upper()}` |" not in text
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cors_origins", "", ()),
        ("cors_origins", "http://a, http://b", ("http://a", "http://b")),
        ("data_roots", "/srv/a,/srv/b/../c", (Path("/srv/a"), Path("/srv/c"))),
        ("max_body_mb", "1.5", 1.5),
        ("home", "/srv/x/../home", Path("/srv/home")),
    ],
)
def test_read_from_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    monkeypatch.setenv(f"VISIONLOOP_{name.upper()}", value)
    assert getattr(Settings(), name) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("queue_length", "0"), ("device", "tpu"), ("image_url", "yes"), ("max_pixels", "many")],
)
def test_unusable_value_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"VISIONLOOP_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_secrets_are_masked() -> None:
    settings = Settings(token="hunter2", home=Path("/srv/home"))
    assert settings.masked()["token"] == "(set)"
    assert "hunter2" not in repr(settings)
    assert settings.sqlalchemy_url == "sqlite:////srv/home/visionloop.db"
    assert settings.max_body_bytes == 32 * 1024 * 1024
