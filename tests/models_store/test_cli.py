"""`python -m models_store`: text, JSON, exit codes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from access.audit import AuditLog
from models_store import archive
from models_store.__main__ import main
from models_store.export import export_onnx
from models_store.registry import Registry

Publish = Callable[..., str]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command silences its own process, which here is that of all tests."""
    yield
    logging.disable(logging.NOTSET)


def test_a_story(
    registry: Registry,
    publish: Publish,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # not in a child: torch is here already
    monkeypatch.setattr(archive, "_export", lambda folder, _: export_onnx(folder))

    def run(*arguments: str) -> str:
        assert main(arguments) == 0
        return capsys.readouterr().out

    assert "no models" in run("list")
    first, second = publish(), publish()
    lines = run("list").splitlines()
    assert lines[0].split() == ["MODEL", "TYPE", "FAMILY", "CLASSES", "MB", "CREATED"]
    assert [line.split()[0] for line in lines[1:]] == [second, first]
    assert first in run("promote", first)
    assert "active, promoted" in run("activate", "signs")
    registry.refresh()
    assert registry.active().id == first
    shown = run("show", "signs")
    assert "round, square, star" in shown
    assert json.loads(run("show", "--json", "signs"))["id"] == first
    assert [m["id"] for m in json.loads(run("list", "--json"))["models"]] == [second, first]
    run("promote", second)
    assert first in run("rollback", "signs")
    changes = AuditLog(registry.database).list()
    assert [entry.route for entry in changes] == [
        "models_store rollback", "models_store promote", "models_store activate",
        "models_store promote",
    ]  # fmt: skip
    assert (changes[0].target, changes[0].what) == (first, f"rolled back {second} → {first}")
    assert changes[0].who.startswith("command line")
    told = run("decisions", "signs").splitlines()
    assert [line.split()[3] for line in told if not line.startswith(" ")] == [
        "rolled_back",
        "promoted",
        "promoted",
    ]
    assert told[1].startswith("  by command line")
    assert json.loads(run("decisions", "--json", "signs"))["decisions"][0]["model_id"] == first
    path = run("export", second, "--format", "archive", "--output", str(tmp_path)).strip()
    assert Path(path).is_file()
    assert json.loads(run("import-archive", path, "--json"))["id"] == second
    assert run("delete", second) == f"Deleted {second}.\n"
    assert "Nothing to do" in run("reindex")


@pytest.mark.parametrize("output", [[], ["--output", "."], ["--output", "./"]])
def test_an_export_whose_file_exists_is_refused_before_the_work(
    output: list[str],
    publish: Publish,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = publish()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{model.replace(':', '-')}.onnx"
    path.touch()
    assert main(["export", "signs", "--format", "onnx", *output]) == 1
    said = capsys.readouterr().err
    assert said == f"error: {path} exists already. Name another file, or overwrite it: --force.\n"
    assert path.stat().st_size == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "cats"], "No model 'cats'"),
        (["activate", "cats:1"], "No model 'cats:1'"),
        (["delete", "../x"], "a model id is"),
        (
            ["import", "/no/such/file.pt"],
            "There is no /no/such/file.pt. Name a checkpoint (.pt or .pth).",
        ),
        (["import", __file__], "not a PyTorch checkpoint, but a text file"),
        (["import", __file__, "--name", "A"], "not a valid model name"),
        (
            ["import", __file__, "--names", "@/no/such"],
            "There is no /no/such. Name a file with one class",
        ),
        (["import-archive", __file__], "cannot be read as a zip"),
        (["import-archive", "m.zip"], f"There is no m.zip in {Path.cwd()}. Name an archive"),
        (["rollback", "cats"], "No model 'cats'"),
        (["decisions", "cats"], "No model 'cats'"),
        (["export", "cats", "--format", "onnx"], "No model 'cats'"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_code_1(
    homes: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert sentence in output.err


@pytest.mark.parametrize("format", ["archive", "onnx"])
def test_a_file_that_cannot_be_written_is_refused_before_an_export(
    format: str,
    registry: Registry,
    publish: Publish,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    publish()
    (tmp_path / "taken").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for output, sentence in (
        ("taken", "exists already"),
        ("taken/", "exists already" if format == "onnx" else "not a folder"),
        ("taken/signs.zip", "not a folder in which you can write"),
        ("pipe", "neither a file nor a folder"),
        ("link", "neither a file nor a folder"),
    ):
        path = f"{tmp_path}/{output}"
        assert main(["export", "signs", "--format", format, "--output", path]) == 1
        told = capsys.readouterr()
        assert (told.out, sentence in told.err, told.err.count("\n")) == ("", True, 1), told.err
    assert main(["export", "signs", "--format", format, "--output", "-"]) == 1
    assert "not written to stdout" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"
    assert (tmp_path / "pipe").is_fifo()
    assert not (tmp_path / "home" / "exports").exists()


def test_a_folder_that_is_named_is_made_and_a_link_is_followed(
    registry: Registry, publish: Publish, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = publish().replace(":", "-")
    export = ["export", "signs", "--format", "archive", "--output"]
    assert main([*export, f"{tmp_path}/new/"]) == 0
    assert (tmp_path / "new" / f"{name}.zip").is_file()
    link = tmp_path / "latest.zip"
    link.symlink_to(tmp_path / "new" / "first.zip")
    assert main([*export, str(link)]) == 0
    assert link.is_symlink()
    assert main([*export, str(link)]) == 1
    assert main([*export, str(link), "--force"]) == 0
    assert link.read_bytes() == (tmp_path / "new" / "first.zip").read_bytes()
    assert capsys.readouterr().out.splitlines()[-1] == str(link)


def test_wrong_arguments_are_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [],
        ["nonsense"],
        ["show"],
        ["import", "x", "--family", "resnet"],
        ["export", "x", "--format", "onnx", "--precision", "FP16"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "exit codes" in capsys.readouterr().out


@pytest.mark.sqlite
def test_a_database_that_is_none_is_one_sentence(
    homes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (homes / "home").mkdir()
    (homes / "home" / "visionloop.db").write_bytes(b"no database" * 100)
    assert main(["list"]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: The database is damaged (file is not a database).")
    assert "visionloop models reindex" in told


def test_a_wrong_setting_is_named(
    homes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISIONLOOP_MAX_BATCH", "many")
    assert main(["list"]) == 1
    assert "VISIONLOOP_MAX_BATCH: Input should be" in capsys.readouterr().err


def test_listing_imports_neither_torch_nor_bentoml(homes: Path) -> None:
    code = (
        "import sys; from models_store.__main__ import main; main(['list']); main(['reindex']);"
        "print([m for m in ('torch', 'ultralytics', 'bentoml', 'onnxruntime') if m in sys.modules])"
    )
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert output.splitlines()[-1] == "[]"
