"""`deploy/Dockerfile.ray`: our image and Ray, whose packages agree with ours."""

from __future__ import annotations

import re

from packaging.requirements import Requirement

from tests.deploy.tools import DEPLOY, ROOT
from tests.test_requirements import installed, locked


def test_packages_that_both_have_are_the_same() -> None:
    ray = {entry.name: str(entry.specifier) for entry, _ in locked("deploy/requirements-ray.lock")}
    ours = {entry.name: str(entry.specifier) for entry, _ in locked("requirements.lock")}
    both = set(ray) & set(ours)
    assert len(both) > 10
    assert {name: ray[name] for name in both} == {name: ours[name] for name in both}


def test_the_lock_has_what_is_asked_for_with_hashes() -> None:
    (asked,) = (DEPLOY / "requirements-ray.txt").read_text().split()
    wanted = Requirement(asked)
    assert wanted.extras == {"default"}
    found = installed("deploy/requirements-ray.lock", "3.11", "x86_64")
    assert wanted.specifier.contains(found[wanted.name])
    assert all(hashes for _, hashes in locked("deploy/requirements-ray.lock"))
    assert "aiohttp" in found  # of the dashboard, which takes jobs


def test_it_is_our_image_its_user_and_the_lock() -> None:
    text = (DEPLOY / "Dockerfile.ray").read_text()
    template = (ROOT / "Dockerfile.template").read_text()
    assert re.search(r"^ARG IMAGE=visionloop:latest\nFROM \$\{IMAGE\}$", text, re.MULTILINE)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["root", "bentoml"]
    (copied,) = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert (DEPLOY / copied).is_file()
    (python,) = set(re.findall(r"--python (\S+) install", text + template))
    assert python == "/app/.venv/bin/python"
    assert "--require-hashes" in text


def test_the_service_does_not_need_ray() -> None:
    names = {entry.name for entry, _ in locked("requirements.lock")}
    assert "ray" not in names
