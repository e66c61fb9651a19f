"""`visionloop serve`: BentoML's server on this service, from any folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from shell import Parser
from source_tree import ROOT

PROG = "python -m commands.serve"


def command_line(prog: str = PROG) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = Parser(
        prog=prog,
        description="Serve until Ctrl-C. Settings are environment variables (VISIONLOOP_…).",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address; default: 127.0.0.1")
    parser.add_argument("--port", type=_port, default=3000, help="TCP port; default: 3000")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Become the server."""
    options = command_line(prog).parse_args(arguments)
    # Without -P, modules of the current folder would come before ours.
    command = [sys.executable, "-P", "-m", "bentoml", "serve", "service:VisionLoop"]
    command += ["--working-dir", str(ROOT), "--host", options.host, "--port", str(options.port)]
    os.execv(sys.executable, command)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 65535")
    return int(text)
