"""Foreign files: nothing of them runs, and each broken one is refused with its own sentence."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import InvalidModelFile
from models_store.foreign.checkpoint import Checkpoint, check_sizes, read_checkpoint
from models_store.foreign.file_type import check_checkpoint
from models_store.foreign.inert_pickle import TensorReference
from models_store.foreign.network import model_of
from tests.support.examples import EXAMPLES


class Reduced:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def write(path: Path, data: bytes) -> Path:
    """A checkpoint whose pickle is `data`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", data)
        archive.writestr("best/version", "3\n")
    return path


def opcodes(text: bytes) -> bytes:
    """A pickle in protocol 0, written by hand."""
    return text + b"."


def payloads(mark: Path) -> dict[str, bytes]:
    """Pickles that would make the file `mark` if anything of them ran."""
    touch = f"touch {mark}"
    python = f"open({str(mark)!r}, 'w')"
    system = Reduced(os.system, touch)
    quoted = repr(touch).encode()
    return {
        "posix.system": pickle.dumps({"model": system}),
        "builtins.eval": pickle.dumps({"model": Reduced(eval, python)}),
        "builtins.exec": pickle.dumps([{"train_args": {"a": Reduced(exec, python)}}]),
        "subprocess.Popen": opcodes(b"csubprocess\nPopen\n(S" + quoted + b"\nI1\ntR"),
        "nt.system": opcodes(b"(S" + quoted + b"\nint\nsystem\n"),
        "os.system": opcodes(b"(cos\nsystem\nS" + quoted + b"\no"),
        "__builtin__.apply": opcodes(b"c__builtin__\napply\n(cos\nsystem\n(S" + quoted + b"\nttR"),
        "torch.hub.load": pickle.dumps(collections.OrderedDict(a=Reduced(torch.hub.load, "x"))),
        "torch.load": opcodes(b"ctorch\nload\n(S'x'\ntR"),
        "dill._dill._create_function": opcodes(b"cdill._dill\n_create_function\n(NtR"),
        "cloudpickle.cloudpickle._make_function": opcodes(
            b"ccloudpickle.cloudpickle\n_make_function\n(NtR"
        ),
        "torch.nn.modules.os.system": opcodes(b"ctorch.nn.modules.os\nsystem\n(NtR")
        .replace(b".os\nsystem", b"\nos.system"),
        "runpy._run_code": opcodes(b"crunpy\n_run_code\n(NtR"),
    }  # fmt: skip


