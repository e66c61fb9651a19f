"""The limit of nested values in documents from clients, checked before a recursive parser runs.

libyaml's composer and other parsers recurse in C without a limit: 50,000 nested brackets end the
process. Every reader of bytes from clients uses this limit.
"""

from __future__ import annotations

import json

import numpy as np
import yaml

from errors import ValidationFailed

DEEPEST = 100  # maximum number of levels of nested values; real documents have fewer than 20
MOST_NODES = 1_000_000  # maximum number of values of a YAML document, aliases expanded

_STRUCTURE = b'"[]{}'
_REST = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


def too_deep(what: str) -> ValidationFailed:
    """The error for a document with more than `DEEPEST` levels."""
    return ValidationFailed(
        f"{what} has more than {DEEPEST} levels of nested values; no document needs as many. "
        "Write it flatter."
    )


def check_json_depth(data: bytes | bytearray | str, what: str) -> None:
    """Check the levels of a JSON document without parsing it.

    Args:
        data: The document; bytes in UTF-8, UTF-16 or UTF-32, as `json.loads` accepts them.
        what: The subject of the message, such as `The body`.

    Raises:
        ValidationFailed: It has more than `DEEPEST` levels.
    """
    if isinstance(data, (bytes, bytearray)):
        encoding = json.detect_encoding(data)
        text = bytes(data) if encoding == "utf-8" else _recoded(bytes(data), encoding)
    else:
        text = data.encode("utf-8", "replace")
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return
    # In valid JSON, backslashes occur in texts only; the parser refuses invalid JSON later.
    unescaped = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(unescaped.translate(None, _REST), np.uint8)
    in_text = np.bitwise_xor.accumulate(marks == ord('"'), dtype=np.bool_)
    depths = np.cumsum(_STEP[marks[~in_text]], dtype=np.int32)
    if len(depths) and int(depths.max()) > DEEPEST:
        raise too_deep(what)


def check_json_values(data: bytes, most: int, what: str) -> None:
    """Check the number of values of a JSON document without parsing it, by its commas and brackets.

    A parser holds the interpreter's lock during its call, for about a microsecond per value.
    Commas and brackets in texts count as well; base64 has none.

    Raises:
        ValidationFailed: It has more than `most` commas, or more than half as many lists and
            objects.
    """
    if data.count(b",") > most or data.count(b"[") + data.count(b"{") > most // 2:
        raise ValidationFailed(
            f"{what} has more than {most:,} values, or more than {most // 2:,} lists and objects. "
            "Send less in one request."
        )


def check_yaml_size(text: str, loader: type, what: str) -> None:
    """Check the levels and the number of values of a YAML document, aliases expanded.

    The events are read one after another; libyaml does not recurse for them.

    Args:
        text: The document.
        loader: The loader class that will read it.
        what: The subject of the message.

    Raises:
        ValidationFailed: It has more than `DEEPEST` levels, or over a million values.
        yaml.YAMLError: It is not valid YAML.
    """
    sizes: dict[str, tuple[int, int]] = {}  # anchor → levels and values of its node
    open_nodes: list[tuple[str | None, int, int]] = []  # anchor, levels below, values
    for event in yaml.parse(text, Loader=loader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, 0, 1))
            if len(open_nodes) > DEEPEST:
                raise too_deep(what)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, levels, values = open_nodes.pop()
            levels += 1
        elif isinstance(event, yaml.AliasEvent):
            levels, values = sizes.get(str(anchor), (0, 1))  # an unknown one is an error later
            anchor = None
        elif isinstance(event, yaml.ScalarEvent):
            levels, values = 0, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = levels, values
        if open_nodes:
            name, deepest, count = open_nodes[-1]
            open_nodes[-1] = name, max(deepest, levels), count + values
            if len(open_nodes) + levels > DEEPEST:
                raise too_deep(what)
            if count + values > MOST_NODES:
                raise ValidationFailed(
                    f"{what} has more than {MOST_NODES:,} values, aliases (*name) expanded. "
                    "Write it without them, or smaller."
                )


def _recoded(data: bytes, encoding: str) -> bytes:
    """The document as UTF-8; the parser refuses what cannot be decoded."""
    return data.decode(encoding, "replace").encode("utf-8", "replace")
