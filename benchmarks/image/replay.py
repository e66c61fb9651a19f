"""Builds and runs the container image without a container engine, to check what it would do.

Builds the Bento, writes the Dockerfile that `bentoml containerize` would use, and executes its
instructions in layers over a Debian root file system of the base image's release (mmdebstrap).
Then the entrypoint runs as the image's user, without capabilities, in its own namespaces; only
/data and /tmp are writable there. Needs Linux, root rights, mmdebstrap, overlayfs, curl, and
network access to the package repositories (Debian, Python). `python -m benchmarks.image.replay`,
or `make image-replay`
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.image.dockerfile import Image, Instruction, instructions
from benchmarks.image.root import ISOLATED, Layers, entered, megabytes
from benchmarks.server import ROOT
from shell import Parser

# Packages of the base image that a minimal Debian does not have. The base image has its own Python
# in /usr/local/bin, built from source; here Debian's Python of the same minor version (3.x)
# replaces it.
BASE_PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
PORT = 3000


def main() -> None:
    parser = Parser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add(
        "--work",
        type=Path,
        default=Path("/var/tmp"),
        help="folder in which a temporary folder for the layers is made (/var/tmp)",
    )
    add(
        "--base",
        type=Path,
        help="folder of a base root file system that an earlier run kept with --keep-base; it is "
        "used instead of a new one",
    )
    add("--keep-base", type=Path, help="folder in which the new base root file system is kept")
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of an ARG of the Dockerfile; repeatable",
    )
    add("--trust", type=Path, help="file of CA certificates that the build's downloads trust")
    add(
        "--cache",
        type=Path,
        help="folder for the caches of `RUN --mount=type=cache`; default: a new temporary folder",
    )
    add(
        "--image",
        type=Path,
        default=ROOT / "docs" / "street_scene.jpg",
        help="image that is sent to /infer of the container (docs/street_scene.jpg)",
    )
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        sys.exit("The replay uses mount and chroot: run it as root, with mmdebstrap installed.")
    with tempfile.TemporaryDirectory(prefix="visionloop-image-", dir=options.work) as folder:
        replay(Path(folder), options)


def replay(work: Path, options: argparse.Namespace) -> None:
    context, text = built(work / "bento")
    image = Image(dict(given.split("=", 1) for given in options.build_arg))
    layers = Layers(work, options.trust)
    for step in map(image.take, instructions(text)):
        perform(step, image, layers, context, options)
    print(f"\n{'layer':<64} {'seconds':>8} {'MB':>8}")
    for layer in layers.layers:
        print(f"{layer.what[:64]:<64} {layer.seconds:>8.1f} {layer.megabytes:>8.1f}")
    total = sum(layer.megabytes for layer in layers.layers)
    print(f"{'the image, unpacked':<64} {'':>8} {total:>8.1f}\n")
    print(f"exposed: {' '.join(image.exposed)}; user: {image.user}; base: {image.base}")
    with layers.mounted() as root:
        tried(root, image, work, options.image)


def built(home: Path) -> tuple[Path, str]:
    """Build a Bento; returns its folder and the Dockerfile `bentoml containerize` would use."""
    home.mkdir()
    env = os.environ | {"BENTOML_HOME": str(home), "VISIONLOOP_HOME": str(home / "home")}
    for command in (
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        [sys.executable, "-m", "benchmarks.image.dockerfile", str(home / "Dockerfile")],
    ):
        subprocess.run(command, cwd=ROOT, env=env, check=True)
    (folder,) = (found.parent for found in (home / "bentos").rglob("bento.yaml"))
    return folder, (home / "Dockerfile").read_text()


def perform(
    step: Instruction, image: Image, layers: Layers, context: Path, options: argparse.Namespace
) -> None:
    """Add the layer of an instruction.

    Nothing is done for instructions that make no layer, such as ENV.
    """
    what = f"{step.name} {' '.join(step.arguments.split())}"
    if step.name == "FROM":
        base(image.base, layers, options)
    elif step.name == "WORKDIR":
        with layers.added(what) as root:
            (root / image.workdir[1:]).mkdir(parents=True, exist_ok=True)
    elif step.name == "RUN":
        caches = [(place, cache(place, layers.work, options)) for place in cache_mounts(step)]
        layers.run(step.command(), what, image.run_env, image.workdir, caches)
    elif step.name in ("COPY", "ADD"):
        *sources, target = step.words()
        with layers.added(what) as root:
            copy([context / source for source in sources], root, image.workdir, target)


def base(name: str, layers: Layers, options: argparse.Namespace) -> None:
    """Make the first layer.

    It is the Debian release that is named in the base image's tag, `python:3.x.y-slim-RELEASE`.

    Raises:
        ValueError: The base image is another one, or Debian's Python has another minor version.
    """
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-(\w+)(@sha256:[0-9a-f]{64})?", name)
    if not found:
        raise ValueError(
            "Only images based on python:3.x.y-slim-RELEASE can be replayed; this one is based on "
            f"{name}."
        )
    python, release, _ = found.groups()
    kept = options.base or options.keep_base or layers.work / "base"
    started = time.perf_counter()
    if not options.base:
        include = f"--include={BASE_PACKAGES}"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", include, release, str(kept)]
        subprocess.run(command, check=True)
    says = "import sys; print('%d.%d' % sys.version_info[:2])"
    has = subprocess.run(
        ["chroot", kept, "python3", "-c", says], check=True, capture_output=True, text=True
    ).stdout.strip()
    if has != python:
        raise ValueError(f"{name} has Python {python}, but Debian {release} has Python {has}.")
    layers.folders.append(kept)
    with layers.added(f"FROM {name} (with Debian's Python instead)") as root:
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    layers.layers[-1].megabytes = megabytes(kept)
    layers.layers[-1].seconds = time.perf_counter() - started


def cache_mounts(step: Instruction) -> list[str]:
    """The target folders of the `--mount=type=cache` flags of a RUN instruction.

    Raises:
        ValueError: The instruction has any other flag.
    """
    places = []
    for flag, value in step.flags:
        fields = dict(part.partition("=")[::2] for part in value.split(","))
        if flag != "mount" or fields["type"] != "cache":
            raise ValueError(f"RUN --{flag}={value} cannot be replayed.")
        places.append(fields["target"])
    return places


def cache(place: str, work: Path, options: argparse.Namespace) -> Path:
    folder = (options.cache or work / "cache") / place.strip("/").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder)


def copy(sources: Sequence[Path], root: Path, workdir: str, target: str) -> None:
    """Copy as a Dockerfile's COPY does.

    Of a folder, its content is copied. The copies belong to root. If the target ends with /, files
    are copied into the target as a folder.
    """
    place = root / os.path.join(workdir, target)[1:]
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True, symlinks=True)
        elif target.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


class Container:
    """A running container.

    The process of the entrypoint (process 1 of its PID namespace), and methods to run commands
    beside that process.
    """

    def __init__(self, root: Path, image: Image, process: subprocess.Popen[bytes]) -> None:
        self.root, self.image, self.process = root, image, process
        while not (found := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        self.pid = found[0].pid

    def http(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run curl in the network namespace of the container."""
        command = ["nsenter", "-t", str(self.pid), "-n", "curl", "-sS", "--fail-with-body"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def exec(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the container as `docker exec` does.

        It runs as the image's user, in the image's WORKDIR.
        """
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p"]
        inside = as_user(self.root, self.image, command)
        return subprocess.run(
            [*enter, *inside],
            env=process_env(self.root, self.image),
            capture_output=True,
            text=True,
        )


def account(root: Path, name: str) -> tuple[int, int, str]:
    """User id, group id and home folder of an account, from the image's /etc/passwd."""
    for line in (root / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3]), fields[5]
    raise ValueError(f"The image has no user {name}.")


def process_env(root: Path, image: Image) -> dict[str, str]:
    return {"HOME": account(root, image.user)[2]} | image.env


def as_user(root: Path, image: Image, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in a chroot of `root`.

    The command runs in the image's WORKDIR, as the image's user, without capabilities.
    """
    user, group, _ = account(root, image.user)
    drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    within = f"cd {shlex.quote(image.workdir)} && exec {shlex.join(command)}"
    ids = [f"--reuid={user}", f"--regid={group}"]
    return ["chroot", str(root), "setpriv", *ids, *drop, "/bin/sh", "-c", within]


@contextmanager
def running(root: Path, image: Image, data: Path, log: Path) -> Iterator[Container]:
    """Run the container: its root is read-only; /data and an empty /tmp are writable."""
    user, group, _ = account(root, image.user)
    data.mkdir(exist_ok=True)
    os.chown(data, user, group)
    script = entered(root, [("/data", data), ("/etc/hosts", Path("/etc/hosts"))])
    empty = ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp")]
    script += f"{shlex.join(empty)}; ip link set lo up;"
    script += f"exec {shlex.join(as_user(root, image, image.entrypoint))}"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*ISOLATED, "--net", "sh", "-euc", script],
            env=process_env(root, image),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Container(root, image, process)
    finally:
        process.kill()  # unshare --kill-child: the processes of the container end as well
        process.wait()


def tried(root: Path, image: Image, work: Path, picture: Path) -> None:
    """Start the container, send it a request, check it and stop it.

    Then all of this once more on the same volume, as after a restart.
    """
    log = work / "log.txt"
    for title in ("first start, with an empty volume", "second start"):
        started = time.perf_counter()
        with running(root, image, work / "data", log) as container:
            url = f"http://127.0.0.1:{PORT}"
            while container.http(f"{url}/readyz").returncode:
                if container.process.poll() is not None or time.perf_counter() - started > 600:
                    sys.exit(f"The container did not start:\n{log.read_text()[-4000:]}")
                time.sleep(0.2)
            ready = time.perf_counter() - started
            answer = container.http("-F", f"image=@{picture}", f"{url}/infer")
            print(f"{title}: ready after {ready:.1f} s; /infer: {answer.stdout[:160]}")
            answer.check_returncode()
            checked(container)
            stopped(container)
    print(f"size of the volume after both starts: {megabytes(work / 'data'):.1f} MB")


def checked(container: Container) -> None:
    """Run commands in a running container.

    Its health check and the command line must work; writing to the source code and finding gcc
    must fail.
    """
    if not container.image.healthcheck:
        sys.exit("The image has no HEALTHCHECK.")
    for command, fine in (
        (container.image.healthcheck, True),
        (["python", "-m", "models_store", "list"], True),
        (["touch", "/home/bentoml/bento/src/service.py"], False),
        (["which", "gcc"], False),
    ):
        done = container.exec(command)
        said = (done.stdout + done.stderr).strip().splitlines()
        print(f"  {shlex.join(command)[:90]} → {done.returncode} {' | '.join(said)[:300]}")
        if (done.returncode == 0) != fine:
            sys.exit(f"This command should have {'succeeded' if fine else 'failed'}.")


def stopped(container: Container) -> None:
    """Stop the container as `docker stop` does: with SIGTERM to its process 1."""
    began = time.perf_counter()
    os.kill(container.pid, 15)
    code = container.process.wait(timeout=60)
    print(f"  SIGTERM: ended after {time.perf_counter() - began:.1f} s with exit code {code}")


if __name__ == "__main__":
    main()
