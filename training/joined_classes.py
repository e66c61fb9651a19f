"""The classes of a model and of a data set as one list, joined by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class JoinedClasses:
    """All classes that either side has: first the model's, then those only the data has.

    Attributes:
        names: Of all; an id is an index into them.
        known: How many the model has; its own ids are kept.
        from_dataset: (d,) the data set's ids as ids of the union.
    """

    names: tuple[str, ...]
    known: int
    from_dataset: Ids

    @classmethod
    def of(cls, model: Sequence[str], dataset: Sequence[str]) -> JoinedClasses:
        """Joined by the exact name, else regardless of case and blanks.

        Examples:
            >>> JoinedClasses.of(["Stop", "yield"], ["yield", "stop ", "tram"]).names
            ('Stop', 'yield', 'tram')
        """
        names = list(model)
        exact = {name: i for i, name in reversed(list(enumerate(model)))}
        loose = {key_of(name): i for i, name in reversed(list(enumerate(model)))}
        ids: list[int] = []
        for name in dataset:
            found = exact.get(name, loose.get(key_of(name)))
            if found is None:
                found = loose[key_of(name)] = len(names)
                names.append(name)
            ids.append(found)
        return cls(tuple(names), len(model), np.array(ids, np.int64))

    @property
    def unknown(self) -> tuple[str, ...]:
        """What the model cannot find, because it does not know it."""
        return self.names[self.known :]

    @property
    def absent(self) -> tuple[str, ...]:
        """What the data set has no name for."""
        present = set(self.from_dataset.tolist())
        return tuple(name for i, name in enumerate(self.names[: self.known]) if i not in present)


def paired(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """Which names of two models mean the same class: second → first.

    By the exact name; regardless of case and blanks only where that is clear on both sides, as
    to a reader of letters `A` and `a` are two classes.

    Examples:
        >>> paired(["Stop", "A", "a"], ["stop", "a", "A", "tram"])
        {'stop': 'Stop', 'a': 'a', 'A': 'A'}
    """
    alike = Counter(key_of(name) for name in set(first)), Counter(key_of(n) for n in set(second))
    loose = {key_of(name): name for name in first}
    found = {}
    for name in second:
        key = key_of(name)
        if name in first:
            found[name] = name
        elif alike[0][key] == alike[1][key] == 1:
            found[name] = loose[key]
    return found


def key_of(name: str) -> str:
    """What two spellings of a class name have in common."""
    return "".join(name.lower().split())
