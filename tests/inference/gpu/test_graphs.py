"""Which shapes get a graph, and who may use the slots: plain logic."""

from __future__ import annotations

import threading

import pytest

from inference.gpu.graphs import FREQUENT, KNOWN, UNUSED, GraphCache, Shape, SlotPool, bucket
from tests.support.patience import PATIENCE


def shape(images: int = 1, rows: int = 640) -> Shape:
    return images, rows, 640, 3


@pytest.mark.parametrize(
    ("images", "most", "size"),
    [(1, 32, 1), (2, 32, 2), (3, 32, 4), (5, 32, 8), (32, 32, 32), (17, 24, 24), (3, 3, 3)],
)
def test_a_batch_has_the_graph_of_the_next_power_of_two(images: int, most: int, size: int) -> None:
    assert bucket(images, most) == size
    assert images <= size <= most


def test_only_a_frequent_shape_gets_a_graph() -> None:
    cache: GraphCache[str] = GraphCache()
    for _ in range(FREQUENT - 1):
        assert cache.get(shape(1)) is None
        assert cache.get(shape(2)) is None
    assert cache.due() is None
    cache.get(shape(2))
    assert cache.due() == shape(2)
    cache.add(shape(2), "two")
    assert cache.due() is None
    assert cache.get(shape(2)) == "two"
    assert cache.get(shape(1)) is None
    assert cache.due() == shape(1)


def test_a_graph_makes_place_only_if_it_is_no_longer_used() -> None:
    cache: GraphCache[int] = GraphCache(most=2)
    for size in (1, 2):
        cache.get(shape(size))
        cache.add(shape(size), size)
    for _ in range(UNUSED - 1):  # both are used, and a third is frequent
        for size in (1, 2, 4):
            cache.get(shape(size))
        assert cache.due() is None
    for _ in range(UNUSED):
        cache.get(shape(2))
        cache.get(shape(4))
    assert cache.due() == shape(4)
    cache.add(shape(4), 4)
    assert [cache.get(shape(size)) for size in (1, 2, 4)] == [None, 2, 4]
    assert len(cache) == 2


def test_a_shape_that_cannot_be_recorded_is_not_tried_again() -> None:
    cache: GraphCache[int] = GraphCache()
    for _ in range(FREQUENT):
        cache.get(shape())
    assert cache.due() == shape()
    cache.refuse(shape())
    for _ in range(3 * FREQUENT):
        assert cache.get(shape()) is None
    assert cache.due() is None


def test_shapes_that_come_once_are_forgotten() -> None:
    cache: GraphCache[int] = GraphCache()
    for _ in range(FREQUENT - 1):
        cache.get(shape())
    for rows in range(KNOWN):
        cache.get(shape(rows=rows))
    cache.get(shape())
    assert cache.due() is None


def test_slots_are_used_by_as_many_threads_as_there_are() -> None:
    pool, both, inside, most = SlotPool(["a", "b"]), threading.Barrier(2), set(), []
    lock = threading.Lock()

    def batch() -> None:
        with pool.one() as slot:
            with lock:
                assert slot not in inside
                inside.add(slot)
                most.append(len(inside))
            both.wait(PATIENCE)  # passes only if two are inside
            with lock:
                inside.remove(slot)

    threads = [threading.Thread(target=batch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(most) == 8
    assert max(most) == 2


@pytest.mark.parametrize("patience", [0.0, PATIENCE])
def test_whoever_wants_all_slots_has_them_between_two_batches(patience: float) -> None:
    pool = SlotPool(["a", "b"], patience)
    running, finish, later = threading.Event(), threading.Event(), threading.Event()
    story: list[str] = []

    def first() -> None:
        with pool.one():
            running.set()
            assert finish.wait(PATIENCE)
            story.append("first")

    def recorder() -> None:
        with pool.all() as slots:
            story.append(f"all {len(slots)}")
            assert not later.is_set()

    def second() -> None:
        with pool.one():
            later.set()
            story.append("second")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert running.wait(PATIENCE)
    threads.append(threading.Thread(target=recorder))
    threads[1].start()
    finish.set()
    for thread in threads:
        thread.join(PATIENCE)
    threads.append(threading.Thread(target=second))
    threads[2].start()
    threads[2].join(PATIENCE)
    assert story == ["first", "all 2", "second"]


def test_a_batch_waits_while_someone_has_all_slots() -> None:
    pool, entered = SlotPool(["a", "b"]), threading.Event()

    def batch() -> None:
        with pool.one():
            entered.set()

    thread = threading.Thread(target=batch)
    with pool.all():
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(PATIENCE)
    thread.join(PATIENCE)


def test_a_failed_batch_returns_its_slot() -> None:
    pool = SlotPool(["a"])
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), pool.one():
            raise ZeroDivisionError
