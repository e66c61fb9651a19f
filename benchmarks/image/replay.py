"""Does what the container image would do, without a container engine: builds it and runs it.

Builds the Bento, takes the Dockerfile that `bentoml containerize` would use, and replays its
instructions in layers over a Debian root file system of the base image's release (mmdebstrap).
Then the entrypoint runs as the image's user, without capabilities, in namespaces of its own, where
only /data and /tmp can be written. Needs Linux, root, mmdebstrap, overlayfs and the packages'
sources. `python -m benchmarks.image.replay`, or `make image-replay`
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

# What the base image has beside Debian's smallest system. Its own Python is one built from source
# at /usr/local/bin; here Debian's stands in for it, of the same 3.x.
BASE_PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
PORT = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the layers lie")
    parser.add_argument("--base", type=Path, help="a root made earlier, kept with --keep-base")
    parser.add_argument("--keep-base", type=Path, help="keep the base here for another replay")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--trust", type=Path, help="certificates for the build's downloads")
    parser.add_argument("--cache", type=Path, help="for --mount=type=cache, instead of none")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "street_scene.jpg")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        sys.exit("The replay mounts and changes roots: run it as root, with mmdebstrap installed.")
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
    """A new Bento's folder and the Dockerfile that `bentoml containerize` would use."""
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
    """Make the layer of an instruction that has one."""
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
    """The first layer: Debian of the release in `python:3.x.y-slim-RELEASE`."""
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-(\w+)(@sha256:[0-9a-f]{64})?", name)
    if not found:
        raise ValueError(f"Replays images upon python:3.x.y-slim-RELEASE, not {name}.")
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
        raise ValueError(f"{name} has Python {python}, Debian's {release} has {has}.")
    layers.folders.append(kept)
    with layers.added(f"FROM {name}: Debian's stands in") as root:
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    layers.layers[-1].megabytes = megabytes(kept)
    layers.layers[-1].seconds = time.perf_counter() - started


def cache_mounts(step: Instruction) -> list[str]:
    """The places of `--mount=type=cache`; another kind of mount is refused."""
    places = []
    for flag, value in step.flags:
        fields = dict(part.partition("=")[::2] for part in value.split(","))
        if flag != "mount" or fields["type"] != "cache":
            raise ValueError(f"Not replayed: RUN --{flag}={value}")
        places.append(fields["target"])
    return places


def cache(place: str, work: Path, options: argparse.Namespace) -> Path:
    folder = (options.cache or work / "cache") / place.strip("/").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder)


def copy(sources: Sequence[Path], root: Path, workdir: str, target: str) -> None:
    """As COPY does: a folder's content, root's own; into a folder where the target ends with /."""
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
    """The entrypoint's process (number 1 of its own namespace) and what enters beside it."""

    def __init__(self, root: Path, image: Image, process: subprocess.Popen[bytes]) -> None:
        self.root, self.image, self.process = root, image, process
        while not (found := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        self.pid = found[0].pid

    def http(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """curl, in the container's network."""
        command = ["nsenter", "-t", str(self.pid), "-n", "curl", "-sS", "--fail-with-body"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    def exec(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """As `docker exec`: as the image's user, in its folder."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p"]
        inside = as_user(self.root, self.image, command)
        return subprocess.run(
            [*enter, *inside],
            env=process_env(self.root, self.image),
            capture_output=True,
            text=True,
        )


def account(root: Path, name: str) -> tuple[int, int, str]:
    """User, group and home by the image's /etc/passwd."""
    for line in (root / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3]), fields[5]
    raise ValueError(f"The image has no user {name}.")


def process_env(root: Path, image: Image) -> dict[str, str]:
    return {"HOME": account(root, image.user)[2]} | image.env


def as_user(root: Path, image: Image, command: Sequence[str]) -> list[str]:
    """A command in the root, in the image's folder, with no more rights than its user has."""
    user, group, _ = account(root, image.user)
    drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    within = f"cd {shlex.quote(image.workdir)} && exec {shlex.join(command)}"
    ids = [f"--reuid={user}", f"--regid={group}"]
    return ["chroot", str(root), "setpriv", *ids, *drop, "/bin/sh", "-c", within]


@contextmanager
def running(root: Path, image: Image, data: Path, log: Path) -> Iterator[Container]:
    """The container: a read-only root, /data and an empty /tmp that can be written."""
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
        process.kill()  # its children go with it
        process.wait()


def tried(root: Path, image: Image, work: Path, picture: Path) -> None:
    """Start it, ask it, look at it, stop it; twice, because a volume is kept."""
    log = work / "log.txt"
    for title in ("first start, an empty volume", "second start"):
        started = time.perf_counter()
        with running(root, image, work / "data", log) as container:
            url = f"http://127.0.0.1:{PORT}"
            while container.http(f"{url}/readyz").returncode:
                if container.process.poll() is not None or time.perf_counter() - started > 600:
                    sys.exit(f"The container did not come up:\n{log.read_text()[-4000:]}")
                time.sleep(0.2)
            ready = time.perf_counter() - started
            answer = container.http("-F", f"image=@{picture}", f"{url}/infer")
            print(f"{title}: ready after {ready:.1f} s; /infer: {answer.stdout[:160]}")
            answer.check_returncode()
            checked(container)
            stopped(container)
    print(f"the volume after that: {megabytes(work / 'data'):.1f} MB")


def checked(container: Container) -> None:
    """What a person and the engine do inside a running container."""
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
            sys.exit("That should have been otherwise.")


def stopped(container: Container) -> None:
    """As `docker stop`: SIGTERM to process 1."""
    began = time.perf_counter()
    os.kill(container.pid, 15)
    code = container.process.wait(timeout=60)
    print(f"  SIGTERM: ended after {time.perf_counter() - began:.1f} s with {code}")


if __name__ == "__main__":
    main()
