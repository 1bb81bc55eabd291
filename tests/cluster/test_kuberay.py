"""The KubeRay manifests, checked as far as that goes without a cluster."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="Kubernetes schemas are not installed (dev dependency)"
)

FOLDER = Path(__file__).parents[2] / "cluster" / "kuberay"
KUBERNETES = "1.33"

# Fields of ray.io/v1 that the manifests may use (KubeRay's API reference, 1.7).
JOB = {
    "entrypoint", "runtimeEnvYAML", "entrypointNumCpus", "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "submitterPodTemplate",
    "submissionMode", "rayClusterSpec", "metadata", "submitterConfig", "suspend",
}  # fmt: skip
SERVICE = {"serveConfigV2", "rayClusterConfig", "upgradeStrategy", "serveService"}
CLUSTER = {
    "rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling",
    "autoscalerOptions", "headServiceAnnotations", "gcsFaultToleranceOptions",
}  # fmt: skip
HEAD = {"rayStartParams", "template", "serviceType", "headService", "enableIngress", "resources"}
WORKER = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams",
    "template", "resources", "idleTimeoutSeconds", "suspend",
}  # fmt: skip


def documents(name: str) -> dict[str, dict[str, Any]]:
    return {d["kind"]: d for d in yaml.safe_load_all((FOLDER / name).read_text())}


def clusters() -> dict[str, dict[str, Any]]:
    return {
        "rayjob.yaml": documents("rayjob.yaml")["RayJob"]["spec"]["rayClusterSpec"],
        "rayservice.yaml": documents("rayservice.yaml")["RayService"]["spec"]["rayClusterConfig"],
    }


def pods() -> dict[str, dict[str, Any]]:
    submitter = documents("rayjob.yaml")["RayJob"]["spec"]["submitterPodTemplate"]
    found = {"rayjob.yaml submitter": submitter}
    for name, cluster in clusters().items():
        found[f"{name} head"] = cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            found[f"{name} {group['groupName']}"] = group["template"]
    return found


@pytest.mark.parametrize("where", pods())
def test_pods_are_valid_for_kubernetes(where: str) -> None:
    template = pods()[where]
    metadata = {"name": "x", **template.get("metadata", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_schema_check_finds_a_misspelt_field() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
           "spec": {"containers": [{"name": "x", "imagee": "y"}]}}  # fmt: skip
    with pytest.raises(kubernetes_validate.ValidationError, match="imagee"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_volume_claim_is_valid_and_is_the_one_that_pods_mount() -> None:
    claim = documents("rayjob.yaml")["PersistentVolumeClaim"]
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    for where, pod in pods().items():
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["spec"].get("volumes", [])
                  if "persistentVolumeClaim" in v]  # fmt: skip
        assert claims == ([] if "submitter" in where else [claim["metadata"]["name"]]), where


@pytest.mark.parametrize("where", pods())
def test_no_pod_runs_as_root_and_each_says_what_it_needs(where: str) -> None:
    spec = pods()[where]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["requests"]) >= {"cpu", "memory"}
        assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in spec.get("volumes", [])}


@pytest.mark.parametrize("name", clusters())
def test_clusters_ask_for_the_token_and_for_the_ray_that_is_locked(name: str) -> None:
    cluster = clusters()[name]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")


def test_only_fields_that_kuberay_knows_are_used() -> None:
    job, service = documents("rayjob.yaml")["RayJob"], documents("rayservice.yaml")["RayService"]
    assert {job["apiVersion"], service["apiVersion"]} == {"ray.io/v1"}
    assert set(job["spec"]) <= JOB
    assert set(service["spec"]) <= SERVICE
    for cluster in clusters().values():
        assert set(cluster) <= CLUSTER
        assert set(cluster["headGroupSpec"]) <= HEAD
        for group in cluster["workerGroupSpecs"]:
            assert set(group) <= WORKER
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_start_takes_the_parameters_it_is_given() -> None:
    from ray.scripts.scripts import start

    options = {name.lstrip("-") for parameter in start.params for name in parameter.opts}
    for cluster in clusters().values():
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            assert set(group["rayStartParams"]) <= options
            assert all(isinstance(v, str) for v in group["rayStartParams"].values())


def test_the_embedded_serve_config_is_one_that_ray_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(serve_config())
    head = pods()["rayservice.yaml head"]["spec"]["containers"][0]
    assert config.http_options.port in [port["containerPort"] for port in head["ports"]]


@pytest.mark.usefixtures("ray_cluster")
def test_the_builder_that_is_named_makes_an_application_of_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as called

    from mlray.serving.app import stop_watcher

    (entry,) = serve_config()["applications"]
    module, _, name = entry["import_path"].partition(":")
    file = FOLDER.parents[1] / Path(entry["args"]["project"]).relative_to("/app")
    monkeypatch.setenv("MLRAY_HOME", str(tmp_path))
    called(getattr(importlib.import_module(module), name), {**entry["args"], "project": str(file)})
    stop_watcher("flights")


def serve_config() -> dict[str, Any]:
    spec = documents("rayservice.yaml")["RayService"]["spec"]
    loaded: dict[str, Any] = yaml.safe_load(spec["serveConfigV2"])
    return loaded


def test_the_served_project_loads_and_listens_where_the_service_sends_traffic() -> None:
    from mlray.config import load

    arguments = serve_config()["applications"][0]["args"]
    file = FOLDER.parents[1] / Path(arguments["project"]).relative_to("/app")
    project = load(file, arguments["overrides"])
    service = documents("rayservice.yaml")["Service"]
    kubernetes_validate.validate(service, KUBERNETES, strict=True)
    template = pods()["rayservice.yaml replicas"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    ports = {p["name"]: p["containerPort"] for p in template["spec"]["containers"][0]["ports"]}
    assert project.serving.port == ports[service["spec"]["ports"][0]["targetPort"]]
    assert project.serving.host == "0.0.0.0"


def test_the_job_runs_a_project_that_is_in_the_image() -> None:
    spec = documents("rayjob.yaml")["RayJob"]["spec"]
    assert spec["entrypoint"] == "python -m mlray run configs/flights.yaml"
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"working_dir": "/app"}
    assert (FOLDER.parents[1] / spec["entrypoint"].split()[-1]).exists()
