"""`deploy/kubernetes/overlays/ray`: a Ray cluster that the service gives its jobs to.

KubeRay's RayCluster has no schema here: the tests know the fields that its reference names.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from tests.deploy.test_kubernetes import CREDENTIALS, one, pod, pods
from tests.deploy.tools import DEPLOY, output, tool

RAY_CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
WORKER_GROUP = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template",
}  # fmt: skip


def test_the_ray_cluster_has_the_fields_that_kuberay_knows() -> None:
    cluster = one("ray", "RayCluster", "visionloop-ray")
    assert cluster["apiVersion"] == "ray.io/v1"
    assert cluster["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    spec = cluster["spec"]
    assert set(spec) == RAY_CLUSTER
    assert spec["authOptions"] == {"mode": "token"}
    assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
    (group,) = spec["workerGroupSpecs"]
    assert set(group) == WORKER_GROUP
    assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
    (requirement,) = (DEPLOY / "requirements-ray.txt").read_text().split()
    assert str(Requirement(requirement).specifier) == f"=={spec['rayVersion']}"


def test_the_pods_of_ray_have_the_schema_of_pods(tmp_path: Path) -> None:
    made = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec}
        for number, spec in enumerate(pods("ray"))
    ]
    file = tmp_path / "pods.yaml"
    file.write_text(yaml.safe_dump_all(made))
    told = output(tool("kubernetes-validate"), "--strict", str(file))
    assert told.count(" passed for resource ") == 3


def test_the_service_finds_the_cluster_and_its_token() -> None:
    cluster = one("ray", "RayCluster", "visionloop-ray")
    name = cluster["metadata"]["name"]
    settings = one("ray", "ConfigMap")["data"]
    assert settings["VISIONLOOP_CLUSTER_URL"] == f"http://{name}-head-svc:8265"
    (container,) = pod("ray")["containers"]
    (token,) = [each for each in container["env"] if each["name"] == "VISIONLOOP_CLUSTER_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}
    (group,) = cluster["spec"]["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    asked = worker["resources"]["limits"]["nvidia.com/gpu"]
    assert asked == settings["VISIONLOOP_TRAIN_GPUS"], "a job runs on one node"
    gpus = int(asked) * group["maxReplicas"]
    assert int(settings["VISIONLOOP_TRAIN_SLOTS"]) <= gpus
    assert "VISIONLOOP_DEVICE" not in settings  # with `cpu`, jobs would ask for no GPU
    head = cluster["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"  # no job runs there


def test_a_worker_pod_has_as_many_gpus_as_a_training_may_use(tmp_path: Path) -> None:
    """Changed in the one place that the guide names."""
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "ray"
    file = overlay / "kustomization.yaml"
    file.write_text(file.read_text().replace("VISIONLOOP_TRAIN_GPUS=1", "VISIONLOOP_TRAIN_GPUS=4"))
    made = yaml.safe_load_all(output(tool("kubectl"), "kustomize", str(overlay)))
    (cluster,) = [each for each in made if each["kind"] == "RayCluster"]
    (worker,) = cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "4"


def test_the_nodes_of_ray_have_what_a_job_needs() -> None:
    cluster = one("ray", "RayCluster", "visionloop-ray")
    (worker,) = cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["envFrom"] == [
        {"configMapRef": {"name": one("ray", "ConfigMap")["metadata"]["name"]}}
    ]
    assert {each["name"] for each in worker["env"]} == CREDENTIALS | {"VISIONLOOP_DATABASE_URL"}
    images = {each["image"] for spec in pods("ray") for each in spec["containers"]}
    assert images == {"visionloop:latest", "visionloop-ray:latest"}
