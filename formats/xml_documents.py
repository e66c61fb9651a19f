"""Parses untrusted XML (no DOCTYPE or entities, limited size and depth); writes XML elements."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from errors import ValidationFailed
from nesting import DEEPEST, too_deep

START = 4096  # characters that are searched for the root element

_DECLARED = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ROOT = re.compile(r"<([A-Za-z_][\w.-]*)[\s/>]")
_BEFORE_ROOT = re.compile(r"<\?.*?\?>|<!--.*?-->", re.DOTALL)
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))

XmlFormat = Literal["voc", "cvat_xml"]


def xml_format(text: str | bytes) -> XmlFormat | None:
    """The format of a document by its root element: `<annotation>` is Pascal VOC, `<annotations>`
    is CVAT XML; None for any other."""
    begin = text[:START] if isinstance(text, str) else _beginning(text[:START])
    root = _ROOT.search(_BEFORE_ROOT.sub("", begin))
    found: dict[str, XmlFormat] = {"annotation": "voc", "annotations": "cvat_xml"}
    return found.get(root[1]) if root else None


def parse_xml(
    text: str | bytes,
    what: str,
    longest: int,
    each: Callable[[Element], None] | None = None,
) -> Element:
    """Parses an XML document and returns its root element.

    Args:
        text: Bytes in the encoding that they declare, or a text.
        what: What the document is, for messages, such as `Pascal VOC document`.
        longest: Most bytes or characters.
        each: Called with each complete child of the root. The child is removed afterwards, so that
            a long document is never completely in memory.

    Raises:
        ValidationFailed: It is too long, nested too deeply, not valid XML, or has a DOCTYPE.
    """
    if len(text) > longest:
        raise ValidationFailed(f"The {what} is over {longest // 2**20} MiB. Split it.")
    if isinstance(text, bytes):
        try:
            text = _decoded(text, "strict")
        except (UnicodeError, LookupError):
            raise ValidationFailed(
                f"The {what} does not have the encoding that it declares (default: UTF-8). Save it "
                "as UTF-8."
            ) from None
    parser = ElementTree.XMLParser(target=_Bounded(what, each), encoding="utf-8")
    try:
        parser.feed(text.encode("utf-8"))
        root = parser.close()
    except (ElementTree.ParseError, UnicodeError, ValueError) as error:
        raise ValidationFailed(
            f"The {what} is not valid XML: {error!s:.120}. Export it again."
        ) from None
    assert isinstance(root, Element)
    return root


def tag(name: str, attributes: Mapping[str, object], text: str = "", end: bool = True) -> str:
    """The XML text of an element, escaped; only its start tag if `end` is false.

    Raises:
        ValidationFailed: A value has a character that XML cannot represent.
    """
    pairs = "".join(f" {key}={quoteattr(legal(str(value)))}" for key, value in attributes.items())
    if not end:
        return f"<{name}{pairs}>"
    if not text:
        return f"<{name}{pairs}/>"
    return f"<{name}{pairs}>{escape(legal(text), {chr(13): '&#13;'})}</{name}>"


def number(value: float) -> str:
    """A number as text; whole numbers without a decimal point, as many readers require."""
    return f"{value:.9g}"


def text_of(element: Element | None) -> str:
    """The text of an element, without the line breaks and blanks of pretty-printed XML."""
    text = (element.text if element is not None else None) or ""
    return text.strip() if text.lstrip(" \t\r").startswith("\n") else text


def legal(text: str) -> str:
    """The text unchanged, if XML can represent it.

    Raises:
        ValidationFailed: It has a character that XML cannot represent.
    """
    if found := _NOT_IN_XML.search(text):
        raise ValidationFailed(
            f"XML cannot represent the character {found[0]!a} in {text[:60]!a}. Rename it, or use "
            "the format label_studio, yolo, coco or labelme."
        )
    return text


def _beginning(data: bytes) -> str:
    try:
        return _decoded(data, "ignore")
    except (UnicodeError, LookupError):  # declares no encoding of texts; `parse_xml` refuses it
        return data.decode("ascii", "ignore")


def _decoded(data: bytes, errors: str) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors)
    declared = _DECLARED.match(data)
    return data.decode(declared[1].decode() if declared else "utf-8", errors)


class _Bounded(ElementTree.TreeBuilder):
    """Rejects a DOCTYPE, which could declare entities and external files, and deep nesting."""

    def __init__(self, what: str, each: Callable[[Element], None] | None) -> None:
        super().__init__()
        self._what, self._each, self._depth = what, each, 0
        self._root: Element | None = None

    def doctype(self, *_: object) -> None:
        raise ValidationFailed(f"The {self._what} must not have a DOCTYPE. Remove it.")

    def start(self, name: Any, attributes: dict[Any, Any], /) -> Element:
        self._depth += 1
        if self._depth > DEEPEST:
            raise too_deep(f"The {self._what}")
        element = super().start(name, attributes)
        self._root = element if self._root is None else self._root
        return element

    def end(self, name: str, /) -> Element:
        self._depth -= 1
        element = super().end(name)
        if self._each is not None and self._depth == 1 and self._root is not None:
            self._each(element)
            element.clear()
            self._root.remove(element)
        return element
