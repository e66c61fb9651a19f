"""Claims and skips: an image is given to one person at a time, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from annotation.draft_tables import Claim
from annotation.queue.claims import ClaimStore, Overlay
from database import Database
from settings import Settings

IMAGES = [f"{number:064x}" for number in range(6)]


@pytest.fixture
def claims(settings: Settings) -> Iterator[ClaimStore]:
    database = Database(settings)
    yield ClaimStore(database)
    database.close()


def free(count: int) -> Callable[[Overlay], list[str]]:
    def choose(overlay: Overlay) -> list[str]:
        return [content for content in IMAGES if content not in overlay.claims][:count]

    return choose


def expire(claims: ClaimStore) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat(timespec="milliseconds")
    with claims.database.write() as session:
        session.execute(update(Claim).values(until=past))


def test_of_people_who_claim_at_once_each_gets_others(claims: ClaimStore) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda who: claims.claim(who, free(2)), "abc"))
    assert sorted(content for some in found for content in some) == IMAGES
    assert {claim.author for claim in claims.overlay().claims.values()} == {"a", "b", "c"}


def test_a_claim_expires_by_itself(claims: ClaimStore) -> None:
    claims.claim("a", lambda _: IMAGES[:1])
    expire(claims)
    assert claims.overlay().claims == {}
    assert claims.claim("b", free(1)) == IMAGES[:1]


def test_drawing_renews_ones_own_claim_and_never_takes_anothers(claims: ClaimStore) -> None:
    claims.renew("a", IMAGES[0])
    claims.renew("b", IMAGES[0])
    assert claims.overlay().claims[IMAGES[0]].author == "a"
    expire(claims)
    claims.renew("a", IMAGES[0])
    assert claims.overlay().claims[IMAGES[0]].author == "a"
    expire(claims)
    claims.renew("b", IMAGES[0])
    assert claims.overlay().claims[IMAGES[0]].author == "b"


def test_ones_own_claims_alone_are_given_up(claims: ClaimStore) -> None:
    claims.claim("a", lambda _: IMAGES[:2])
    assert claims.release("b", IMAGES) == 0
    assert claims.release("a", IMAGES[:1]) == 1
    assert set(claims.overlay().claims) == {IMAGES[1]}


def test_a_skipped_image_is_brought_back(claims: ClaimStore) -> None:
    claims.claim("a", lambda _: IMAGES[:1])
    claims.skip("a", IMAGES[0], "blurred")
    claims.skip("b", IMAGES[0], "dark")
    found = claims.overlay()
    assert (found.skips[IMAGES[0]].author, found.skips[IMAGES[0]].reason) == ("b", "dark")
    assert found.claims == {}
    assert claims.bring_back(IMAGES) == 1
    assert claims.overlay().skips == {}
