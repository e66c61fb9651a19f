"""Hosts that could not be reached a moment ago; every process of one VISIONLOOP_HOME knows them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from files import atomic_write

REMEMBERED = 600.0  # seconds within which a host is not tried again


@dataclass(frozen=True)
class Failure:
    """The last failure of a host: when (seconds since 1970), and the reason as a sentence."""

    at: float
    reason: str

    @property
    def again_at(self) -> str:
        """When it is tried again, as a time of the day in UTC."""
        return time.strftime("%H:%M UTC", time.gmtime(self.at + REMEMBERED))


class FailedHosts:
    """The failures of the last ten minutes, in a file. A damaged file counts as empty."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._path = folder / "unreachable.json"
        self._now = now

    def get(self, host: str) -> Failure | None:
        """The failure of a host, if it is recent."""
        return self._read().get(host)

    def add(self, host: str, reason: str) -> None:
        """Remember that a host failed now."""
        self._change(host, Failure(self._now(), reason))

    def remove(self, host: str) -> None:
        """Forget a failure, because the host was reached."""
        if host in self._read():
            self._change(host, None)

    def _change(self, host: str, failure: Failure | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._path.with_suffix(".lock")):
            known = self._read()
            known.pop(host, None)
            if failure is not None:
                known[host] = failure
            content = {name: {"at": one.at, "reason": one.reason} for name, one in known.items()}
            atomic_write(self._path, json.dumps(content))

    def _read(self) -> dict[str, Failure]:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            found = {
                host: Failure(float(one["at"]), str(one["reason"])) for host, one in stored.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        now = self._now()
        return {host: one for host, one in found.items() if 0 <= now - one.at < REMEMBERED}
