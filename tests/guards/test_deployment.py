"""The files that start clusters are what Ray, Kubernetes and KubeRay take, and agree with specs."""

import copy
import importlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from rayreel.config.jobs import RenderSpec
from rayreel.config.load import parse
from rayreel.config.serving import ServeSpec
from rayreel.serving.app import app

ROOT = Path(__file__).parents[2]
KUBERAY = sorted((ROOT / "manifests" / "kuberay").glob("*.yaml"))
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "kuberay.json").read_text("utf-8"))
KUBERNETES = kubernetes_validate.latest_version()
GROUPS = {"text", "denoise", "decode"}


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text("utf-8")) if found]


RESOURCES = [
    pytest.param(document, id=f"{path.name}-{document['kind']}")
    for path in KUBERAY
    for document in documents(path)
    if document["apiVersion"].startswith("ray.io/")
]


def cluster_of(resource: dict[str, Any]) -> dict[str, Any]:
    """The part of a job or a service that is a cluster."""
    found: dict[str, Any] = (
        resource["spec"].get("rayClusterSpec") or resource["spec"]["rayClusterConfig"]
    )
    return found


def templates(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]


def check(resource: dict[str, Any]) -> None:
    """Refuse what KubeRay or Kubernetes would refuse."""
    jsonschema.validate(resource, SCHEMA)
    for template in templates(cluster_of(resource)):
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.fixture(scope="module")
def render_job():
    """Documents of the render job by kind."""
    found = documents(ROOT / "manifests" / "kuberay" / "rayjob.yaml")
    return {document["kind"]: document for document in found}


@pytest.fixture(scope="module")
def render_spec(render_job):
    text = render_job["ConfigMap"]["data"]["render.yaml"]
    return parse(yaml.safe_load(text), RenderSpec, where="rayjob.yaml")


@pytest.fixture
def launcher():
    return prepare_config(yaml.safe_load((ROOT / "ray-cluster.yaml").read_text("utf-8")))


def test_ray_up_takes_the_cluster_file(launcher):
    validate_config(launcher)


def test_a_misspelt_key_of_the_cluster_file_is_found(launcher):
    launcher["worker_start_ray_command"] = launcher.pop("worker_start_ray_commands")
    with pytest.raises(jsonschema.ValidationError, match="worker_start_ray_command"):
        validate_config(launcher)


def test_groups_of_the_cluster_file_have_resources_of_their_own_and_the_head_has_no_work(launcher):
    types = {name: kind["resources"] for name, kind in launcher["available_node_types"].items()}
    assert types.pop("head") == {"CPU": 0}
    assert {name for name, resources in types.items() if name in resources} == GROUPS
    assert types["cpu"].keys() == {"CPU", "cpu_only"}


@pytest.mark.parametrize("resource", RESOURCES)
def test_kuberay_and_kubernetes_take_the_manifests(resource):
    check(resource)


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ((), "backoffLimit"),
        (("rayClusterSpec",), "enableInTreeAutoscaling"),
        (("rayClusterSpec", "headGroupSpec"), "rayStartParams"),
        (("rayClusterSpec", "workerGroupSpecs", 1), "maxReplicas"),
        (("rayClusterSpec", "workerGroupSpecs", 1, "template", "spec"), "tolerations"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), "envFrom"),
    ],
)
def test_a_misspelt_key_of_a_manifest_is_found(render_job, where, key):
    job = copy.deepcopy(render_job["RayJob"])
    part = job["spec"]
    for step in where:
        part = part[step]
    part[f"{key}s"] = part.pop(key)
    with pytest.raises(jsonschema.ValidationError):
        check(job)


@pytest.mark.parametrize("resource", RESOURCES)
def test_ray_reads_each_group_s_own_resource_from_the_manifests(resource):
    metadata = {"namespace": "default", **resource["metadata"]}
    cluster = {"metadata": metadata, "spec": cluster_of(resource)}
    read = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert read.pop("headgroup")["resources"]["CPU"] == 0
    for name, kind in read.items():
        own = "cpu_only" if name == "cpu" else name
        assert kind["resources"].get(own) == 1
        assert kind["resources"].get("GPU", 0) == (name in GROUPS)


def test_the_job_s_pools_fit_the_groups_that_it_asks_for(render_job, render_spec):
    groups = cluster_of(render_job["RayJob"])["workerGroupSpecs"]
    for bound, limit in (("minReplicas", "replicas"), ("maxReplicas", "max_replicas")):
        asked: dict[str, float] = {}
        for stage in (render_spec.stage(name) for name in render_spec.stages):
            asked[stage.node] = asked.get(stage.node, 0) + stage.gpus * getattr(stage, limit)
        assert asked == {group["groupName"]: group[bound] for group in groups[1:]}


def test_the_job_renders_the_spec_that_is_mounted(render_job):
    kubernetes_validate.validate(render_job["ConfigMap"], KUBERNETES, strict=True)
    (head, *_) = templates(cluster_of(render_job["RayJob"]))
    (mount,) = [m for m in head["spec"]["containers"][0]["volumeMounts"] if m["name"] == "spec"]
    assert render_job["RayJob"]["spec"]["entrypoint"] == (
        f"rayreel render {mount['mountPath']}/{next(iter(render_job['ConfigMap']['data']))}"
    )


@pytest.mark.parametrize("resource", RESOURCES)
def test_metrics_are_exported_where_prometheus_is_told_to_look(resource):
    cluster = cluster_of(resource)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        port = group["template"]["metadata"]["annotations"]["prometheus.io/port"]
        assert group["rayStartParams"]["metrics-export-port"] == port
        ports = group["template"]["spec"]["containers"][0]["ports"]
        assert {"name": "metrics", "containerPort": int(port)} in ports


@pytest.mark.parametrize("resource", RESOURCES)
def test_manifests_name_versions_that_the_package_allows(resource):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (ray,) = [
        found for line in project["dependencies"] if (found := Requirement(line)).name == "ray"
    ]
    assert cluster_of(resource)["rayVersion"] in ray.specifier
    images = {t["spec"]["containers"][0]["image"] for t in templates(cluster_of(resource))}
    assert {image.partition(":")[2] for image in images} == {project["version"]}


def application(values: dict[str, Any]) -> Any:
    """The one application of a configuration of Serve."""
    (found,) = ServeDeploySchema.model_validate(values).applications
    return found


def test_the_service_on_kubernetes_is_that_of_a_cluster_that_is_there():
    (service,) = documents(ROOT / "manifests" / "kuberay" / "rayservice.yaml")
    own = application(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (there,) = map(application, documents(ROOT / "serve" / "production.yaml"))
    assert own.import_path == there.import_path == "rayreel.serving.app:app"
    # Its nodes have a resource of their own.
    assert own.args["workers"].pop("node") == "denoise"
    assert own.args == there.args


@pytest.mark.parametrize("name", ["development", "production"])
def test_applications_take_the_arguments_that_they_are_given(name):
    (found,) = map(application, documents(ROOT / "serve" / f"{name}.yaml"))
    assert parse(found.args, ServeSpec, where=name).database_url
    module, _, attribute = found.import_path.partition(":")
    assert getattr(importlib.import_module(module), attribute) is app
