"""The union of the classes of a model and of new data: old ids are kept, new ones are appended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset.class_matching import key_of, matched, shown_names, tidy
from errors import ValidationFailed

if TYPE_CHECKING:
    from dataset.dataset import Dataset

SHOWN = 8  # names in a message
JOINTS = str.maketrans("", "", "_-.")  # `stop sign`, `stop_sign`, `stop-sign`


@dataclass(frozen=True)
class ClassUnion:
    """Class names in order of id; the first `old` ones are those of the model, unchanged.

    Classes are matched by name; see `class_matching.matched`.
    """

    names: tuple[str, ...]
    old: int

    @property
    def added(self) -> tuple[str, ...]:
        return self.names[self.old :]

    def ids(self, names: Sequence[str]) -> tuple[int | None, ...]:
        """The ids in the union of a dataset's classes; None for classes that it lacks.

        Examples:
            >>> ClassUnion(("stop", "yield", "tram"), old=2).ids(("Tram", "stop ", "bus"))
            (2, 0, None)
        """
        return matched(self.names, names)


def unite(
    old: Sequence[str],
    new: Sequence[str],
    objects: Mapping[int, int],
    asked: Sequence[str] = (),
) -> ClassUnion:
    """The union of a model's classes and those of new data.

    Args:
        old: Class names of the model.
        new: Class names of the new data.
        objects: Class id of the new data → number of objects (images, for `classify`) to train on;
            classes without any are not added.
        asked: The requested `new_classes`: exactly these are added, in this order; empty: all new
            classes are added.

    Raises:
        ValidationFailed: `new_classes` and the new data do not agree.
    """
    unknown = _unmatched(old, new)
    taught = list(dict.fromkeys(tidy(new[i]) for i in unknown if objects.get(i)))
    if not asked:
        return ClassUnion((*old, *taught), len(old))
    wanted = [tidy(asked[i]) for i in _unmatched(old, asked)]
    meant = matched(taught, wanted)
    if untaught := [name for name, i in zip(wanted, meant, strict=True) if i is None]:
        raise ValidationFailed(
            f"new_classes has {_quoted(untaught)}, but data_path has no objects of these "
            f"classes. New classes in data_path: {_quoted(taught) or 'none'}."
        )
    if left := [name for i, name in enumerate(taught) if i not in meant]:
        raise ValidationFailed(
            f"data_path has objects of {_quoted(left)}, which neither the base model nor "
            "new_classes has. Add them to new_classes, or leave it empty to learn all new "
            "classes."
        )
    first = [name for i, name in enumerate(wanted) if meant[i] not in meant[:i]]
    return ClassUnion((*old, *first), len(old))


def notes_on_classes(
    union: ClassUnion, new: Dataset, old: Dataset | None, model: str
) -> tuple[str, ...]:
    """Notes on the classes of an incremental training that a person may not expect.

    Args:
        union: The classes of the model and of the new data.
        new: The new data.
        old: The old data, if given.
        model: The model's id.
    """
    notes = notes_on_added(union, model)
    notes += notes_on_merged(union, new.names, new.counts["train"], "data_path")
    if old is not None:
        notes += notes_on_merged(union, old.names, old.counts["train"], "old_data_path")
        notes += notes_on_old_data(union, old.names, old.counts["train"], model)
    return notes


def notes_on_added(union: ClassUnion, model: str) -> tuple[str, ...]:
    """Notes on new data that add no class, or classes that are nearly named as old ones.

    Args:
        union: The classes of the model and of the new data.
        model: The model's id.
    """
    if not union.added:
        return (
            f"The new data has no class that {model} lacks, so no class is added: the training "
            "goes on with the classes that it knows. If a class is missing, check the names in "
            "data_path.",
        )
    known = {_joined(name): name for name in union.names[: union.old]}
    return tuple(
        f"The new class {name!r} is nearly named as {near!r}, which {model} knows, and is learned "
        "as a class of its own. If both are the same, name it so in data_path."
        for name in union.added
        if (near := known.get(_joined(name)))
    )


def _joined(name: str) -> str:
    """A class name without case, blanks and the signs that other tools have in their place."""
    return key_of(name).translate(JOINTS) or name


def notes_on_old_data(
    union: ClassUnion, names: Sequence[str], objects: Mapping[int, int], model: str
) -> tuple[str, ...]:
    """Notes on classes that only the model has, or only the old data.

    Args:
        union: The classes of the model and of the new data.
        names: Class names of the old data.
        objects: Class id of the old data → number of objects (images, for `classify`) in train.
        model: The model's id.
    """
    ids = union.ids(names)
    shown = {i for own, i in enumerate(ids) if objects.get(own)}
    absent = [name for i, name in enumerate(union.names[: union.old]) if i not in shown]
    unknown = [names[own] for own, i in enumerate(ids) if i is None and objects.get(own)]
    notes = []
    if absent:
        notes.append(
            f"old_data_path has no objects of {_quoted(absent)}, which {model} knows: only the old "
            "model's predictions hold them, and the forgetting report cannot measure them there. "
            "Give old data that has them, too."
        )
    if unknown:
        notes.append(
            f"old_data_path has objects of {_quoted(unknown)}, which neither {model} nor data_path "
            "teaches: they are left out."
        )
    return tuple(notes)


def notes_on_merged(
    union: ClassUnion, names: Sequence[str], objects: Mapping[int, int], field: str
) -> tuple[str, ...]:
    """Notes on classes of a dataset that are one class of the union, as `Stop` and `s top` are.

    Args:
        union: The classes of the model and of the new data.
        names: Class names of the dataset.
        objects: Class id of the dataset → number of objects (images, for `classify`) in train.
        field: The field of the request that names the dataset.
    """
    merged: dict[int, list[str]] = {}
    for own, i in enumerate(union.ids(names)):
        if i is not None and objects.get(own):
            merged.setdefault(i, []).append(names[own])
    return tuple(
        f"{_quoted(some)} of {field} are trained as one class, {union.names[i]!r}."
        for i, some in merged.items()
        if len(some) > 1
    )


def note_on_lost_classes(model: str, known: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """A note on the classes of a model that the data of its next version lacks; none if it has all.

    Args:
        model: The model's id.
        known: Its class names.
        names: Class names of the next version.
    """
    taught = set(matched(known, names))
    lost = [name for i, name in enumerate(known) if i not in taught]
    if not lost:
        return ()
    return (
        f"The new version will not know {_quoted(lost)}, which {model} knows: the data has no such "
        f"{'class' if len(lost) == 1 else 'classes'}. Mode incremental keeps what a model knows; "
        "another name keeps both models apart.",
    )


def _unmatched(known: Sequence[str], names: Sequence[str]) -> list[int]:
    return [i for i, found in enumerate(matched(known, names)) if found is None]


def shared_classes(student: Sequence[str], teacher: Sequence[str]) -> tuple[list[int], list[int]]:
    """The ids, in the student and in the teacher, of the classes that both share by name.

    Raises:
        ValidationFailed: They share no class.

    Examples:
        >>> shared_classes(("stop", "yield"), ("Yield", "tree", "Stop"))
        ([0, 1], [2, 0])
    """
    found = matched(teacher, student)
    once = Counter(found)
    pairs = [(ours, i) for ours, i in enumerate(found) if i is not None and once[i] == 1]
    if not pairs:
        raise ValidationFailed(
            f"The teacher knows none of the dataset's classes: it has {_quoted(teacher)}, the "
            f"dataset has {_quoted(student)}. Classes are matched by name; choose a teacher that "
            "was trained on some of them."
        )
    return [ours for ours, _ in pairs], [their for _, their in pairs]


def _quoted(names: Sequence[str]) -> str:
    return shown_names([repr(name) for name in names], SHOWN)
