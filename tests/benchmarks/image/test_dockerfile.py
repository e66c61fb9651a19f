from __future__ import annotations

import pytest

from benchmarks.image.dockerfile import Image, instructions

TEXT = r"""
# syntax = docker/dockerfile:1
FROM python:3.11.14-slim-bookworm AS base-container
ARG NAME=bentoml
ENV HOME_OF=/home/$NAME
ENV TWO="a b" PATH=/app/bin:${PATH}
# between
RUN --mount=type=cache,target=/root/.cache set -eu; \
    # a comment within
    echo "$NAME" \$HOME
COPY --chown=root:root ./src/a ./src/b ./to/
WORKDIR $HOME_OF
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=10s CMD curl -f "localhost:$PORT" || exit 1
USER $NAME
ENTRYPOINT [ "/entry point.sh", "serve" ]
"""


def built(text: str, **build_args: str) -> Image:
    image = Image(build_args)
    for step in instructions(text):
        image.take(step)
    return image


def test_an_image_has_what_its_instructions_say() -> None:
    image = built(TEXT)
    assert image.base == "python:3.11.14-slim-bookworm"
    assert image.env["HOME_OF"] == image.workdir == "/home/bentoml"
    assert image.env["TWO"] == "a b"
    assert image.env["PATH"].startswith("/app/bin:/usr/local/bin:")
    assert image.exposed == ["3000"]
    assert image.user == "bentoml"
    assert image.entrypoint == ["/entry point.sh", "serve"]
    assert image.healthcheck == ["/bin/sh", "-c", 'curl -f "localhost:$PORT" || exit 1']
    assert image.run_env["NAME"] == "bentoml"
    assert "NAME" not in image.env


def test_a_build_argument_wins_over_its_default() -> None:
    assert built(TEXT, NAME="other").user == "other"


def test_a_command_keeps_its_variables_for_the_shell() -> None:
    (run,) = (step for step in instructions(TEXT) if step.name == "RUN")
    assert run.flags == (("mount", "type=cache,target=/root/.cache"),)
    assert run.command() == ["/bin/sh", "-c", 'set -eu;     echo "$NAME" \\$HOME']


def test_an_unknown_instruction_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown instruction in the Dockerfile: ONBUILD"):
        list(instructions("FROM a\nONBUILD RUN true"))
