from __future__ import annotations

import logging
import pickle

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
