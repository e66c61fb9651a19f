"""The one object store of a database: all that share the database put their files there.

The database of several machines has the URL of the store in its table `state`, from the first
server on that names one. A process with another URL would miss files that rows name.
"""

from __future__ import annotations

import hashlib

from database import Database, State
from errors import Conflict

STORE = "store"  # key in the table `state`
LONGEST = 200  # characters of `State.text`


def agree_on_store(database: Database) -> None:
    """Note the object store of the settings, if the database has none yet.

    The URL has no credentials. Which server it leads to is not compared, as the same one may have
    several addresses (AWS_ENDPOINT_URL).

    Raises:
        Conflict: The database has another one.
        DatabaseBusy: It cannot be reached.
    """
    url = database.settings.store_url
    if not database.is_shared or url is None:
        return
    ours = _shortened(url.rstrip("/"))
    with database.read() as session:
        found = session.get(State, STORE)
    if found is None:
        with database.write() as session:
            found = session.get(State, STORE)
            if found is None:
                session.add(State(key=STORE, text=ours))
                return
    if found.text != ours:
        raise Conflict(
            f"VISIONLOOP_STORE_URL is {ours}, and the files of this database are in {found.text}. "
            "Set it to that on all machines. To move the files, migrate to a home and from there "
            "to an empty database with the other store (`visionloop migrate`)."
        )


def _shortened(url: str) -> str:
    """A URL as its column takes it: the end of a long one is a hash."""
    if len(url) <= LONGEST:
        return url
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return f"{url[: LONGEST - len(digest) - 1]}…{digest}"
