"""The classes of a model and of a dataset as one list, joined by name."""

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
        from_dataset: (d,) the dataset's ids as ids of the union.
    """

    names: tuple[str, ...]
    known: int
    from_dataset: Ids

    @classmethod
    def of(cls, model: Sequence[str], dataset: Sequence[str]) -> JoinedClasses:
        """Joined as `matched` does it.

        Examples:
            >>> JoinedClasses.of(["Stop", "yield"], ["yield", "stop ", "tram"]).names
            ('Stop', 'yield', 'tram')
        """
        names, ids = list(model), list[int]()
        for name, found in zip(dataset, matched(model, dataset), strict=True):
            if found is None:
                found = len(names)
                names.append(name)
            ids.append(found)
        return cls(tuple(names), len(model), np.array(ids, np.int64))

    @property
    def unknown(self) -> tuple[str, ...]:
        """What the model cannot find, because it does not know it."""
        return self.names[self.known :]

    @property
    def absent(self) -> tuple[str, ...]:
        """What the dataset has no name for."""
        present = set(self.from_dataset.tolist())
        return tuple(name for i, name in enumerate(self.names[: self.known]) if i not in present)


def matched(known: Sequence[str], names: Sequence[str]) -> tuple[int | None, ...]:
    """Which of the known classes each name means: its index, or None.

    The exact name decides, but for outer blanks. Else case and all blanks are disregarded, where
    only one known class can be meant and no other name is exactly its own: to a reader of letters
    `A` and `a` are two classes, but `Stop` means `stop` where there is nothing closer.

    Examples:
        >>> matched(["Stop", "A", "a"], ["stop", "a", "A", "tram"])
        (0, 2, 1, None)
    """
    exact = {name.strip(): i for i, name in reversed(list(enumerate(known)))}
    found = [exact.get(name.strip()) for name in names]
    alike = Counter(key_of(name) for name in known)
    taken = set(found)
    clear = {
        key_of(name): i
        for i, name in enumerate(known)
        if alike[key_of(name)] == 1 and i not in taken
    }
    pairs = zip(names, found, strict=True)
    return tuple(clear.get(key_of(name)) if i is None else i for name, i in pairs)


def paired(first: Sequence[str], second: Sequence[str]) -> dict[str, str]:
    """Which names of two models mean the same class, one to one: second → first.

    Examples:
        >>> paired(["Stop", "A", "a"], ["stop", "a", "A", "tram"])
        {'stop': 'Stop', 'a': 'a', 'A': 'A'}
    """
    found = matched(first, second)
    once = Counter(found)
    pairs = zip(second, found, strict=True)
    return {name: first[i] for name, i in pairs if i is not None and once[i] == 1}


def key_of(name: str) -> str:
    """What two spellings of a class name have in common."""
    return "".join(name.lower().split())
