"""Steps of LVM that were cut off and are carried out once more: what they did themselves counts."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from storage_lvm import uuid_of

from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.lvm import Group, PhysicalVolume, Volume
from hostlerd.storage.model.lvm_volume_steps import GrowVolume
from hostlerd.storage.model.target import Target
from hostlerd.storage.worker import lvm
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Request
from hostlerd.storage.worker.refused import Refused

DISK = Target("serial-a", "vda", "254:0", 1 << 26, 3)
SNAP = Volume(uuid_of("snap"), "snap", 1 << 24, "linear", origin="data", role=("snapshot",))
DATA = Volume(uuid_of("data"), "data", 1 << 24, "linear")
ONE = PhysicalVolume(uuid_of("a"), DISK.number, 15, 8)
NOTHING: Any = None


def group(*volumes: Volume) -> Group:
    return Group(uuid_of("vg"), "vg", 7, 4 << 20, (ONE,), volumes)


def request(**fields: Any) -> Request:
    """What the worker is asked, of a group on one disk."""
    devices = {"devices": (Device(DISK, -1, Path("/sys/block/vda")),)}
    return Request("", {"devices": [asdict(DISK)], **fields}, devices, NOTHING, {}, NOTHING)


def merge(seqno: int) -> Request:
    of = {"volume": "snap", "volume_uuid": SNAP.uuid, "origin": "data", "is_later": False}
    return request(group="vg", uuid=uuid_of("vg"), seqno=seqno, **of)


def test_a_snapshot_that_is_gone_was_merged_if_that_was_begun_before() -> None:
    assert lvm.merge(merge(0), NOTHING, group(DATA)) == ()
    with pytest.raises(Refused) as caught:
        lvm.merge(merge(7), NOTHING, group(DATA))
    assert caught.value.reason == "GROUP_CHANGED"


def test_what_goes_on_is_polled_for_nobody_may_poll_it() -> None:
    going = group(DATA, replace(SNAP, is_merging=True))
    assert lvm.merge(merge(0), NOTHING, going) == ("lvchange", "--poll", "y", "vg/data")
    move = request(number=DISK.number, numbers=["254:16"])
    words = ("pvmove", "--background", "--interval", "1", "/dev/vda")
    assert lvm.start_move(move, NOTHING, group(replace(DATA, moves="/dev/vda"))) == words


def test_a_step_is_repeated_whatever_its_group_counts_by_now(tmp_path: Path) -> None:
    step = GrowVolume("vg", uuid_of("vg"), 7, 0, (DISK,), "data", DATA.uuid, 9)
    asked: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "worker.sock"))
        listener.listen()

        def answer() -> None:
            for _ in range(2):
                peer, _ = listener.accept()
                with peer, peer.makefile("rwb") as lines:
                    asked.append(json.loads(lines.readline()))
                    lines.write(b'{"ok": true}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        changing = Changing(Worker(tmp_path / "worker.sock"))
        for session in (changing.applying, changing.recovering):
            with session() as apply:
                apply(step)
        thread.join()
    assert [one.pop("seqno") for one in asked] == [7, 0]
    assert asked[0] == asked[1] and asked[0]["op"] == "GrowVolume"
