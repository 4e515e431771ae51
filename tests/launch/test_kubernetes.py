"""Manifests, read back by a YAML parser, and what Kubernetes would make of their arguments."""

import re

import pytest
import yaml

from fusion_launch import Program, Resources, prepare

NEEDED = ["image=me/fusion:1", "claim=runs"]
HOSTILE = [
    "a b",
    "it's",
    '"quoted"',
    "$(HOME)",
    "$$(HOME)",
    "line\nbreak",
    "yes",
    "007",
    "- x: {y}",
    "# no comment",
    "é🙂",
]
CONFIG = 'name: a\n# "quotes", {braces} and $(NAME)\ntext: |\n  two\n  lines \n'


def manifests(*options, arguments=("run", "dir/my a.yaml"), nodes=3, name="My_Run.1"):
    program = Program("fusion", arguments, name)
    launch = prepare("kubernetes", program, Resources(8, nodes), [*NEEDED, *options], files={"dir/my a.yaml": CONFIG})
    assert launch.argv == ("kubectl", "create", "-f", "-")
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(launch.stdin)}


def pods(found):
    """Pod specifications by role."""
    if "Job" in found:
        return {"pod": found["Job"]["spec"]["template"]["spec"]}
    return {role: spec["template"]["spec"] for role, spec in found["PyTorchJob"]["spec"]["pytorchReplicaSpecs"].items()}


def expanded(argument, **variables):
    """An argument as Kubernetes hands it on: $(NAME) becomes the variable's value where there is one, $$ becomes $."""
    return re.sub(r"\$\$|\$\((\w+)\)", lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), argument)


@pytest.mark.parametrize("kind", ["pytorchjob", "job"])
def test_the_program_gets_the_very_arguments_and_its_configuration(kind):
    found = manifests(f"kind={kind}", arguments=("run", "dir/my a.yaml", *HOSTILE))
    (container,) = pods(found).popitem()[1]["containers"]
    told = [expanded(argument, HOME="/root", RANK="1") for argument in container["args"]]
    assert container["command"] == ["python"]
    assert told[told.index("fusion") :] == ["fusion", "run", "/etc/fusion/my a.yaml", *HOSTILE]
    assert found["ConfigMap"]["data"] == {"my a.yaml": CONFIG}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"runs": "/workspace", "shm": "/dev/shm", "configuration": "/etc/fusion"}


def test_a_pytorchjob_has_a_master_and_the_other_nodes_as_workers():
    found = manifests()["PyTorchJob"]
    assert (found["apiVersion"], found["metadata"]["name"]) == ("kubeflow.org/v1", "fusion-my-run-1")
    replicas = found["spec"]["pytorchReplicaSpecs"]
    assert {role: spec["replicas"] for role, spec in replicas.items()} == {"Master": 1, "Worker": 2}
    for spec in replicas.values():
        (container,) = spec["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"  # the operator looks for this name
        args = [expanded(a, RANK="2", MASTER_ADDR="m", MASTER_PORT="23456") for a in container["args"]]
        assert args[:7] == [
            "-m", "fusion_launch.torchrun", "--nnodes=3", "--nproc-per-node=8", "--node-rank=2", "--master-addr=m",
            "--master-port=23456",
        ]  # fmt: skip
    assert list(manifests(nodes=1)["PyTorchJob"]["spec"]["pytorchReplicaSpecs"]) == ["Master"]


def test_an_indexed_job_meets_at_its_first_pod_by_a_headless_service():
    found = manifests("kind=job")
    job, service = found["Job"], found["Service"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]
    assert service["metadata"]["name"] == name == pod["spec"]["subdomain"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["clusterIP"] == "None"
    args = pod["spec"]["containers"][0]["args"]
    assert f"--master-addr={name}-0.{name}" in args
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in args


def test_resources_volumes_and_secrets_are_where_pods_look_for_them():
    found = manifests("cpu=96", "memory=900Gi", "gpu=amd.com/gpu", "secret=hub", "namespace=team", "mount=/data/x")
    assert {manifest["metadata"]["namespace"] for manifest in found.values()} == {"team"}
    for pod in pods(found).values():
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == {"amd.com/gpu": 8, "cpu": "96", "memory": "900Gi"}
        assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
        assert container["workingDir"] == "/data/x"
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["runs"]["persistentVolumeClaim"] == {"claimName": "runs"}
        assert volumes["configuration"]["configMap"] == {"name": found["ConfigMap"]["metadata"]["name"]}


def test_a_recipe_needs_no_configuration_beside_it():
    program = Program("fusion", ("run", "quickstart"), "quickstart")
    text = prepare("kubernetes", program, Resources(1, 1), NEEDED).stdin
    (only,) = yaml.safe_load_all(text)
    (container,) = only["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["run", "quickstart"]
    assert "configMap" not in text


@pytest.mark.parametrize("name", ["x" * 200, "-a-", "A b\nc", "§§"])
def test_every_name_is_one_that_kubernetes_takes(name):
    for manifest in manifests("kind=job", name=name).values():
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", manifest["metadata"]["name"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["claim=runs"], "needs --option image=.*\n.*the container image"),
        (["image=a"], "needs --option claim="),
        ([*NEEDED, "queue=x"], "--option queue is not KEY=VALUE with one of these keys"),
        ([*NEEDED, "secret"], "--option secret is not KEY=VALUE"),
        ([*NEEDED, "kind=pod"], "it is pytorchjob or job"),
        ([*NEEDED, "namespace=A b"], "names are lower-case letters"),
        (["image=a b", "claim=runs"], "an image has no spaces"),
        ([*NEEDED, "mount=data"], "it is an absolute path"),
    ],
)
def test_an_option_that_kubernetes_would_refuse_is_refused_here(options, message):
    with pytest.raises(ValueError, match=message):
        prepare("kubernetes", Program("fusion", (), "a"), Resources(), options)
