"""`python -m training` against a small stand-in for the server."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from api.training_fields import FIELDS_OF_MODE, TrainingFields
from tests.support.shapes import write_shapes
from training.__main__ import FIELDS, MODES, command_line, main

JOB: dict[str, Any] = {
    "job_id": "a1" * 16,
    "kind": "training",
    "mode": "regular",
    "task": "detect",
    "status": "completed",
    "progress": 100.0,
    "current_epoch": 3,
    "total_epochs": 3,
    "metrics": {"loss": 0.5},
    "model_name": "street",
    "model_id": "m:1",
    "error": None,
    "created_at": "2026-11-21T10:00:00.000+00:00",
}


FAILED = JOB | {
    "job_id": "b2" * 16,
    "kind": "evaluation",
    "mode": None,
    "status": "failed",
    "progress": 7.0,
    "model_name": "a_longer_name",
    "model_id": None,
    "error": "It broke.\nTry again.",
}


KNOWN = ("cats", "signs")  # models
EXPORT = FAILED | {"job_id": "c3" * 16, "kind": "export", "mode": "onnx"}


class Handler(BaseHTTPRequestHandler):
    asked: list[tuple[str, str, Any, str | None]]  # method, path, body, token
    streams: int
    job: dict[str, Any] = JOB
    readable: str  # folder that the server may read
    datasets: list[dict[str, Any]]  # cards of what was uploaded before
    uploads: list[bytes]

    def do_GET(self) -> None:
        self._note(None)
        path, _, query = self.path.partition("?")
        if path == "/models":
            self._answer(200, {"models": [{"name": name} for name in KNOWN]})
        elif path.startswith("/models/"):
            known = path.removeprefix("/models/") in KNOWN
            unknown = {"message": "No model here.", "code": "MODEL_NOT_FOUND"}
            self._answer(*((200, {}) if known else (404, unknown)))
        elif path == "/api/training/select-local-file":
            allowed = parse_qs(query)["dir"] == [self.readable]
            self._answer(*((200, {}) if allowed else (403, {"code": "FORBIDDEN"})))
        elif path == "/api/datasets":
            self._answer(200, {"datasets": self.datasets})
        elif self.path == f"/jobs/{JOB['job_id']}/logs?follow=true":
            self._stream()
        elif self.path == "/jobs":
            self._answer(200, {"jobs": [JOB, FAILED]})
        elif self.path == f"/jobs?before={'b2' * 16}":
            self._answer(200, {"jobs": [EXPORT]})
        elif self.path.startswith("/jobs?"):
            self._answer(200, {"jobs": []})
        elif self.path.endswith("/logs"):
            self._answer(200, {"logs": ["[2026-11-21 10:00:00] one"]})
        elif JOB["job_id"].startswith(self.path.removeprefix("/jobs/")):
            self._answer(200, self.job)
        else:
            self._answer(404, {"message": f"No job {self.path[6:]!r}.", "code": "JOB_NOT_FOUND"})

    def do_DELETE(self) -> None:
        self._note(None)
        self.send_response(204)
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/datasets":
            self.uploads.append(body)
            problem = {"message": "Look at the sheet.", "fatal": False}
            splits = {"train": {"images": 2}}
            card = {"id": "new-k3xq7w2a", "splits": splits, "problems": [problem]}
            self._answer(201, card)
            return
        self._note(json.loads(body) if body else None)
        if self.path.endswith("/cancel"):
            self._answer(409, {"message": "It has ended.", "code": "CONFLICT"})
        else:
            self._answer(
                200,
                {
                    "task_id": JOB["job_id"],
                    "status": "pending",
                    "message": "Queued.",
                    "notes": ["No weights here."],
                },
            )

    def _stream(self) -> None:
        """The first connection breaks after a line; the second goes on from there."""
        type(self).streams += 1
        self.send_response(200)
        self.end_headers()
        if self.streams == 1:
            self.wfile.write(b": the log\n\nid: 10\ndata: [t] one\n\n")
        elif self.headers.get("Last-Event-ID") == "10":
            self.wfile.write(b'id: 20\ndata: [t] two: 2\n\nevent: end\ndata: {"status": "x"}\n\n')

    def _note(self, body: Any) -> None:
        self.asked.append((self.command, self.path, body, self.headers.get("Authorization")))

    def _answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    own = {"asked": [], "streams": 0, "readable": "", "datasets": [], "uploads": []}
    made = type("Made", (Handler,), own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("VISIONLOOP_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_start_sends_what_was_given(
    handler: type[Handler],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VISIONLOOP_TOKEN", "use")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.yaml").touch()
    handler.readable = str(tmp_path)
    command = "start freeze-strategy --data data.yaml --model n --epochs 3 --no-watch"
    command += " --hyper lr0=1e-3 --hyper optimizer=AdamW --min-epochs-per-stage 2"
    assert main(command.split()) == 0
    body = {
        "data_path": str(tmp_path / "data.yaml"),
        "model_type": "n",
        "epochs": 3,
        "min_epochs_per_stage": 2,
        "hyper": {"lr0": 0.001, "optimizer": "AdamW"},
    }
    assert handler.asked[1:] == [("POST", "/api/training/freeze-strategy", body, "Bearer use")]
    assert capsys.readouterr().out == f"No weights here.\nQueued. Job {JOB['job_id']}\n"


def test_start_of_a_learning_method_sends_its_fields(
    handler: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    handler.readable = str(tmp_path / "old")
    command = "start distillation --data signs-k3xq7w2a --teacher cats --no-watch --old-data old"
    command += " --replay-ratio 0.3 --max-replay-samples 50 --replay-distill-boost 2"
    command += " --distill-temperature 4 --distill-cls-weight 0 --distill-reg-weight 1.5"
    command += " --distill-feat-weight 1 --distill-mask-weight 2 --enable-consistency"
    command += " --consistency-weight 0.5 --pseudo-conf-threshold 0.8"
    assert main(command.split()) == 0
    body = {
        "data_path": "signs-k3xq7w2a",
        "teacher_model_path": "cats",
        "old_data_path": str(tmp_path / "old"),
        "replay_ratio": 0.3,
        "max_replay_samples": 50,
        "replay_distill_boost": 2,
        "distill_temperature": 4,
        "distill_cls_weight": 0,
        "distill_reg_weight": 1.5,
        "distill_feat_weight": 1,
        "distill_mask_weight": 2,
        "enable_consistency": True,
        "consistency_weight": 0.5,
        "pseudo_conf_threshold": 0.8,
    }
    assert handler.asked[-1] == ("POST", "/api/training/distillation", body, None)
    command = "start incremental --data b --base-model signs --new-classes tram,bus --no-watch"
    assert main([*command.split(), "--rehearsal", "hardness"]) == 0
    assert handler.asked[-1][2] == {
        "data_path": "b",
        "base_model_path": "signs",
        "new_classes": "tram,bus",
        "rehearsal": "hardness",
    }


def test_a_misspelt_model_is_refused_before_the_upload(
    handler: type[Handler], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shapes(tmp_path / "shapes", "detect", 2, 1, 48)
    command = ["start", "regular", "--no-watch", "--data", str(tmp_path / "shapes"), "--model"]
    assert main([*command, "sings"]) == 1
    assert capsys.readouterr().err == "error: No model here. Did you mean 'signs'?\n"
    assert main([*command, "zebra"]) == 1
    assert capsys.readouterr().err == "error: No model here.\n"
    assert not handler.uploads
    assert main([*command, "signs"]) == 0
    assert len(handler.uploads) == 1
    data = ["--no-watch", "--data", str(tmp_path / "shapes")]
    assert main(["start", "incremental", *data, "--base-model", "zebra"]) == 1
    assert main(["start", "distillation", *data, "--model", "n", "--teacher", "zebra"]) == 1
    assert len(handler.uploads) == 1


def test_incremental_takes_no_other_model_than_its_base(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["start", "incremental", "--data", "x", "--base-model", "signs", "--model", "n"])
    assert "--model" in capsys.readouterr().err


def test_data_that_the_server_may_not_read_is_uploaded_once(
    handler: type[Handler],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_shapes(tmp_path / "shapes", "detect", 2, 1, 48)
    (tmp_path / "shapes" / "notes.docx").touch()
    monkeypatch.chdir(tmp_path)
    command = ["start", "regular", "--no-watch", "--data"]
    assert main([*command, "shapes/data.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "Uploading shapes/data.yaml (7 files, " in shown
    assert "left out: 1 .docx" in shown
    assert "Dataset new-k3xq7w2a: 2 images in train.\n  Look at the sheet.\n" in shown
    assert handler.asked[-1][2]["data_path"] == "new-k3xq7w2a"
    (body,) = handler.uploads
    digest = hashlib.sha256(body[body.index(b"PK") : body.rindex(b"\r\n--")]).hexdigest()
    handler.datasets = [
        {"id": "revised-1", "task": "detect", "upload_sha256": digest, "revision": 1},
        {"id": "old-k3xq7w2a", "task": "detect", "upload_sha256": digest, "revision": 0},
    ]
    assert main([*command, str(tmp_path / "shapes" / "data.yaml")]) == 0
    assert "was uploaded before: dataset old-k3xq7w2a." in capsys.readouterr().out
    assert handler.asked[-1][2]["data_path"] == "old-k3xq7w2a"
    assert main([*command, "shapes/data.yaml", "--task", "segment"]) == 0  # read differently
    assert len(handler.uploads) == 2


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data empty", "error: empty cannot be uploaded: There are no images in "),
        ("--data best.pt", "best.pt is neither a zip, a data.yaml nor a folder."),
        ("--data x --weights best.pt", "curl -F file=@best.pt -F name=best http://127.0.0.1:"),
        ("--data x --teacher best.pt", "error: --teacher best.pt: the server may not read"),
    ],
)
def test_files_that_cannot_be_sent_are_refused_by_what_was_typed(
    handler: type[Handler],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "best.pt").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["start", "distillation", *option.split()]) == 1
    assert words in capsys.readouterr().err
    assert all(method == "GET" for method, *_ in handler.asked)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("--epoch 3", "there is no option '--epoch': did you mean --epochs?"),
        ("--imgsize=3", "there is no option '--imgsize=3': did you mean --imgsz?"),
        ("--xyz", "there is no option '--xyz'; see python -m training start regular --help"),
    ],
)
def test_abbreviated_and_misspelt_options_are_refused(
    capsys: pytest.CaptureFixture[str], typed: str, words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["start", "regular", "--data", "x", *typed.split()])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_the_flags_of_its_fields_and_no_others(mode: str) -> None:
    """What the API takes for a mode, the shell can send."""
    own = FIELDS_OF_MODE.get(mode.replace("-", "_"), frozenset())
    others = frozenset().union(*FIELDS_OF_MODE.values()) - own
    flags = {action.dest for action in _flags(mode)}
    assert own - flags <= {"use_freeze_strategy"}  # what the mode itself says
    assert not flags & others


def test_defaults_in_the_help_are_those_of_the_server() -> None:
    stated = {field.name: field.default for field in FIELDS if field.default}
    known = {name: field.default for name, field in TrainingFields.model_fields.items()}
    stated.pop("imgsz")  # a sentence
    assert {name: json.loads(f'"{text}"') for name, text in stated.items()} == {
        name: f"{known[name]:g}" if isinstance(known[name], (int, float)) else known[name]
        for name in stated
    }


def _flags(mode: str) -> list[Any]:
    start = _choices(command_line())["start"]
    return list(_choices(start)[mode]._actions)


def _choices(found: argparse.ArgumentParser) -> Any:
    return next(action for action in found._actions if action.choices).choices


def test_watch_goes_on_after_a_broken_connection(
    handler: type[Handler], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "a1a1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("[t] one\n") == 1
    assert shown.count("[t] two: 2\n") == 1
    assert shown.endswith(f"Job {JOB['job_id']} is completed. m:1\n")
    assert handler.streams == 2


def test_the_end_of_a_training_from_scratch_says_so(
    handler: type[Handler], capsys: pytest.CaptureFixture[str]
) -> None:
    handler.job = JOB | {"config": {"resolved": {"base": {"kind": "scratch", "from": "yolov8n"}}}}
    assert main(["watch", "a1a1"]) == 0
    assert "It was trained from scratch, without pretrained weights" in capsys.readouterr().out


def test_the_end_of_an_incremental_training_names_both_groups(
    handler: type[Handler], capsys: pytest.CaptureFixture[str]
) -> None:
    handler.job = JOB | {
        "metrics": {"old_classes_before": 0.6, "old_classes": 0.5, "forgotten": 0.1}
        | {"new_classes": 0.4, "mAP50": 0.9}
    }
    assert main(["watch", "a1a1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Old classes: 0.600 before, 0.500 after, +0.100 lost. New classes: 0.400."


def test_list_and_logs(handler: type[Handler], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    heading, first, second, third = lines = capsys.readouterr().out.splitlines()
    names = ["JOB", "MODEL", "MODE", "TASK", "STATE", "PROGRESS", "RUNS ON"]
    names += ["AGE", "SIZE", "RESULT"]
    assert re.split(r"\s{2,}", heading.strip()) == names
    shown = ["a1a1a1a1", "street", "regular", "detect", "completed", "100.0%"]
    assert first.split()[:6] == shown
    assert first.endswith("  m:1")
    shown = ["b2b2b2b2", "a_longer_name", "evaluation", "detect", "failed", "7.0%"]
    assert second.split()[:6] == shown
    assert second.endswith("  It broke. Try again.")
    assert third.split()[1:4] == ["a_longer_name", "export", "onnx"]
    for column in ("MODEL", "MODE", "STATE", "RESULT"):
        at = heading.index(column)
        assert all(line[at - 1] == " " != line[at] for line in lines), column
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == JOB
    assert main(["logs", "a1a1"]) == 0
    assert capsys.readouterr().out == "[2026-11-21 10:00:00] one\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cancel a1a1", "error: It has ended."),
        ("cancel f9f9", "No job 'f9f9'"),
        ("watch ''", "'' is no job's id"),
        ("logs ../metrics", "'../metrics' is no job's id"),
        ("list --url http://127.0.0.1:9", "No server answers at http://127.0.0.1:9"),
        ("list --url 127.0.0.1:9/", "No server answers at http://127.0.0.1:9 ("),
        ("list --url 127.0.0.1:9", "name it with --url or VISIONLOOP_URL"),
        ("list --url http://127.0.0.1:port", "'http://127.0.0.1:port' is no address of a server"),
    ],
)
def test_refusals_are_one_line(
    handler: type[Handler], capsys: pytest.CaptureFixture[str], command: str, words: str
) -> None:
    assert main([word.strip("'") for word in command.split()]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["", "start", "start regular", "start magic --data x"])
def test_wrong_arguments(command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2


def test_a_job_is_found_by_its_beginning_and_deleted(
    handler: type[Handler], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["delete", "a1a1a"]) == 0
    assert capsys.readouterr().out == f"Job {'a1' * 16} is deleted.\n"
    assert handler.asked[-1][:2] == ("DELETE", f"/jobs/{'a1' * 16}")
    handler.asked.clear()
    assert main(["delete", "d4" * 16]) == 0  # nothing to look up
    assert len(handler.asked) == 1
