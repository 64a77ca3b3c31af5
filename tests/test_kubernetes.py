"""The templates for Kubernetes, against its API's schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate isn't installed")

ROOT = Path(__file__).resolve().parents[1]
VERSION = "1.33"


def check(manifest: dict[str, Any]) -> None:
    """Raises for unknown and missing keys, and values of another type."""
    kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_ray_cluster() -> None:
    documents = list(yaml.safe_load_all((ROOT / "docker" / "kuberay.yaml").read_text()))
    assert [one["kind"] for one in documents] == ["RayCluster", "PersistentVolumeClaim", "NetworkPolicy"]
    ray, *others = documents
    groups = [ray["spec"]["headGroupSpec"], *ray["spec"]["workerGroupSpecs"]]
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        for group in groups
    ]
    for manifest in [*others, *pods]:
        check(manifest)
    # The schema of RayCluster isn't among them. Values of rayStartParams must be text, or KubeRay rejects them.
    assert ray["apiVersion"] == "ray.io/v1" and all(
        isinstance(value, str) for group in groups for value in group["rayStartParams"].values()
    )
    policy = others[1]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": ray["metadata"]["name"]}
    claims = [one["persistentVolumeClaim"]["claimName"] for one in pods[0]["spec"]["volumes"][:1]]
    assert claims == [others[0]["metadata"]["name"]]
    assert not any("persistentVolumeClaim" in one for one in pods[1]["spec"]["volumes"])


def test_the_work_pool_of_prefect() -> None:
    from prefect.utilities.templating import apply_values, find_placeholders

    template = json.loads((ROOT / "docker" / "prefect-kubernetes.json").read_text())
    properties = template["variables"]["properties"]
    configuration = template["job_configuration"]
    assert {one.name for one in find_placeholders(configuration)} == set(properties)
    values = {name: one["default"] for name, one in properties.items() if "default" in one}
    # What Prefect's worker sets; as it does, the variables and the command become lists.
    values |= {"name": "run", "labels": {"app": "points2model"}, "command": ["prefect"], "env": []}
    job = apply_values(configuration, values)["job_manifest"]
    spec = job["spec"]["template"]["spec"]
    # Prefect's worker demands them here, where Kubernetes ignores them.
    assert (spec.pop("parallelism"), spec.pop("completions")) == (1, 1)
    check(job)
