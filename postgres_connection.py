"""A connection of psycopg that does not wait for ever: a server may hang without closing it.

TCP keepalives find a host that is gone. A server that was stopped, or whose disk hangs, keeps the
connection and answers nothing; nor does its `statement_timeout` end anything then.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

STATEMENT_TIMEOUT = 60  # seconds that a statement may take, unless the URL or the role says it
GRACE = 5.0  # seconds more, so that the server may say so itself
PING = 2.0  # seconds to answer whether a connection of the pool is still good


class GuardedConnection(psycopg.Connection[Any]):
    """A connection that is closed when an answer takes too long.

    Attributes:
        usual: Seconds in which a statement is answered at the latest; None: there is no limit.
        answer_within: The limit of the next statements.
        chosen: `usual`, if the URL, the role or the database says how long a statement may take:
            then that holds, and not our shorter limits; None: nobody says so.
    """

    usual: float | None = STATEMENT_TIMEOUT + GRACE
    answer_within: float | None = usual
    chosen: float | None = None

    def wait(self, *arguments: Any, **named: Any) -> Any:
        limit = self.answer_within
        if limit is None or "timeout" in named:
            return super().wait(*arguments, **named)
        began = time.monotonic()
        try:
            return super().wait(*arguments, **(named | {"timeout": limit}))
        except psycopg.OperationalError as error:
            if time.monotonic() - began < limit:
                raise
            self.pgconn.finish()  # its state is not known
            raise psycopg.OperationalError(f"No answer within {limit:g} seconds.") from error
