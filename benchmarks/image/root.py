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
    """A stack of folders under `work`; the last one hides those below it.

    Attributes:
        work: Where the layers lie; a file system that overlayfs can use.
        trusted: A file of certificates that package clients trust beside their own, or None.
    """

    work: Path
    trusted: Path | None = None
    folders: list[Path] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)

    @contextmanager
    def added(self, what: str) -> Iterator[Path]:
        """A new layer: what the block changes in the root that it is given."""
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
        """A layer made by a command that runs as root in a chroot, with the host's network.

        Args:
            caches: Folders in the root and what lies there meanwhile; no part of the layer.

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
            raise RuntimeError(f"{what} failed with {done.returncode}")

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """All layers as one root that nobody can write."""
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
    """Shell lines that give a root its /proc, /dev and folders or files of the host.

    Args:
        binds: A place in the root and what of the host is to be seen there.
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
    """Room that a folder takes on the disk, in MB of 10^6 bytes as engines count."""
    done = subprocess.run(
        ["du", "-sx", "--block-size=1", folder], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[0]) / 1e6
