"""`deploy/compose.yaml`: what can be known without a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from settings import PREFIX, Settings, variable_of
from tests.deploy.tools import DEPLOY, ROOT, output, tool

COMPOSE = DEPLOY / "compose.yaml"
SECRETS = (
    "VISIONLOOP_TOKEN", "VISIONLOOP_ADMIN_TOKEN", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD",
    "GARAGE_RPC_SECRET", "S3_ACCESS_KEY", "S3_SECRET_KEY",
)  # fmt: skip
ONCE = "garage-volume"  # gives a volume to Garage's user and ends; root without its powers
LINT = "{extends: relaxed, rules: {line-length: {max: 180}, braces: {max-spaces-inside: 0}}}"


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of `deploy/` in which files can be written."""
    left_out = shutil.ignore_patterns(".env", "secrets")
    return Path(shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=left_out))


def with_secrets(**secrets: str) -> dict[str, str]:
    """An environment in which every secret of the file is set, and no other of its variables."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return others | {name: f"secret-{name.lower()}" for name in SECRETS} | secrets


def parsed(*files: Path) -> dict[str, Any]:
    """The files as Docker Compose reads them."""
    chosen = [word for file in files for word in ("-f", str(file))]
    command = (tool("docker-compose"), *chosen, "config", "--format", "json")
    return json.loads(output(*command, env=with_secrets()))


def test_it_has_the_form_of_the_compose_specification() -> None:
    files = [str(COMPOSE), str(DEPLOY / "compose.gpu.yaml")]
    schema = ("--builtin-schema", "vendor.compose-spec")
    output(tool("check-jsonschema"), *schema, *files)
    files = [str(file) for file in DEPLOY.rglob("*.yaml")]
    output(tool("yamllint"), "--strict", "-d", LINT, *files)


def test_docker_compose_reads_it_with_and_without_gpus() -> None:
    services = parsed(COMPOSE, DEPLOY / "compose.gpu.yaml")["services"]
    assert set(services) == {
        "visionloop", "postgres", ONCE, "garage", "prometheus", "grafana",
    }  # fmt: skip
    reserved = services["visionloop"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}]
    assert services["visionloop"]["environment"]["VISIONLOOP_DEVICE"] == "cuda"


@pytest.mark.parametrize("name", SECRETS)
def test_it_does_not_start_without_a_secret(name: str, copied: Path) -> None:
    command = [tool("docker-compose"), "-f", str(copied / "compose.yaml"), "config", "--quiet"]
    for value in ("", None):
        env = with_secrets()
        del env[name]
        if value is not None:
            env[name] = value
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode != 0
        assert f"required variable {name} is missing a value" in ran.stderr
        assert "run sh deploy/new-secrets.sh" in ran.stderr


def test_no_secret_has_a_default() -> None:
    used = re.findall(r"\$\{(\w+)(:?[-?]?)", COMPOSE.read_text())
    assert {name for name, sign in used if sign == ":?"} == set(SECRETS)
    assert {name for name, sign in used if sign != ":?"} == {
        "VISIONLOOP_IMAGE", "PORT", "GRAFANA_PORT", "MEMORY",
    }  # fmt: skip


def test_new_secrets_are_written_once_and_only_for_their_owner(copied: Path) -> None:
    command = ["sh", str(copied / "new-secrets.sh")]
    output(*command)
    file = copied / ".env"
    values = dict(line.split("=") for line in file.read_text().splitlines())
    assert set(values) == set(SECRETS)
    assert len(set(values.values())) == len(values)
    assert all(re.fullmatch(r"(GK)?[0-9a-f]{24,}", value) for value in values.values())
    assert file.stat().st_mode & 0o777 == 0o600
    token = copied / "secrets" / "visionloop_token"
    assert token.read_text().strip() == values["VISIONLOOP_TOKEN"]
    assert token.parent.stat().st_mode & 0o777 == 0o700
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "exists" in again.stderr
    assert dict(line.split("=") for line in file.read_text().splitlines()) == values


def test_every_variable_is_a_setting_that_can_be_used(
    written: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    environment = dict(written["services"]["visionloop"]["environment"])
    environment |= yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())["services"][
        "visionloop"
    ]["environment"]
    known = {variable_of(name) for name in Settings.model_fields}
    ours = {name for name in environment if name.startswith(PREFIX)}
    assert ours <= known
    for name in ours:
        monkeypatch.setenv(
            name, re.sub(r"\$\{\w+:\?[^}]*\}", "a1b2c3d4e5f6a7b8", environment[name])
        )
    settings = Settings()
    assert settings.sqlalchemy_url.host in written["services"]
    assert settings.sqlalchemy_url.port == 5432
    postgres = written["services"]["postgres"]["environment"]
    assert settings.sqlalchemy_url.username == postgres["POSTGRES_USER"]
    assert settings.sqlalchemy_url.database == postgres["POSTGRES_DB"]


def test_the_bucket_its_port_and_its_region_are_garage_s(written: dict[str, Any]) -> None:
    garage = tomllib.loads((DEPLOY / "garage.toml").read_text())
    ours = written["services"]["visionloop"]["environment"]
    its = written["services"]["garage"]["environment"]
    endpoint = urlsplit(ours["AWS_ENDPOINT_URL"])
    assert endpoint.hostname == "garage"
    assert garage["s3_api"]["api_bind_addr"].endswith(f":{endpoint.port}")
    assert garage["s3_api"]["s3_region"] == ours["AWS_REGION"]
    assert urlsplit(ours["VISIONLOOP_STORE_URL"]).netloc == its["GARAGE_DEFAULT_BUCKET"]
    assert ours["AWS_ACCESS_KEY_ID"] == its["GARAGE_DEFAULT_ACCESS_KEY"]
    assert ours["AWS_SECRET_ACCESS_KEY"] == its["GARAGE_DEFAULT_SECRET_KEY"]
    assert its["GARAGE_DEFAULT_BUCKET"] in written["services"]["garage"]["healthcheck"]["test"]
    assert garage["rpc_bind_addr"].startswith("127.0.0.1:")
    for folder in (garage["metadata_dir"], garage["data_dir"]):
        assert folder.startswith(written["services"]["garage"]["volumes"][0].split(":")[1])


def test_ports_and_folders_are_the_image_s(written: dict[str, Any]) -> None:
    template = (ROOT / "Dockerfile.template").read_text()
    service = written["services"]["visionloop"]
    assert re.findall(r"^EXPOSE (\d+)$", template, re.MULTILINE) == ["3000"]
    (port,) = service["ports"]
    assert re.fullmatch(r"127\.0\.0\.1:\S+:3000", port)
    mounted = [volume.split(":")[1] for volume in service["volumes"]]
    assert mounted == ["/data"]
    for variable in ("BENTOML_HOME", "VISIONLOOP_HOME"):
        assert re.search(rf"^ENV {variable}=/data/", template, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/readyz", template, re.MULTILINE)
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    (found,) = scrape["scrape_configs"][0]["dns_sd_configs"]
    assert found["names"] == ["visionloop"]
    assert found["port"] == 3000


def test_a_stop_lasts_as_long_as_under_systemd(written: dict[str, Any]) -> None:
    unit = (ROOT / "docs" / "how-to" / "under-systemd.md").read_text()
    (seconds,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert written["services"]["visionloop"]["stop_grace_period"] == f"{seconds}s"


def test_every_service_is_confined(written: dict[str, Any]) -> None:
    for name, service in written["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name == ONCE:
            assert service["network_mode"] == "none"
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "cap_add" not in service
        if name == "visionloop":
            continue  # user and health check are the image's
        uid = int(service["user"].split(":")[0])
        assert uid > 0, name
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_others_are_reached_from_this_host_only_or_not_at_all(written: dict[str, Any]) -> None:
    ports = [port for one in written["services"].values() for port in one.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert written["networks"]["data"]["internal"]
    for name in ("postgres", "garage"):
        assert written["services"][name]["networks"] == ["data"]


def test_what_is_mounted_is_there(written: dict[str, Any]) -> None:
    named = {"cache", "postgres", "garage", "prometheus", "grafana"}
    assert set(written["volumes"]) == named
    for name, service in written["services"].items():
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source not in named:
                assert (DEPLOY / source).exists(), f"{name}: {source}"
                assert mode == ["ro"]


def test_images_are_pinned(written: dict[str, Any]) -> None:
    images = {one["image"] for name, one in written["services"].items() if name != "visionloop"}
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-\w+)?", image) for image in images), (
        images
    )


def test_who_waits_for_whom(written: dict[str, Any]) -> None:
    for name, service in written["services"].items():
        for other, how in service.get("depends_on", {}).items():
            awaited = written["services"][other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in awaited, f"{name} waits for {other}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert awaited["restart"] == "no"
    assert set(written["services"]["visionloop"]["depends_on"]) == {"postgres", "garage"}


def test_grafana_finds_prometheus_and_the_dashboard(written: dict[str, Any]) -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert urlsplit(source["url"]).hostname in written["services"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "visionloop.yaml").read_text())[
        "providers"
    ]
    mounts = dict(volume.split(":")[:2] for volume in written["services"]["grafana"]["volumes"])
    assert mounts["./grafana/visionloop.json"].startswith(provider["options"]["path"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
