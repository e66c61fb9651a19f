"""Root file systems in layers, as a container engine makes them: overlayfs, chroot, namespaces."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass
class Layer:
    what: str
    seconds: float
    megabytes: float


@dataclass
class Layers:
    """A stack of folders in `work`: files of a later layer hide those of earlier layers.

    Attributes:
        work: The folder of the layers, on a file system that overlayfs can use.
        trusted: A file of CA certificates that replaces the image's own during RUN, or None.
    """

    work: Path
    trusted: Path | None = None
    folders: list[Path] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)

    @contextmanager
    def added(self, what: str) -> Iterator[Path]:
        """Add a layer: the changes that the `with` block makes in the root folder it gets."""
        upper = self.work / f"layer{len(self.folders)}"
        scratch, root = self.work / "scratch", self.work / "root"
        for folder in (upper, scratch, root):
            folder.mkdir()
        started = time.perf_counter()
        lower = ":".join(str(folder) for folder in reversed(self.folders))
        options = f"lowerdir={lower},upperdir={upper},workdir={scratch}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
            root.rmdir()
            subprocess.run(["rm", "-rf", scratch], check=True)
        self.folders.append(upper)
        self.layers.append(Layer(what, time.perf_counter() - started, megabytes(upper)))

    def run(
        self,
        command: Sequence[str],
        what: str,
        env: Mapping[str, str],
        workdir: str,
        caches: Sequence[tuple[str, Path]] = (),
    ) -> None:
        """Add a layer with a command that runs as root in a chroot, with the host's network.

        Args:
            caches: Pairs of a folder in the root and the host folder that is mounted there while
                the command runs; they are not part of the layer.

        Raises:
            RuntimeError: The command failed.
        """
        with self.added(what) as root:
            hosts = [Path(place) for place in ("/etc/resolv.conf", "/etc/hosts")]
            binds = [*caches, *((str(place), place) for place in hosts)]
            if self.trusted:
                binds.append(("/etc/ssl/certs/ca-certificates.crt", self.trusted))
            script = entered(root, binds)
            inside = f"cd {shlex.quote(workdir)} && exec {shlex.join(command)}"
            script += shlex.join(["exec", "chroot", str(root), "/bin/sh", "-c", inside])
            done = subprocess.run([*ISOLATED, "sh", "-euc", script], env=dict(env))
        if done.returncode:
            raise RuntimeError(f"{what} failed with exit code {done.returncode}")

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """All layers mounted as one read-only root folder."""
        root = self.work / "image"
        root.mkdir()
        lower = ":".join(str(folder) for folder in reversed(self.folders))
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower}", root], check=True
        )
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
            root.rmdir()


def entered(root: Path, binds: Sequence[tuple[str, Path]]) -> str:
    """Shell commands that mount /proc, /dev and folders or files of the host in a root folder.

    Args:
        binds: Pairs of a path in the root and the host's file or folder that is mounted there.
    """
    dev = root / "dev"
    lines = [
        ["mount", "-t", "proc", "proc", root / "proc"],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", dev],
        ["mkdir", dev / "shm", dev / "pts"],
        ["mount", "-t", "tmpfs", "-o", "size=64m", "shm", dev / "shm"],
        ["ln", "-s", "/proc/self/fd", dev / "fd"],
        ["touch", *(dev / name for name in DEVICES)],
        *(["mount", "--bind", f"/dev/{name}", dev / name] for name in DEVICES),
    ]
    for place, source in binds:
        target = root / place[1:]
        if not target.exists():
            lines.append(["mkdir", "-p", target if source.is_dir() else target.parent])
            lines += [] if source.is_dir() else [["touch", target]]
        lines.append(["mount", "--bind", source, target])
    return "".join(f"{shlex.join(map(str, line))};" for line in lines)


def megabytes(folder: Path) -> float:
    """The disk space of a folder, in MB of 10^6 bytes, as container engines count."""
    done = subprocess.run(
        ["du", "-sx", "--block-size=1", folder], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[0]) / 1e6
