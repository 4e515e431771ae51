"""Manifests for Kubernetes: a PyTorchJob of the Kubeflow training operator, or an indexed Job, which needs no operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from fusion_launch.processes import torchrun_arguments
from fusion_launch.resources import PORT, Launch, Program, Resources

OPTIONS = {
    "image": "the container image, which has fusion installed (required)",
    "claim": "the volume claim that holds runs/, readable and writable from every node (required)",
    "mount": "where it is mounted, and where the program runs; /workspace if not said",
    "kind": "pytorchjob (needs Kubeflow's training operator; the default) or job",
    "namespace": "the namespace",
    "secret": "a secret whose keys become environment variables, such as HF_TOKEN",
    "cpu": "cores of a pod",
    "memory": "memory of a pod, such as 512Gi",
    "gpu": "the name of a GPU among resources; nvidia.com/gpu if not said",
}
CONFIGURATION = "/etc/fusion"  # where the configuration file is mounted


def kubernetes(
    program: Program, resources: Resources, options: Mapping[str, str | None], files: Mapping[str, str]
) -> Launch:
    """Prepare manifests. `files` are read by the program: an argument that names one becomes its path in the container."""
    options = _check_options(options)
    name = re.sub(r"[^a-z0-9-]+", "-", f"fusion-{program.label.lower()}")[:50].strip("-")
    paths = {given: f"{CONFIGURATION}/{PurePosixPath(given).name}" for given in files}
    in_container = replace(program, python="python", arguments=tuple(paths.get(a, a) for a in program.arguments))
    build = {"pytorchjob": _pytorchjob, "job": _job}[options.get("kind", "pytorchjob")]
    manifests = build(name, in_container, resources, options, bool(files))
    if files:
        data = {PurePosixPath(given).name: text for given, text in files.items()}
        manifests = [{"apiVersion": "v1", "kind": "ConfigMap", **_metadata(name, options), "data": data}, *manifests]
    return Launch(
        ("kubectl", "create", "-f", "-"),
        stdin=yaml.dump_all(manifests, Dumper=_ReadableDumper, sort_keys=False, width=120),
    )


class _ReadableDumper(yaml.SafeDumper):
    """Writes YAML for people to read: multi-line text as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_ReadableDumper.add_representer(str, _ReadableDumper.represent_str)


def _pytorchjob(
    name: str, program: Program, resources: Resources, options: Mapping[str, str], mounted: bool
) -> list[dict[str, Any]]:
    """A PyTorchJob: the operator sets each pod's rank and the address of the first one."""
    rendezvous = ("--node-rank=$(RANK)", "--master-addr=$(MASTER_ADDR)", "--master-port=$(MASTER_PORT)")
    container = _container("pytorch", program, resources, options, rendezvous, mounted)
    replicas = {"Master": 1, "Worker": resources.nodes - 1}
    specs = {
        role: {
            "replicas": count,
            "restartPolicy": "OnFailure",
            "template": {"spec": _pod(name, container, options, mounted)},
        }
        for role, count in replicas.items()
        if count
    }
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", **_metadata(name, options)}
    return [{**job, "spec": {"pytorchReplicaSpecs": specs}}]


def _job(
    name: str, program: Program, resources: Resources, options: Mapping[str, str], mounted: bool
) -> list[dict[str, Any]]:
    """An indexed Job: pods have indices, and a headless service gives the first one an address that the others know."""
    rendezvous = ("--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={name}-0.{name}", f"--master-port={PORT}")
    container = _container("fusion", program, resources, options, rendezvous, mounted)
    pod = {"subdomain": name, "restartPolicy": "OnFailure", **_pod(name, container, options, mounted)}
    spec = {
        "completionMode": "Indexed",
        "completions": resources.nodes,
        "parallelism": resources.nodes,
        "template": {"metadata": {"labels": {"fusion": name}}, "spec": pod},
    }
    service = {"clusterIP": "None", "selector": {"fusion": name}, "publishNotReadyAddresses": True}
    return [
        {"apiVersion": "v1", "kind": "Service", **_metadata(name, options), "spec": service},
        {"apiVersion": "batch/v1", "kind": "Job", **_metadata(name, options), "spec": spec},
    ]


def _container(
    name: str,
    program: Program,
    resources: Resources,
    options: Mapping[str, str],
    rendezvous: tuple[str, ...],
    mounted: bool,
) -> dict[str, Any]:
    """`$` is doubled in what the user wrote, since Kubernetes would replace $(NAME) in it."""
    escaped = replace(program, arguments=tuple(argument.replace("$", "$$") for argument in program.arguments))
    limits = {options.get("gpu", "nvidia.com/gpu"): resources.gpus}
    limits |= {key: options[key] for key in ("cpu", "memory") if key in options}
    mounts = [{"name": "runs", "mountPath": _mount(options)}, {"name": "shm", "mountPath": "/dev/shm"}]
    mounts += [{"name": "configuration", "mountPath": CONFIGURATION}] if mounted else []
    container = {
        "name": name,
        "image": options["image"],
        "command": [program.python],
        "args": list(torchrun_arguments(escaped, resources, rendezvous)),
        "workingDir": _mount(options),
        "resources": {"limits": limits},
        "volumeMounts": mounts,
    }
    return container | ({"envFrom": [{"secretRef": {"name": options["secret"]}}]} if "secret" in options else {})


def _pod(name: str, container: dict[str, Any], options: Mapping[str, str], mounted: bool) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "runs", "persistentVolumeClaim": {"claimName": options["claim"]}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # the default of 64 MB is too little for processes that talk
    ]
    volumes += [{"name": "configuration", "configMap": {"name": name}}] if mounted else []
    return {"containers": [container], "volumes": volumes}


def _mount(options: Mapping[str, str]) -> str:
    return options.get("mount", "/workspace")


def _metadata(name: str, options: Mapping[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": name} | ({"namespace": options["namespace"]} if "namespace" in options else {})}


def _check_options(options: Mapping[str, str | None]) -> dict[str, str]:
    """Options that Kubernetes would take. Raises ValueError that names what is missing, unknown or malformed."""
    given = {key: value for key, value in options.items() if value}
    known = "\n".join(f"  {key}: {text}" for key, text in OPTIONS.items())
    if unknown := options.keys() - given.keys() | given.keys() - OPTIONS.keys():
        raise ValueError(f"--option {', '.join(sorted(unknown))} is not KEY=VALUE with one of these keys:\n{known}")
    if missing := [key for key in ("image", "claim") if key not in given]:
        raise ValueError(f"Kubernetes needs --option {missing[0]}=...; options are\n{known}")
    if given.get("kind", "job") not in ("job", "pytorchjob"):
        raise ValueError(f"--option kind={given['kind']}: it is pytorchjob or job.")
    for key in ("claim", "namespace", "secret"):
        if key in given and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", given[key]):
            raise ValueError(f"--option {key}={given[key]!r}: names are lower-case letters, digits, dots and dashes.")
    if re.search(r"\s", given["image"]):
        raise ValueError(f"--option image={given['image']!r}: an image has no spaces.")
    if not given.get("mount", "/").startswith("/"):
        raise ValueError(f"--option mount={given['mount']}: it is an absolute path.")
    return given
