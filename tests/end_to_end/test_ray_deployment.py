"""The files of deploy/ray and deploy/kubernetes: sound by Ray's own schema, and of commands that exist."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_command

from slimfleet.simulations import cli

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = ["ray/cluster.yaml", "ray/README.md", "kubernetes/rayjob.yaml", "kubernetes/README.md"]
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")


def cluster() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "ray/cluster.yaml").read_text())


@cache
def rayjob() -> dict[str, Any]:
    claim, job = yaml.safe_load_all((DEPLOY / "kubernetes/rayjob.yaml").read_text())
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert claim["metadata"]["name"] == volumes(job)["results"]["persistentVolumeClaim"]["claimName"]
    return job["spec"]


def volumes(job: dict[str, Any]) -> dict[str, Any]:
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return {volume["name"]: volume for volume in head["volumes"]}


def test_the_cluster_file_is_sound_by_the_schema_of_ray() -> None:
    validate_config(prepare_config(cluster()))
    with pytest.raises(Exception, match="hed_start_ray_commands"):
        validate_config(prepare_config(cluster() | {"hed_start_ray_commands": []}))


def test_the_job_asks_kuberay_for_what_it_understands() -> None:
    job = rayjob()
    assert job.keys() <= {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    assert (type(job["backoffLimit"]), type(job["shutdownAfterJobFinishes"])) == (int, bool)
    spec = job["rayClusterSpec"]
    assert spec.keys() == {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        parameters = group["rayStartParams"]
        assert all(isinstance(value, str) for value in parameters.values()), "KubeRay wants texts"
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == "slimfleet:latest"
        for amounts in container["resources"].values():
            assert all(QUANTITY.fullmatch(str(amount)) for amount in amounts.values())
    for group in spec["workerGroupSpecs"]:
        assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_versions_are_those_that_are_installed() -> None:
    dockerfile = (DEPLOY / "kubernetes/Dockerfile").read_text()
    constraints = (DEPLOY.parent / "constraints.txt").read_text()
    (torch,) = re.findall(r"^torch==\S+", constraints, re.MULTILINE)
    assert rayjob()["rayClusterSpec"]["rayVersion"] == ray.__version__
    assert f"rayproject/ray:{ray.__version__}-" in dockerfile
    for text in (dockerfile, (DEPLOY / "ray/cluster.yaml").read_text()):
        assert torch in text
    assert f"ray[default]=={ray.__version__}" in (DEPLOY / "ray/cluster.yaml").read_text()


@pytest.mark.parametrize("name", FILES)
def test_the_commands_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    options = {option for each in typer.main.get_command(cli.app).params for option in each.opts}
    for command in re.findall(r"slimfleet-simulate [^;'\n]*", text):
        given = {word for word in shlex.split(command) if word.startswith("--")}
        assert given <= options, command
    words = re.findall(r"(?:^ +|env/bin/)ray ([a-z-]+)((?: +--[a-z-]+)*)", text, re.MULTILINE)
    assert words or name.startswith("kubernetes")
    for subcommand, given in words:
        assert subcommand in ray_command.commands, subcommand
        known = {option for each in ray_command.commands[subcommand].params for option in each.opts}
        assert set(given.split()) <= known, (subcommand, given)
