"""XML that a stranger may have written: no document type, no entities, bounded size and depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from errors import ValidationFailed

DEEPEST = 32  # elements inside one another
START = 4096  # characters in which the root's name must stand

_DECLARED = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ROOT = re.compile(r"<([A-Za-z_][\w.-]*)[\s/>]")
_BEFORE_ROOT = re.compile(r"<\?.*?\?>|<!--.*?-->", re.DOTALL)
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))

XmlFormat = Literal["voc", "cvat_xml"]


def xml_format(text: str | bytes) -> XmlFormat | None:
    """Which tool's document it looks like, by its root: `<annotation>` is Pascal VOC's,
    `<annotations>` CVAT's. None: neither."""
    begin = text[:START] if isinstance(text, str) else _decoded(text[:START], "ignore")
    root = _ROOT.search(_BEFORE_ROOT.sub("", begin))
    found: dict[str, XmlFormat] = {"annotation": "voc", "annotations": "cvat_xml"}
    return found.get(root[1]) if root else None


def parse_xml(
    text: str | bytes,
    what: str,
    longest: int,
    each: Callable[[Element], None] | None = None,
) -> Element:
    """The root of a document.

    Args:
        text: Bytes in the encoding that they declare, or a text.
        what: Its name in messages, such as `Pascal VOC document`.
        longest: Bytes or characters it may have.
        each: Called with each child of the root when it is complete; the child is emptied
            afterwards, so that a long document is never in memory as a whole.

    Raises:
        ValidationFailed: It is too long or deep, no valid XML, or has a document type.
    """
    if len(text) > longest:
        raise ValidationFailed(f"The {what} is over {longest // 2**20} MiB. Send it in parts.")
    if isinstance(text, bytes):
        try:
            text = _decoded(text, "strict")
        except (UnicodeError, LookupError):
            raise ValidationFailed(
                f"The {what} is not in the encoding that it declares (UTF-8 where it declares "
                "none). Save it as UTF-8."
            ) from None
    parser = ElementTree.XMLParser(target=_Bounded(what, each), encoding="utf-8")
    try:
        parser.feed(text.encode("utf-8"))
        root = parser.close()
    except (ElementTree.ParseError, UnicodeError, ValueError) as error:
        raise ValidationFailed(f"The {what} is no valid XML: {error!s:.120}.") from None
    assert isinstance(root, Element)
    return root


def tag(name: str, attributes: Mapping[str, object], text: str = "", end: bool = True) -> str:
    """An element as XML, with all its characters as they are.

    Raises:
        ValidationFailed: A value has a character that XML cannot hold.
    """
    pairs = "".join(f" {key}={quoteattr(legal(str(value)))}" for key, value in attributes.items())
    if not end:
        return f"<{name}{pairs}>"
    if not text:
        return f"<{name}{pairs}/>"
    return f"<{name}{pairs}>{escape(legal(text), {chr(13): '&#13;'})}</{name}>"


def number(value: float) -> str:
    """Whole numbers without a point: many readers take only those."""
    return f"{value:.9g}"


def text_of(element: Element | None) -> str:
    """What stands in an element, without the line breaks and blanks of a pretty printer."""
    text = (element.text if element is not None else None) or ""
    return text.strip() if text.lstrip(" \t\r").startswith("\n") else text


def legal(text: str) -> str:
    """The text, if XML can hold it.

    Raises:
        ValidationFailed: It has a character that XML cannot hold.
    """
    if found := _NOT_IN_XML.search(text):
        raise ValidationFailed(
            f"XML cannot hold the character {found[0]!a} of {text[:60]!a}. Use label_studio, "
            "yolo, coco or labelme, or rename it."
        )
    return text


def _decoded(data: bytes, errors: str) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors)
    declared = _DECLARED.match(data)
    return data.decode(declared[1].decode() if declared else "utf-8", errors)


class _Bounded(ElementTree.TreeBuilder):
    """Ends at a document type, which is where entities and outside addresses are declared."""

    def __init__(self, what: str, each: Callable[[Element], None] | None) -> None:
        super().__init__()
        self._what, self._each, self._depth = what, each, 0
        self._root: Element | None = None

    def doctype(self, *_: object) -> None:
        raise ValidationFailed(f"The {self._what} must not have a DOCTYPE. Remove it.")

    def start(self, name: Any, attributes: dict[Any, Any], /) -> Element:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValidationFailed(
                f"The {self._what} has over {DEEPEST} elements inside one another."
            )
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
