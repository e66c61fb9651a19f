"""Where all chance in the tests comes from: one number, so that a failure can be repeated.

`TEST_SEED=3 make test` draws other images, weights, hypothesis examples and another
order of the tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

VARIABLE = "TEST_SEED"
LARGEST = 20_000  # derived seeds stay below 2³¹, what a training takes
PLACES = 100_000  # a place is below this
_STEP = 100_003  # prime: the seeds of two runs do not meet


def read(text: str) -> int:
    """The number that the variable's text means.

    Raises:
        ValueError: It is none, or too large.
    """
    if not (text.isascii() and text.isdecimal()) or int(text) > LARGEST:
        raise ValueError(f"{VARIABLE} is {text!r}; give an integer from 0 to {LARGEST}.")
    return int(text)


SEED = read(os.environ.get(VARIABLE, "0"))


def derived(place: int = 0) -> int:
    """The seed of this run for a place in the tests; `place` itself in the run of seed 0."""
    return SEED * _STEP + place


def rng(*place: int) -> np.random.Generator:
    """A generator of this run, the same for the same place."""
    return np.random.default_rng((derived(place[0]), *place[1:]) if place[1:] else derived(*place))


@contextmanager
def drawing(place: int = 0) -> Iterator[None]:
    """What torch draws meanwhile depends on the place only; its generator is left as it was.

    Weights of a network that is made once and used by several tests would else depend on which
    of them runs first.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived(place))
        yield
