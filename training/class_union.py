"""The classes of a model and of new data together: old ids stay, new ones follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from errors import ValidationFailed

SHOWN = 8  # names in a message


@dataclass(frozen=True)
class ClassUnion:
    """Class names in order of id; the first `old` ones are the model's, unchanged.

    Names decide which classes are the same, without regard to case and outer blanks.
    """

    names: tuple[str, ...]
    old: int

    @property
    def added(self) -> tuple[str, ...]:
        return self.names[self.old :]

    def ids(self, names: Sequence[str]) -> tuple[int | None, ...]:
        """Where the classes of a data set are in the union; None: nowhere.

        Examples:
            >>> ClassUnion(("stop", "yield", "tram"), old=2).ids(("Tram", "stop ", "bus"))
            (2, 0, None)
        """
        known = {plain(name): i for i, name in enumerate(self.names)}
        return tuple(known.get(plain(name)) for name in names)


def plain(name: str) -> str:
    """As Ultralytics compares class names."""
    return name.strip().lower()


def unite(
    old: Sequence[str],
    new: Sequence[str],
    objects: Mapping[int, int],
    asked: Sequence[str] = (),
) -> ClassUnion:
    """The union of a model's classes and those that new data teaches.

    Args:
        old: The model's names.
        new: The new data's names.
        objects: New data's class id → objects (images) to train on; a class with none of them is
            not added.
        asked: `new_classes`: exactly these are added, in this order; empty: all that are new.

    Raises:
        ValidationFailed: `new_classes` and the new data do not agree.
    """
    known = {plain(name) for name in old}
    taught = {
        plain(name): name.strip()
        for i, name in enumerate(new)
        if objects.get(i) and plain(name) not in known
    }
    if not asked:
        return ClassUnion((*old, *taught.values()), len(old))
    wanted = {plain(name): name.strip() for name in asked if plain(name) not in known}
    if unknown := [name for key, name in wanted.items() if key not in taught]:
        raise ValidationFailed(
            f"new_classes has {_listed(unknown)}, of which data_path has nothing to train on. It "
            f"teaches: {_listed(list(taught.values())) or 'no class that the model does not know'}."
        )
    if left := [name for key, name in taught.items() if key not in wanted]:
        raise ValidationFailed(
            f"data_path has objects of {_listed(left)}, which neither the base model nor "
            "new_classes has. Add them to new_classes, or leave it empty to learn all that is new."
        )
    return ClassUnion((*old, *wanted.values()), len(old))


def shared_classes(student: Sequence[str], teacher: Sequence[str]) -> tuple[list[int], list[int]]:
    """The ids, on either side, of the classes that both know by name.

    Raises:
        ValidationFailed: There are none.

    Examples:
        >>> shared_classes(("stop", "yield"), ("Yield", "tree", "Stop"))
        ([0, 1], [2, 0])
    """
    theirs = {plain(name): i for i, name in enumerate(teacher)}
    pairs = [(i, theirs[plain(name)]) for i, name in enumerate(student) if plain(name) in theirs]
    if not pairs:
        raise ValidationFailed(
            f"The teacher knows none of the classes: it has {_listed(teacher)}, the data set has "
            f"{_listed(student)}. Names decide; choose a teacher that was trained on them."
        )
    return [ours for ours, _ in pairs], [their for _, their in pairs]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
