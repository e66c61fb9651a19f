"""The console knows what the server says in Chinese: every code, and the sentences of the areas
that annotators and owners of models meet most.

The server speaks English on the wire. The console translates what it knows (console/src/said), so
a sentence that is worded anew here needs its Chinese there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import errors
from dataset.issues import HEADLINES
from tests.support.serving import ROOT

CATALOGUE = json.loads((ROOT / "console" / "src" / "said" / "zh.json").read_text(encoding="utf-8"))
SENTENCES: dict[str, str] = CATALOGUE["sentences"]

# Uploads, labels, drafts, jobs, the gate, exports, sign-in: packages, and modules.
AREAS = (
    "api/app.py", "api/job_control.py", "api/predictions.py", "api/requests.py",
    "api/thread_pool.py", "api/middleware", "api/routes", "api/console", "access", "annotation",
    "annotation/browse", "annotation/corrections", "annotation/drafts", "annotation/queue",
    "annotation/uploads", "dataset", "dataset/browse", "dataset/documents", "dataset/shared",
    "engines", "evaluation", "jobs", "models_store/decision_log.py", "models_store/live_models.py",
    "models_store/names.py", "models_store/publication.py", "models_store/registry.py",
    "models_store/versions.py", "database_errors.py", "disk_space.py", "inference/images.py",
    "nesting.py",
)  # fmt: skip

# Deliberately English: what operators meet at a shell, in a log or in a program of their own.
ENGLISH = frozenset(
    {
        "api/console/pages.py", "api/routes/local_files.py", "api/routes/webhooks.py",
        "dataset/allowed_roots.py", "dataset/contact_sheet.py", "dataset/shared/parts.py",
        "engines/child.py", "engines/quantise.py", "engines/trial.py", "engines/trial_job.py",
        "engines/trial_submission.py",
    }
)  # fmt: skip
FEWEST = 10  # letters of a sentence's own: with fewer it only joins others, which are translated

# Modules whose sentences are no errors: decisions, reasons, and how workers end.
REASONS = (
    "evaluation/gate.py", "annotation/priority.py", "jobs/processes.py",
    "training/planning/gpus.py",
)  # fmt: skip


def modules(areas: tuple[str, ...]) -> Iterator[Path]:
    for area in areas:
        path = ROOT / area
        yield from sorted(path.glob("*.py")) if path.is_dir() else [path]


def template(node: ast.expr) -> str | None:
    """A text as the catalogue has it, with {} for each value; None: it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = template(node.left), template(node.right)
        return None if parts == (None, None) else "".join(part or "{}" for part in parts)
    return None


def said_in(path: Path) -> Iterator[str]:
    """The sentences of the errors that a module makes."""
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.VisionLoopError)
    }
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_error = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if is_error and node.func.id in kinds and node.args:  # type: ignore[attr-defined]
            found = template(node.args[0])  # type: ignore[attr-defined]
            if found and len(re.findall(r"[A-Za-z]", found.replace("{}", ""))) >= FEWEST:
                yield found


def all_codes() -> set[str]:
    """The codes that a server answers: those of `errors`, whatever other tests have imported."""
    kinds = [errors.VisionLoopError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return {kind.code for kind in kinds if kind.__module__ == errors.__name__}


def test_every_code_of_an_error_is_known_in_chinese() -> None:
    assert all_codes() <= CATALOGUE["codes"].keys()
    assert CATALOGUE["codes"].keys() <= all_codes(), "a code that is gone"


@pytest.mark.parametrize("area", AREAS)
def test_the_sentences_of_an_area_are_known_in_chinese(area: str) -> None:
    found = {
        sentence
        for path in modules((area,))
        if path.relative_to(ROOT).as_posix() not in ENGLISH
        for sentence in said_in(path)
    }
    unknown = sorted(found - SENTENCES.keys())
    assert not unknown, "say it in console/src/said/zh.json, and run `make console`"


def test_each_problem_of_a_dataset_is_known_in_chinese() -> None:
    unknown = {f"{headline}: {{}} ({{}})." for headline in HEADLINES.values()} - SENTENCES.keys()
    assert not unknown


@pytest.mark.parametrize("module", REASONS)
def test_reasons_are_known_in_chinese(module: str) -> None:
    """Each whole sentence, and each with its values: what it has by its words stands there."""
    known = " ".join(SENTENCES)
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found = template(node) or ""
            if found.endswith((".", ")")) and " " in found:
                longest = max(found.split("{}"), key=len)
                assert longest in known, found


@pytest.mark.parametrize("module", ["base_models.py", "plan.py"])
def test_notes_on_a_training_are_known_in_chinese(module: str) -> None:
    """The texts that are given as `sentence`, and those of tuples of notes."""
    found = set()
    source = (ROOT / "training" / "planning" / module).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr] = []
        match node:
            case ast.Assign(targets=[ast.Name(id="sentence")], value=value):
                parts = [value]
            case ast.keyword(arg="sentence", value=value):
                parts = [value]
            case ast.Tuple(elts=values):
                parts = values
        found |= {text for part in parts if (text := template(part)) and text.endswith(".")}
    assert found
    assert not sorted(found - SENTENCES.keys())


def test_a_translation_has_the_values_of_its_sentence() -> None:
    for english, chinese in SENTENCES.items():
        used = {int(number) for number in re.findall(r"\{(\d+)\}", chinese)}
        assert used == set(range(english.count("{}"))), english
        assert "{}" not in chinese
        assert re.search(r"[\u4e00-\u9fff]", chinese), english


def test_nothing_is_translated_that_is_not_said_any_more() -> None:
    """Each sentence's longest part is in the server's source."""
    folders = {path.split("/")[0] for path in AREAS} | {"field_names.py", "training"}
    texts = []
    for folder in sorted(folders):
        path = ROOT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            texts += [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    source = "\n".join([*texts, (ROOT / "errors.py").read_text(encoding="utf-8")]).lower()
    gone = [
        english
        for english in SENTENCES
        if max(english.split("{}"), key=len).strip(" :.;({}").lower() not in source
    ]
    assert gone == []