@pytest.mark.parametrize("name", payloads(Path("/x")))
def test_code_in_a_pickle_is_refused_by_name_and_does_not_run(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    path = write(tmp_path / "evil.pt", payloads(mark)[name])
    with pytest.raises(InvalidModelFile, match="No code of it was run") as caught:
        read_checkpoint(path)
    assert name in caught.value.message
    assert not mark.exists()


BUILT = [  # allowed names, used to reach something else
    b"cbuiltins\ngetattr\n(cbuiltins\ndict\nS'__class__'\ntR(S'__base__'\ntR(tR",
    b"ctorch.nn.modules.conv\nConv2d\n)\x81}(S'__class__'\nctorch.nn.modules.conv\nLinear\nsb",
    b"ctorch.nn.modules.conv\nConv2d\n}(S'__setstate__'\nI1\nsb",
    b"ctorch._utils\n_rebuild_tensor_v2\n}(S'_call'\ncbuiltins\ngetattr\nsb",
    b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI2\nI3\nI4\ntR",
    b"ccollections\nOrderedDict\n)R}(S'__reduce__'\nI1\nsb",
    b"cfunctools\npartial\n(cbuiltins\ngetattr\ntR(I1\ntR",
]


@pytest.mark.parametrize("text", BUILT)
def test_allowed_names_are_inert(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "odd.pt", opcodes(text))
    try:
        root = read_checkpoint(path).root
    except InvalidModelFile:
        return
    with pytest.raises(InvalidModelFile):
        model_of(root)


def test_reading_imports_nothing_that_the_pickle_names(tmp_path: Path) -> None:
    modules = set(sys.modules)
    for name in (b"torchvision.ops.misc", b"ultralytics.nn.modules.nosuch", b"antigravity"):
        path = write(tmp_path / "x.pt", opcodes(b"c" + name + b"\nThing\n)R"))
        try:
            read_checkpoint(path)
        except InvalidModelFile:
            assert name == b"antigravity"
    assert "antigravity" not in set(sys.modules) - modules


def saved(value: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_tensors_are_read_as_torch_wrote_them(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "plain": base,
        "transposed": base.T,
        "slice": base[1:, 2:5],
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "long": torch.tensor(7),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base.clone()),
    }
    path = tmp_path / "tensors.pt"
    path.write_bytes(saved(tensors, legacy))
    check_checkpoint(path)
    checkpoint = read_checkpoint(path)
    for name, tensor in tensors.items():
        array = checkpoint.array(checkpoint.root[name])
        assert array.shape == tuple(tensor.shape)
        assert np.array_equal(array, tensor.detach().float().numpy()), name


def array_of(path: Path, **changes: Any) -> np.ndarray:
    checkpoint = read_checkpoint(path)
    reference: TensorReference = checkpoint.root["a"]
    fields = {"storage": reference.storage, "offset": 0, "size": (2, 2), "stride": (2, 1)}
    return checkpoint.array(TensorReference(**{**fields, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1},
        {"size": (3, 2)},
        {"stride": (2**38, 1)},
        {"size": (2**20, 2**20), "stride": (0, 0)},
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(saved({"a": torch.zeros(2, 2)}))
    assert array_of(path).shape == (2, 2)
    with pytest.raises(InvalidModelFile, match="exceeds its storage"):
        array_of(path, **changes)


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


YOLOV5 = opcodes(b"(dS'model'\ncmodels.yolo\nDetectionModel\n)Rs")
SAM = {"image_encoder.patch_embed.proj.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:8b\nsize 6\n", "git lfs pull"),
        (saved({"a": torch.zeros(99)})[:-200], "is truncated"),
        (saved({"a": torch.zeros(999)}, legacy=True)[:-200], "is truncated"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"nc: 3\nnames: [a, b, c]\n", "a text file"),
        (zipped(readme=b"hello"), "ordinary zip archive"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.4.0" + b"\0" * 99, "an ONNX model"),
        (struct.pack("<q", 90) + b'{"a":{"dtype":"F32"}}', "safetensors"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (bytes(range(128, 256)), "unknown format"),
        (pickle.dumps({"a": 1}), "a pickle, but not a PyTorch checkpoint"),
        (pickle.dumps({"a": 1})[:5], "is damaged"),
        (zipped(best__data_pkl=b"").replace(b"data_pkl", b"data.pkl"), "is damaged"),
        (
            zipped(x__data_pkl=pickle.dumps(0), x__constants_pkl=b"").replace(b"_pkl", b".pkl"),
            "a TorchScript archive",
        ),
        (zipped(x__data_pkl=YOLOV5).replace(b"data_pkl", b"data.pkl"), "a YOLOv5 checkpoint"),
        (saved(SAM), "a SAM checkpoint"),
        (saved({"model": collections.OrderedDict(SAM)}), "a SAM checkpoint"),
        (saved({"a.weight": torch.zeros(2)}), "weights without an architecture"),
        (saved({"epoch": 3}), "contains no model"),
        (saved(torch.zeros(3)), "contains no model"),
        (saved(torch.nn.Linear(2, 2)), "without a model yaml"),
    ],
)
def test_each_broken_file_gets_its_own_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    from models_store.foreign.convert import convert

    path = tmp_path / "best.pt"
    path.write_bytes(data)

    def read() -> None:
        check_checkpoint(path)
        convert(path, tmp_path)

    with pytest.raises(InvalidModelFile, match=sentence) as caught:
        read()
    assert str(tmp_path) not in caught.value.message


def test_a_missing_file_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelFile, match="cannot be read: No such file"):
        check_checkpoint(tmp_path / "none.pt")


def test_storage_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    whole.write_bytes(saved({"a": torch.ones(4)}))
    archive = zipfile.ZipFile(whole)
    for change in ("missing", "short"):
        path = tmp_path / f"{change}.pt"
        with zipfile.ZipFile(path, "w") as copy:
            for name in archive.namelist():
                data = archive.read(name)
                if "/data/" not in name:
                    copy.writestr(name, data)
                elif change == "short":
                    copy.writestr(name, data[:7])
        checkpoint: Checkpoint = read_checkpoint(path)
        with pytest.raises(InvalidModelFile, match=r"truncated|lacks the data"):
            checkpoint.array(checkpoint.root["a"])


class Storage:
    """A storage of float32, of as many elements as are stated."""

    def __init__(self, elements: int) -> None:
        self.elements = elements


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return "storage", torch.FloatStorage, "0", "cpu", value.elements
        return None


def stated(path: Path, elements: int, *sizes: tuple[int, ...]) -> Path:
    """A state dict of mobilenet_v2 by its names, whose tensors share a storage of 1 MiB."""
    names = ["features.0.0.weight", "classifier.1.weight", *map(str, range(len(sizes)))]
    storage = Storage(elements)
    state = {
        name: Reduced(
            torch._utils._rebuild_tensor_v2, storage, 0, size, (1,) * len(size), False,
            collections.OrderedDict(),
        )
        for name, size in zip(names, sizes, strict=False)
    }  # fmt: skip
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", buffer.getvalue())
        archive.writestr("best/data/0", bytes(2**20))
    return path


@pytest.mark.parametrize(
    ("elements", "sizes", "sentence"),
    [
        (2**39, [(2**39,)] * 2, "more than 2 GiB"),
        (2**39, [(1,), (2**39,)], "more than 2 GiB"),
        (2**28, [(2**28,)] * 2, "tensor data is missing"),
        (2**18, [(2**18,)] * 2000, "would take 2,000 MiB"),
        (2**18, [(2**30,)] * 2, "exceeds its storage"),
    ],
)
def test_stated_sizes_are_refused_before_anything_is_allocated(
    tmp_path: Path, elements: int, sizes: list[tuple[int, ...]], sentence: str
) -> None:
    checkpoint = read_checkpoint(stated(tmp_path / "a.pt", elements, *sizes))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidModelFile, match=sentence):
            check_sizes(checkpoint, model_of(checkpoint.root)[1])
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_sizes_of_an_ordinary_checkpoint_pass(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(stated(tmp_path / "a.pt", 2**18, (2**18,), (2**9,)))
    check_sizes(checkpoint, model_of(checkpoint.root)[1])


def test_a_compressed_storage_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", pickle.dumps({}))
        archive.writestr("best/data/0", bytes(2**23))
    with pytest.raises(InvalidModelFile, match="more than 200 times its packed size"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("place", [b"r\xff\xff\xff\x7f", b"p2147483647\n", b"r\xff\xff\xff\xff"])
def test_a_pickle_that_asks_for_memory_is_refused(
    tmp_path: Path, place: bytes, legacy: bool
) -> None:
    """Each place before the one that an object is stored at would take 16 bytes: up to 64 GiB."""
    bomb = b"\x80\x02}" + place + b"."
    path = tmp_path / "a.pt"
    if legacy:
        path.write_bytes(bomb)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", bomb)
    with pytest.raises(InvalidModelFile, match=r"stores object 1 at place [24],"):
        read_checkpoint(path)


@pytest.mark.properties
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6), st.booleans())
@settings(max_examples=EXAMPLES)
def test_any_change_of_a_checkpoint_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], legacy: bool
) -> None:
    data = bytearray(SAVED[legacy])
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.mktemp("pt") / "a.pt"
    path.write_bytes(data)
    with contextlib.suppress(InvalidModelFile):
        check_checkpoint(path)
        checkpoint = read_checkpoint(path)
        model_of(checkpoint.root)


SAVED = {
    legacy: saved({"a": torch.ones(4), "b": {"c": [1, "x"]}}, legacy) for legacy in (True, False)
}
