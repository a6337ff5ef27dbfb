"""What is read where every copy of redundant data below a path is to be."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.cli.storage_redundancy import redundant_below
from hostler.fleet import Host

HOST = Host("h1", "192.0.2.1")
NODES = [
    ("sda", pb.NODE_KIND_DISK, "sda", ""),
    ("sdb", pb.NODE_KIND_DISK, "sdb", ""),
    ("md-1", pb.NODE_KIND_MD, "md127", ""),
    ("filesystem-e", pb.NODE_KIND_FILESYSTEM, "ext4", "ext4"),
    ("mount-/srv", pb.NODE_KIND_MOUNT, "/srv", "ext4"),
    ("filesystem-b", pb.NODE_KIND_FILESYSTEM, "btrfs", "btrfs"),
    ("mount-/srv/fast", pb.NODE_KIND_MOUNT, "/srv/fast", "btrfs"),
    ("filesystem-r", pb.NODE_KIND_FILESYSTEM, "ext4", "ext4"),
    ("mount-/", pb.NODE_KIND_MOUNT, "/", "ext4"),
]
EDGES = [
    *(("sda", "md-1"), ("sdb", "md-1"), ("md-1", "filesystem-e"), ("filesystem-e", "mount-/srv")),
    *(("sdb", "filesystem-b"), ("md-1", "filesystem-b"), ("filesystem-b", "mount-/srv/fast")),
    *(("sda", "filesystem-r"), ("filesystem-r", "mount-/")),
]


def graph() -> Any:
    made = pb.GetGraphResponse()
    for one, kind, name, kind_of in NODES:
        made.nodes.add(id=one, kind=kind, name=name, uuid=f"{one}-uuid", facts={"type": kind_of})
    for lower, upper in EDGES:
        made.edges.add(lower=lower, upper=upper)
    return made


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/srv/guests", {"md-1"}),
        ("/srv", {"md-1"}),
        ("/srv/fast/x", {"md-1", "filesystem-b"}),
        ("/srv/faster", {"md-1"}),
        ("/home", set()),
    ],
)
def test_all_that_is_redundant_below_a_path_is_read(path: str, found: set[str]) -> None:
    changes = dict(redundant_below(graph(), path))
    assert set(changes) == found
    asked = {name: str(change.message(HOST)).strip() for name, change in changes.items()}
    assert asked.get("md-1", 'array: "md-1"') == 'array: "md-1"'
    wanted = 'filesystem: "filesystem-b-uuid"'
    assert asked.get("filesystem-b", wanted) == wanted
