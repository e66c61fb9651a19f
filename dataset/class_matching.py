"""Matches the class names of a model with those of a dataset or of another model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class JoinedClasses:
    """The union of a model's and a dataset's classes: first the model's, then the dataset's others.

    Attributes:
        names: Names of all classes; a class id of the union is an index into them.
        known: Number of classes of the model. Its class ids stay the same in the union.
        from_dataset: (d,) array that maps the dataset's class ids to those of the union.
    """

    names: tuple[str, ...]
    known: int
    from_dataset: Ids

    @classmethod
    def of(cls, model: Sequence[str], dataset: Sequence[str]) -> JoinedClasses:
        """The union of both, with names matched by `matched`.

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
        """Classes of the dataset that the model does not have."""
        return self.names[self.known :]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of the model that the dataset does not have."""
        present = set(self.from_dataset.tolist())
        return tuple(name for i, name in enumerate(self.names[: self.known]) if i not in present)


def matched(known: Sequence[str], names: Sequence[str]) -> tuple[int | None, ...]:
    """The index of the known class that each name matches; None if it matches none.

    Names match if they are equal after stripping blanks; accents may be composed or not. A name
    without such a match is compared ignoring case and blanks; then it matches if exactly one known
    class does and no other name equals that class. So `A` and `a` (letters to recognise) stay two
    classes, but `Stop` matches `stop` if there is no class `Stop`.

    Examples:
        >>> matched(["Stop", "A", "a"], ["stop", "a", "A", "tram"])
        (0, 2, 1, None)
    """
    exact = {tidy(name): i for i, name in reversed(list(enumerate(known)))}
    found = [exact.get(tidy(name)) for name in names]
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
    """Pairs the class names of two models one to one: name of the second → name of the first.

    Examples:
        >>> paired(["Stop", "A", "a"], ["stop", "a", "A", "tram"])
        {'stop': 'Stop', 'a': 'a', 'A': 'A'}
    """
    found = matched(first, second)
    once = Counter(found)
    pairs = zip(second, found, strict=True)
    return {name: first[i] for name, i in pairs if i is not None and once[i] == 1}


def tidy(name: str) -> str:
    """A class name without surrounding blanks, in Unicode's composed form (NFC).

    macOS decomposes the accents in file names, and so in the names of class folders.
    """
    return unicodedata.normalize("NFC", name).strip()


def key_of(name: str) -> str:
    """A class name without case and blanks, as it is compared."""
    return "".join(tidy(name.casefold()).split())


def shown_names(names: Sequence[str], most: int) -> str:
    """The first `most` names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
