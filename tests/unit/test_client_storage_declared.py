"""What is declared of hosts, read and compared with what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.config import HostlerError
from hostler.storage_declared import drift, found, load, of_host

GRAPH = pb.GetGraphResponse(
    nodes=[
        pb.Node(id="wwn-1", kind="NODE_KIND_DISK", name="sda"),
        pb.Node(id="wwn-2", kind="NODE_KIND_DISK", name="sdb"),
        pb.Node(
            id="md-a", kind="NODE_KIND_MD", name="md0", facts={"level": "raid1", "raid_disks": "2"}
        ),
        pb.Node(id="filesystem-1", kind="NODE_KIND_FILESYSTEM", name="ext4", uuid="11-22"),
        pb.Node(
            id="mount-/", kind="NODE_KIND_MOUNT", name="/", facts={"type": "ext4", "root": "/"}
        ),
    ],
    edges=[
        pb.Edge(lower="wwn-1", upper="md-a", role="active leg"),
        pb.Edge(lower="wwn-2", upper="md-a", role="active leg"),
        pb.Edge(lower="md-a", upper="filesystem-1"),
        pb.Edge(lower="filesystem-1", upper="mount-/"),
    ],
    boot=pb.Boot(kernel_release="6.1.0-28", loader_partition_uuid="c1"),
)
SPACES = pb.GetSpaceResponse(spaces=[pb.Space(mount="/", free_least_bytes=1000)])
AS_IT_IS = """
[all]
kernel = "5.10"
[all.mounts."/"]
type = "ext4"
[hosts.h1]
kernel = "6.1.0-28"
loader_partition = "c1"
[hosts.h1.mounts."/"]
uuid = "11-22"
disks = ["wwn-2", "wwn-1"]
free_bytes = 1000
[hosts.h1.arrays.md-a]
level = "raid1"
disks = 2
"""


def codes(tmp_path: Path, text: str, graph: Any = GRAPH, host: str = "h1") -> list[str]:
    path = tmp_path / "storage.toml"
    path.write_text(text)
    declared = of_host(load(path), host)
    assert declared is not None
    return [one.code for one in drift(declared, found(graph, SPACES))]


def test_a_host_that_is_as_declared(tmp_path: Path) -> None:
    assert codes(tmp_path, AS_IT_IS) == []


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('kernel = "6.1.0-28"', "", ["KERNEL_OTHER"]),
        ('"c1"', '"c2"', ["BOOT_LOADER_OTHER"]),
        ('uuid = "11-22"', 'uuid = "33"', ["MOUNT_OTHER_FILESYSTEM"]),
        ('type = "ext4"', 'type = "xfs"', ["MOUNT_OTHER_TYPE"]),
        ('["wwn-2", "wwn-1"]', '["wwn-1"]', ["MOUNT_OTHER_DISKS"]),
        ("free_bytes = 1000", "free_bytes = 1001", ["SPACE_LOW"]),
        ('h1.mounts."/"', 'h1.mounts."/srv"', ["MOUNT_MISSING"]),
        ('all.mounts."/"', 'all.mounts."/srv"', ["MOUNT_MISSING"]),
        ("arrays.md-a", "arrays.md-b", ["ARRAY_MISSING", "ARRAY_UNDECLARED"]),
        ('"raid1"', '"raid10"', ["ARRAY_LEVEL"]),
        ("disks = 2", "disks = 3", ["ARRAY_DISKS"]),
    ],
)
def test_what_is_not_as_declared(tmp_path: Path, old: str, new: str, wanted: list[str]) -> None:
    assert AS_IT_IS.count(old) == 1
    assert codes(tmp_path, AS_IT_IS.replace(old, new)) == wanted


def test_what_is_there_and_not_declared(tmp_path: Path) -> None:
    graph = pb.GetGraphResponse()
    graph.CopyFrom(GRAPH)
    facts = {"type": "ext4", "root": "/"}
    graph.nodes.add(id="mount-/x", kind="NODE_KIND_MOUNT", name="/x", facts=facts)
    # A bind of a folder is no mount that a host is made of.
    facts = {"type": "ext4", "root": "/folder"}
    graph.nodes.add(id="mount-/b", kind="NODE_KIND_MOUNT", name="/b", facts=facts)
    graph.edges.add(lower="filesystem-1", upper="mount-/x")
    assert codes(tmp_path, AS_IT_IS, graph) == ["MOUNT_UNDECLARED"]
    # A file that says nothing of mounts forbids none.
    assert codes(tmp_path, '[hosts.h1]\nkernel = "6.1.0-28"\n', graph) == []


def test_a_leg_that_is_gone(tmp_path: Path) -> None:
    graph = pb.GetGraphResponse()
    graph.CopyFrom(GRAPH)
    del graph.edges[1]
    assert codes(tmp_path, AS_IT_IS, graph) == ["MOUNT_OTHER_DISKS", "ARRAY_DISKS"]


def test_a_host_that_the_file_does_not_know(tmp_path: Path) -> None:
    assert codes(tmp_path, AS_IT_IS, host="h2") == ["KERNEL_OTHER"]
    assert of_host({"hosts": {"h1": {}}}, "h2") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[hosts.h1", "TOML"),
        ("[host.h1]", "host is not known: use all, hosts"),
        ("[hosts]\nh1 = 1", "hosts.h1 has to be a table"),
        ("[hosts.h1]\nkernels = 1", "hosts.h1.kernels is not known"),
        ("[hosts.h1]\nkernel = 1", "hosts.h1.kernel has to be a string"),
        ('[all.mounts."/"]\nfree_bytes = true', "all.mounts./.free_bytes has to be a number"),
        ('[all.mounts]\n"/" = 1', "all.mounts./ has to be a table"),
        ("[all.mounts.x]\ndisks = [1]", "all.mounts.x.disks has to be a list of strings"),
        ("[all.arrays.x]\nlevel = []", "all.arrays.x.level has to be a string"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "storage.toml"
    path.write_text(text)
    with pytest.raises(HostlerError) as refused:
        load(path)
    assert words in str(refused.value) or words == "TOML"
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostlerError, match="No such file"):
        load(tmp_path / "none.toml")
