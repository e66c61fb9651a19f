"""The stored choice of an engine: when it holds, and what serves where it does not."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import EngineUnavailable
from files import sha256_of
from inference.cpu import engine_choice
from inference.cpu._openvino import openvino
from inference.cpu.engine_choice import (
    INT8_FILE,
    RECORD,
    CpuEngine,
    EngineTrial,
    StoredChoice,
    choice_folder,
    choice_state,
    described_cpu,
    machine,
    onnx_digest,
    read_choice,
    write_choice,
)
from inference.engine import load_engine
from models_store.description import ONNX_FILE, record
from settings import Settings


@pytest.fixture
def folder(model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("detect"), tmp_path / "models" / "signs" / "1"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu", sessions=2)


def chosen(
    folder: Path, settings: Settings, engine: CpuEngine, usable: bool = True
) -> StoredChoice:
    """Store a choice; its int8 is the network in fp32, in the form in which int8 is stored."""
    target = choice_folder(folder, settings)
    target.mkdir(parents=True, exist_ok=True)
    files = [target / INT8_FILE, target / "int8.bin"]
    network = openvino.Core().read_model(str(folder / ONNX_FILE))
    openvino.save_model(network, str(files[0]), compress_to_fp16=False)
    choice = StoredChoice(
        engine=engine,
        reason="It is the fastest.",
        engines=[EngineTrial(engine="int8", usable=usable, note="It lost 3 points.")],
        machine=machine(settings),
        load=0.0,
        measured_at="2026-11-30T12:00:00+00:00",
        seconds=1.0,
        onnx=onnx_digest(folder),
        files={file.name: sha256_of(file) for file in files},
    )
    write_choice(folder, choice, settings)
    return choice


def backend(folder: Path, settings: Settings) -> str:
    return load_engine(folder, settings)[0].backend


def test_what_was_chosen_serves(folder: Path, settings: Settings) -> None:
    assert read_choice(folder, settings) is None
    assert choice_state(folder, settings) is None
    assert backend(folder, settings) == "onnxruntime-cpu"
    for engine, wanted in {
        "openvino": "openvino-cpu-fp32",
        "int8": "openvino-cpu-int8",
        "onnxruntime": "onnxruntime-cpu",
    }.items():
        before = choice_state(folder, settings)
        stored = chosen(folder, settings, engine)  # type: ignore[arg-type]
        assert read_choice(folder, settings) == stored
        assert choice_state(folder, settings) not in (None, before)
        assert backend(folder, settings) == wanted


def test_a_choice_holds_for_its_cpu_cores_versions_and_onnx_file_only(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(folder, settings, "openvino")
    assert read_choice(folder, settings.model_copy(update={"sessions": 3})) is None
    with monkeypatch.context() as patched:
        patched.setattr(engine_choice, "_fixed", lambda: {"cpu": "another"})
        assert read_choice(folder, settings) is None
    with monkeypatch.context() as patched:
        patched.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # int8 then computes as without VNNI
        assert read_choice(folder, settings) is None
    assert read_choice(folder, settings) is not None
    record(folder, "onnx", {"sha256": "of another export"})
    assert read_choice(folder, settings) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"engine": "magic"}'])
def test_a_damaged_record_is_no_choice(folder: Path, settings: Settings, content: bytes) -> None:
    chosen(folder, settings, "openvino")
    (choice_folder(folder, settings) / RECORD).write_bytes(content)
    assert read_choice(folder, settings) is None
    assert backend(folder, settings) == "onnxruntime-cpu"


@pytest.mark.parametrize("name", [INT8_FILE, "int8.bin"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_damaged_int8_is_not_served(
    folder: Path,
    settings: Settings,
    name: str,
    missing: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen(folder, settings, "int8")
    path = choice_folder(folder, settings) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink() if missing else path.write_bytes(content)
    assert backend(folder, settings) == "onnxruntime-cpu"
    assert (
        f"signs:1: int8 was chosen and cannot serve; ONNX Runtime does: {name} is damaged; make it "
        "again: POST /models/signs:1/engines."
    ) in caplog.text
    assert "VISIONLOOP_ENGINE" not in caplog.text  # nobody has forced it
    with pytest.raises(EngineUnavailable, match=f"{name} is damaged; make it again"):
        backend(folder, settings.model_copy(update={"engine": "int8"}))


def test_forced_int8_says_what_is_missing(folder: Path, settings: Settings) -> None:
    forced = settings.model_copy(update={"engine": "int8"})
    with pytest.raises(EngineUnavailable, match="not tried on this machine yet; start it with"):
        backend(folder, forced)
    chosen(folder, settings, "onnxruntime", usable=False)
    with pytest.raises(EngineUnavailable, match="It lost 3 points"):
        backend(folder, forced)
    chosen(folder, settings, "onnxruntime")  # slower here, but exact
    assert backend(folder, forced) == "openvino-cpu-int8"


def test_the_machine_is_named_with_what_the_speed_depends_on(settings: Settings) -> None:
    found = machine(settings)
    assert found["cores"] == 2
    assert found["cpu"]
    assert found["onnxruntime"].count(".") >= 1
    assert isinstance(found["instructions"], list)


EPYC = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 sha_ni\n\nprocessor\t: 1\n"
ARM = (
    "processor\t: 0\nFeatures\t: fp asimd {has}\nCPU implementer\t: 0x41\n"
    "CPU variant\t: 0x1\nCPU part\t: {part}\n\nprocessor\t: 1\n"
)


def test_a_cpu_is_known_by_its_name_and_instructions() -> None:
    assert described_cpu(EPYC) == {"cpu": "AMD EPYC", "instructions": ["avx2"]}
    newer = EPYC.replace("avx2", "avx2 avx512f avx512_vnni")
    assert described_cpu(newer)["instructions"] == ["avx2", "avx512f", "avx512_vnni"]
    assert described_cpu("")["cpu"] == platform.machine()


def test_cpus_of_arm_are_told_apart() -> None:
    """Their /proc/cpuinfo has neither a name nor `flags`."""
    older = described_cpu(ARM.format(has="asimddp", part="0xd0c"))
    newer = described_cpu(ARM.format(has="asimddp sve i8mm bf16", part="0xd40"))
    assert older["cpu"].endswith("0x41 0xd0c 0x1")
    assert newer["cpu"].endswith("0x41 0xd40 0x1")
    assert older["instructions"] == ["asimddp"]
    assert newer["instructions"] == ["asimddp", "sve", "i8mm", "bf16"]
