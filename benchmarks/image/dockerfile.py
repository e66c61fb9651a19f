"""Reads a Dockerfile: its instructions, with ARG and ENV replaced as a build does.

`python -m benchmarks.image.dockerfile FILE` writes the Dockerfile from which the command
`bentoml containerize visionloop:latest` would build the image.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shell import Parser

VARIABLE = re.compile(r"\\\$|\$(?:\{(?P<braced>\w+)\}|(?P<bare>\w+))")
REPLACED = {"ADD", "COPY", "ENV", "EXPOSE", "FROM", "LABEL", "STOPSIGNAL", "USER", "WORKDIR"}
KNOWN = REPLACED | {"ARG", "ENTRYPOINT", "HEALTHCHECK", "RUN"}


@dataclass(frozen=True)
class Instruction:
    """One instruction: `COPY --chown=a b c` has the flag `chown` and the arguments `b c`."""

    name: str
    flags: tuple[tuple[str, str], ...]
    arguments: str

    def words(self) -> list[str]:
        """The arguments of the JSON form, or of the shell form split into words."""
        if self.arguments.startswith("["):
            return [str(word) for word in json.loads(self.arguments)]
        return shlex.split(self.arguments)

    def command(self) -> list[str]:
        """The command that RUN, ENTRYPOINT or CMD executes; the shell form with `/bin/sh -c`."""
        return self.words() if self.arguments.startswith("[") else ["/bin/sh", "-c", self.arguments]


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile as they are written.

    Raises:
        ValueError: This module does not know an instruction.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        if not entry.strip():
            continue
        name, _, rest = entry.strip().partition(" ")
        if name.upper() not in KNOWN:
            raise ValueError(f"Unknown instruction in the Dockerfile: {entry.strip()[:80]}")
        flags, rest = _flags(rest.strip())
        yield Instruction(name.upper(), flags, rest)


def _flags(rest: str) -> tuple[tuple[tuple[str, str], ...], str]:
    flags = []
    while found := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags.append((found[1], found[2]))
        rest = rest[found.end() :]
    return tuple(flags), rest


def replaced(text: str, variables: Mapping[str, str]) -> str:
    """`text` with `$NAME` and `${NAME}` replaced; an unknown name becomes empty."""

    def value(found: re.Match[str]) -> str:
        if found[0] == r"\$":
            return "$"
        return variables.get(found["braced"] or found["bare"], "")

    return VARIABLE.sub(value, text)


class Image:
    """The state of a build; call `take` with every instruction, in order.

    Attributes:
        base: The image named by FROM.
        env: The environment variables of ENV, and the PATH of the base image.
        healthcheck: The command of HEALTHCHECK, or None.
    """

    def __init__(self, build_args: Mapping[str, str]) -> None:
        self.base = ""
        self.env = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user = "root"
        self.workdir = "/"
        self.exposed: list[str] = []
        self.entrypoint: list[str] = []
        self.healthcheck: list[str] | None = None
        self._given = build_args
        self._args: dict[str, str] = {}

    @property
    def run_env(self) -> dict[str, str]:
        """The environment of RUN: ARG and ENV; ENV takes precedence."""
        return self._args | self.env

    def take(self, step: Instruction) -> Instruction:
        """Apply an instruction to the state; returns it with its variables replaced."""
        if step.name in REPLACED:
            arguments = replaced(step.arguments, self.run_env)
            step = Instruction(step.name, step.flags, arguments)
        match step.name:
            case "FROM":
                self.base = step.words()[0]
            case "ARG":
                name, _, default = shlex.split(replaced(step.arguments, self.run_env))[0].partition(
                    "="
                )
                self._args[name] = self._given.get(name, default)
            case "ENV":
                self.env |= dict(word.split("=", 1) for word in shlex.split(step.arguments))
            case "USER":
                self.user = step.arguments
            case "WORKDIR":
                self.workdir = step.arguments
            case "EXPOSE":
                self.exposed += step.words()
            case "ENTRYPOINT":
                self.entrypoint = step.command()
            case "HEALTHCHECK":
                command = Instruction("CMD", (), step.arguments.removeprefix("CMD").strip())
                self.healthcheck = command.command()
        return step


def main() -> None:
    import bentoml

    parser = Parser(description="Write the Dockerfile that `bentoml containerize` would build.")
    parser.add_argument("file", type=Path, help="where the Dockerfile is written")
    target = parser.parse_args().file.absolute()
    # BentoML 1.4.39 accepts a template only inside the current folder, but unpacks the Bento into a
    # temporary folder: https://github.com/bentoml/BentoML/issues/5566
    os.chdir(tempfile.gettempdir())
    bentoml.container.get_containerfile("visionloop:latest", output_path=str(target))


if __name__ == "__main__":
    main()
