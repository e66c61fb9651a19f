"""`deploy/kubernetes`: what Kustomize renders, checked without a cluster.

Kubernetes' own kinds are checked with its schemas. RayCluster and ServiceMonitor have none there:
of those the tests know the fields that their references name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import PREFIX, Settings, variable_of
from tests.deploy.queries import selectors
from tests.deploy.test_monitoring import exposed
from tests.deploy.tools import DEPLOY, ROOT, output, tool

FOLDER = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@lru_cache
def rendered(overlay: str) -> str:
    return output(tool("kubectl"), "kustomize", str(FOLDER / "overlays" / overlay))


def objects(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered(overlay)))


def one(overlay: str, kind: str, name: str = "visionloop") -> dict[str, Any]:
    """The only object of a kind and a name, without the hash that Kustomize appends to it."""
    (found,) = [
        each
        for each in objects(overlay)
        if each["kind"] == kind and re.sub(r"-[a-z0-9]{10}$", "", each["metadata"]["name"]) == name
    ]
    return found


def pod(overlay: str) -> dict[str, Any]:
    return one(overlay, "Deployment")["spec"]["template"]["spec"]


def pods(overlay: str) -> Iterator[dict[str, Any]]:
    """The pods of the service and of Ray."""
    yield pod(overlay)
    for each in objects(overlay):
        if each["kind"] == "RayCluster":
            yield each["spec"]["headGroupSpec"]["template"]["spec"]
            yield from (group["template"]["spec"] for group in each["spec"]["workerGroupSpecs"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schemas_of_kubernetes_accept_what_is_rendered(overlay: str, tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    own = [each for each in objects(overlay) if each["kind"] != "RayCluster"]
    file.write_text(yaml.safe_dump_all(own))
    told = output(tool("kubernetes-validate"), "--strict", str(file))
    assert told.count(" passed for resource ") == len(own)
    assert len(own) >= 7


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_or_a_credential(overlay: str) -> None:
    known = {variable_of(name) for name in Settings.model_fields}
    given = set(one(overlay, "ConfigMap")["data"])
    for each in pods(overlay):
        for container in each["containers"]:
            given |= {variable["name"] for variable in container.get("env", [])}
    assert {name for name in given if name.startswith(PREFIX)} <= known
    assert {name for name in given if not name.startswith(PREFIX)} == CREDENTIALS | {"AWS_REGION"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_from_secrets(overlay: str) -> None:
    secret = (
        {
            variable_of(name)
            for name, field in Settings.model_fields.items()
            if "SecretStr" in str(field.annotation)
        }
        | CREDENTIALS
        | {"VISIONLOOP_DATABASE_URL"}
    )
    assert not secret & set(one(overlay, "ConfigMap")["data"])
    for each in pods(overlay):
        for container in each["containers"]:
            for variable in container.get("env", []):
                assert variable["name"] in secret
                wanted = variable["valueFrom"]["secretKeyRef"]
                ours = wanted["name"] == "visionloop" and wanted["key"] == variable["name"]
                ray = wanted == {"name": "visionloop-ray", "key": "auth_token"}
                assert ours or ray


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined(overlay: str) -> None:
    (uid,) = re.findall(
        r"user `bentoml` \((\d+)\)|as `bentoml` \((\d+)\)",
        (ROOT / "docs" / "how-to" / "run-in-a-container.md").read_text(),
    )
    for each in pods(overlay):
        context = each["securityContext"]
        assert context["runAsNonRoot"] is True
        assert {context["runAsUser"], context["fsGroup"]} == {int("".join(uid))}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["automountServiceAccountToken"] is False
        assert each["serviceAccountName"] == "visionloop"
        for container in each["containers"]:
            inner = container["securityContext"]
            assert inner["allowPrivilegeEscalation"] is False
            assert inner["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]["memory"]
            assert container["resources"]["limits"]["memory"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in each["volumes"]}
    (container,) = pod(overlay)["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        "/data", "/tmp", "/dev/shm",
    }  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_update_loses_no_request(overlay: str) -> None:
    strategy = one(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}
    (container,) = pod(overlay)["containers"]
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    unit = (ROOT / "docs" / "how-to" / "under-systemd.md").read_text()
    (seconds,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert pod(overlay)["terminationGracePeriodSeconds"] >= waits + int(seconds)
    probe = container["readinessProbe"]
    assert waits >= probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_routes_that_need_no_token(overlay: str) -> None:
    from api.middleware.auth import PROBES

    (container,) = pod(overlay)["containers"]
    kinds = ("startup", "readiness", "liveness")
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in kinds}
    paths = {kind: probe["path"] for kind, probe in asked.items()}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    assert set(paths.values()) <= PROBES
    assert {probe["port"] for probe in asked.values()} == {"http"}
    assert container["ports"] == [{"name": "http", "containerPort": 3000}]
    service = one(overlay, "Service")["spec"]
    assert service["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_selects_the_pods_of_the_service(overlay: str) -> None:
    labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    chosen = [
        one(overlay, "Service")["spec"]["selector"],
        one(overlay, "Deployment")["spec"]["selector"]["matchLabels"],
        one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        pod(overlay)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(each == labels for each in chosen)
    assert one(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "visionloop"


def test_the_autoscaler_s_metric_is_the_server_s_queue() -> None:
    (metric,) = one("cpu", "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    rules = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    (rule,) = [each for each in rules if each["seriesQuery"].startswith(f"{name}{{")]
    assert name in exposed()
    (found,) = selectors(rule["metricsQuery"].replace("<<.LabelMatchers>>, ", ""))
    assert found.name == name
    assert found.matchers == (("runner", "=", "detector"),)
    whole = Settings.model_fields["queue_length"].default
    assert int(metric["pods"]["target"]["averageValue"]) * 4 == whole


def test_the_gpu_overlay_takes_a_gpu_and_uses_it() -> None:
    (container,) = pod("gpu")["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert one("gpu", "ConfigMap")["data"]["VISIONLOOP_DEVICE"] == "cuda"
    assert pod("gpu")["tolerations"][0]["key"] == "nvidia.com/gpu"
    (plain,) = pod("cpu")["containers"]
    assert "nvidia.com/gpu" not in plain["resources"]["limits"]


def test_the_service_monitor_asks_with_the_token() -> None:
    file = FOLDER / "components" / "service-monitor" / "monitor.yaml"
    monitor = yaml.safe_load(file.read_text())
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] == one("cpu", "Service")["spec"]["ports"][0]["name"]
    labels = one("cpu", "Service")["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert endpoint["authorization"]["credentials"]["key"] == "VISIONLOOP_TOKEN"
