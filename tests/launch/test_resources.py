"""Hostfiles and resources as people write them, and every way to write them wrongly."""

import pytest

from fusion_launch.resources import Program, Resources, read_hostfile


@pytest.fixture
def hostfile(tmp_path):
    (tmp_path / "hosts").write_text("# ours\nnode1 slots=8\n\nnode-2.lan   slots=8  # the second\nnode3 slots=4\n")
    return str(tmp_path / "hosts")


def test_a_hostfile_says_nodes_gpus_and_head(hostfile):
    found = Resources.from_options(nodes=2, hostfile=hostfile)
    assert (found.gpus, found.nodes, found.head, found.endpoint) == (8, 2, "node1", "node1:29500")
    assert dict(found.hosts) == {"node1": 8, "node-2.lan": 8}
    assert Resources.from_options(gpus=4, hostfile=hostfile, head="node3:1234").endpoint == "node3:1234"


def test_one_process_where_nothing_is_said():
    assert (Resources.from_options().gpus, Resources.from_options().nodes) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node1\n", "line 1: write it as `host slots=8`, got 'node1'"),
        ("node1 slots=8\nnode1 slots=8\n", "line 2: node1 is there twice"),
        ("node1 slots=0\n", "line 1: write it as"),
        ("; rm -rf slots=8\n", "line 1: write it as"),
        ("$(reboot) slots=8\n", "line 1: write it as"),
        ("# nobody\n", "names no host"),
    ],
)
def test_a_line_of_a_hostfile_that_is_none_is_named(tmp_path, text, message):
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_hostfile(tmp_path / "hosts")


def test_a_hostfile_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no hostfile"):
        read_hostfile(tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 9), "--nodes is 9, but .* names 3 hosts"),
        ((None, None), "different numbers of slots .*node3 4.*say --gpus"),
        ((8, None), "--gpus is 8, but .* gives node3 4 slots"),
        ((0, 1), "at least 1, got 0 and 1"),
    ],
)
def test_what_a_hostfile_cannot_give_is_refused(hostfile, given, message):
    with pytest.raises(ValueError, match=message):
        Resources.from_options(gpus=given[0], nodes=given[1], hostfile=hostfile)


@pytest.mark.parametrize("head", ["a b", "node;ls", "node:port", "", "node\n"])
def test_a_head_is_a_host_and_nothing_else(head):
    with pytest.raises(ValueError, match="--head is host or host:port"):
        Resources(head=head)


def test_several_nodes_need_a_place_to_meet():
    with pytest.raises(ValueError, match="2 nodes need a place to meet: give --head"):
        _ = Resources(nodes=2).endpoint


@pytest.mark.parametrize(("name", "label"), [("a.b_c-1", "a.b_c-1"), ("a b\n$(c)", "a-b---c"), ("§", "fusion")])
def test_a_label_is_fit_for_every_queue(name, label):
    assert Program("m", (), name).label == label
