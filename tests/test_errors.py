from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

import errors

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.VisionLoopError)
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_survives_the_hop_from_a_runner(kind: type[errors.VisionLoopError]) -> None:
    error = pickle.loads(pickle.dumps(kind("No model 'x'.", retry_after=2.5)))
    assert type(error) is kind
    assert (error.message, error.retry_after, str(error)) == ("No model 'x'.", 2.5, "No model 'x'.")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_body_has_the_four_fields(kind: type[errors.VisionLoopError]) -> None:
    body = kind("what happened").to_json()
    assert body["code"] == kind.code
    assert body["detail"] == body["message"] == "what happened"
    assert body["error"]


def test_codes_are_unique() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL)


def test_our_own_fault_is_logged_under_the_id_that_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a server started by another test has configured logging in this process
    monkeypatch.setattr(errors, "log", logging.Logger("visionloop", logging.ERROR))
    errors.log.addHandler(caplog.handler)
    told = errors.our_fault(ZeroDivisionError("secret"), "POST /infer")
    assert told.code == "PROCESSING_ERROR"
    assert "secret" not in told.message
    number = told.message.rstrip(".").split()[-1]
    assert f"[{number}] POST /infer failed" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_hidden", {})
    errors.hide_paths(
        {
            Path("/srv/vision"): "VISIONLOOP_HOME",
            Path("/srv/vision/bento"): "BENTOML_HOME",
            Path("/srv/ä b"): "CODE",
            Path("/data"): "DATA",
        }
    )


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("No file '/srv/vision/jobs/x'.", "No file 'VISIONLOOP_HOME/jobs/x'."),
        ("/srv/vision", "VISIONLOOP_HOME"),
        ("at /srv/vision/bento/models: gone", "at BENTOML_HOME/models: gone"),
        ("/srv/vision/bento2", "VISIONLOOP_HOME/bento2"),
        ("(/srv/ä b/c.py)", "(CODE/c.py)"),
        ("/srv/vision2 and /other/srv/vision stay", "/srv/vision2 and /other/srv/vision stay"),
        ("/data/upload/1.jpg is a name of Label Studio's", None),
        ("no path at all", None),
    ],
)
def test_no_answer_names_a_folder_of_the_server(text: str, shown: str | None) -> None:
    body = errors.NotFound(text).to_json()
    assert body["message"] == body["detail"] == (shown or text)
