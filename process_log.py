"""The log of a process: the form of its lines, and the level from which they are written.

`configure` is for the processes of a server. Every line that any code logs goes to stdout, one
line a record, as text or as JSON; so do warnings, uncaught exceptions and, as JSON, printed text.
`configure_job` is for the process of a job, whose output becomes the job's log.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import re
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import tracing
from request_id import REQUEST_ID
from settings import Settings

ACCESS = logging.getLogger("visionloop.access")  # a line a request
_OURS = ("visionloop", "bentoml", "py.warnings")  # the others are libraries
_WITH_HANDLERS = ("bentoml", "circus", "uvicorn.error", "uvicorn.access", "py.warnings")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BUT_LINES = re.compile(_CONTROL.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "request_id"}
_PRINTED = logging.getLogger("visionloop.printed")
_STDERR = logging.getLogger("visionloop.stderr")
_LONGEST_LINE = 8192  # bytes of a line of stderr; what is longer becomes several records
_LAST_WORDS = 2.0  # seconds at the end for what the other processes still write to stderr


def _escaped(text: str, what: re.Pattern[str] = _CONTROL) -> str:
    return what.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class SingleLineRecord(logging.LogRecord):
    """A log record that is one line, whatever texts of clients it has.

    Control characters, those that turn the direction of text, and halves of surrogate pairs are
    escaped. The lines of a traceback are indented, as an exception's message may have several.

    Attributes:
        request_id: Of the request in whose context it was made; None: of no request.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.request_id = REQUEST_ID.get()
        if (trace := tracing.trace_id()) is not None:
            self.trace_id = trace
        if self.exc_info and self.exc_info[0] is not None:
            text = logging.Formatter().formatException(self.exc_info)
            self.exc_text = textwrap.indent(_escaped(text, _BUT_LINES), "  ", lambda _: True)

    def getMessage(self) -> str:
        return _escaped(super().getMessage())

    def raw_message(self) -> str:
        """The message with its line ends and control characters."""
        return super().getMessage()


class TextFormatter(logging.Formatter):
    """Lines of BentoML's form: time, level, process, message, and the request's id."""

    def __init__(self, process: Callable[[], str]) -> None:
        super().__init__("%(asctime)s [%(levelname)s] ", "%Y-%m-%dT%H:%M:%S%z")
        self.process = process

    def formatMessage(self, record: logging.LogRecord) -> str:
        request_id = getattr(record, "request_id", None)
        behind = f" (request={request_id})" if request_id else ""
        return f"{super().formatMessage(record)}[{self.process()}] {record.message}{behind}"


class JsonFormatter(logging.Formatter):
    """One JSON object a record: its standard fields, those of `extra`, and the traceback."""

    def __init__(self, process: Callable[[], str]) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        raw = isinstance(record, SingleLineRecord)
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": self.process(),
            "message": record.raw_message() if raw else record.getMessage(),  # type: ignore[attr-defined]
        }
        if request_id := getattr(record, "request_id", None):
            entry["request_id"] = request_id
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        elif record.exc_text:
            entry["exception"] = record.exc_text
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry, default=str)  # only ASCII: no text can look like another line


class _Printed(io.TextIOBase):
    """A `sys.stdout` whose lines are log records."""

    def __init__(self) -> None:
        self._rest = threading.local()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._rest, "text", "") + text).split("\n")
        self._rest.text = rest
        for line in lines:
            if line.strip():
                _PRINTED.info("%s", line)
        return len(text)


def configure(settings: Settings, process: Callable[[], str], stream: TextIO | None = None) -> None:
    """Have every logger of this process write to stdout; further calls change the name only.

    Args:
        settings: The level and the form.
        process: The name of the process; it is asked for every line, as it may come later.
        stream: Instead of stdout.
    """
    as_json = settings.log_format == "json"
    if stream is None:
        stream = sys.__stdout__
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(process) if as_json else TextFormatter(process))
    logging.setLogRecordFactory(SingleLineRecord)
    for name in _WITH_HANDLERS:  # BentoML gives them handlers of its own
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.disabled = False
    logging.getLogger().handlers[:] = [handler]
    _set_levels(settings.log_level)
    logging.captureWarnings(True)
    _log_uncaught()
    if as_json:
        sys.stdout = _Printed()


def capture_stderr() -> None:
    """Log from now on what this process, and those that it starts, write to stderr.

    Libraries in C, `faulthandler` and an interpreter that ends write there past the loggers.
    """
    reading, writing = os.pipe()
    before = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_log_lines, args=(reading,), name="stderr", daemon=True)
    thread.start()

    def end() -> None:
        os.dup2(before, 2)  # closes our end of the pipe; the others' are closed when they end
        thread.join(_LAST_WORDS)

    atexit.register(end)


def _log_lines(descriptor: int) -> None:
    with open(descriptor, "rb") as pipe:
        while line := pipe.readline(_LONGEST_LINE):
            if text := line.decode("utf-8", "replace").rstrip():
                fields = {"name": _STDERR.name, "levelno": logging.WARNING, "msg": text}
                record = logging.makeLogRecord({**fields, "levelname": "WARNING"})
                _STDERR.callHandlers(record)  # whatever the level: a process may have ended of it


def configure_job(settings: Settings) -> None:
    """Have the loggers of a job's process write to stderr, which becomes the job's log.

    Libraries and our own code say there what is a warning or worse; with DEBUG, everything.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    logging.setLogRecordFactory(SingleLineRecord)
    logging.getLogger().handlers[:] = [handler]
    quiet = "WARNING" if settings.log_level == "INFO" else settings.log_level
    _set_levels(quiet)
    logging.captureWarnings(True)


def last_words(text: str) -> str:
    """What a process says that ends before its log is open, in the form that the log would have."""
    if os.environ.get("VISIONLOOP_LOG_FORMAT") != "json":
        return text
    fields = {"name": "visionloop", "levelno": logging.CRITICAL, "msg": text}
    record = logging.makeLogRecord({**fields, "levelname": "CRITICAL"})
    return JsonFormatter(lambda: "supervisor").format(record)


def _set_levels(level: str) -> None:
    """Ours from `level` on, libraries from WARNING on; with DEBUG, libraries from INFO on."""
    number: int = logging.getLevelNamesMapping()[level]
    others = logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING)
    logging.getLogger().setLevel(others)
    for name in _OURS:
        logging.getLogger(name).setLevel(number)
    for name in ("circus", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # `ACCESS` has the requests


def _log_uncaught() -> None:
    log = logging.getLogger("visionloop")

    def of_process(
        kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, where)
        else:
            log.critical("The process ends", exc_info=(kind, error, where))

    def of_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is not SystemExit and found.exc_value is not None:
            name = found.thread.name if found.thread else "?"
            what = (found.exc_type, found.exc_value, found.exc_traceback)
            log.error("The thread %s ends", name, exc_info=what)

    def of_object(found: Any) -> None:
        what = (found.exc_type, found.exc_value, found.exc_traceback)
        said = found.err_msg or "An exception was ignored"
        log.error("%s: %r", said, found.object, exc_info=what)

    sys.excepthook = of_process
    threading.excepthook = of_thread
    sys.unraisablehook = of_object
