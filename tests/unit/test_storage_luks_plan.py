"""Plans of LUKS: opened once, closed if nobody uses it, never with a key in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_luks import UUID, first, second

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.errors import volumes
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.luks import HEADER_MOST_BYTES, device_uuid, header_bytes
from hostlerd.storage.model.luks_steps import CloseLuks, OpenLuks
from hostlerd.storage.model.observed import Device, Mount, Observed, Signature
from hostlerd.storage.plan import filesystem, luks
from hostlerd.storage.plan.graph import build

MIB = 1 << 20
DISK, OTHER = "serial-Ssda", "serial-Ssdb"
LUKS = Signature("crypto_LUKS", "crypto", UUID, "safe")


def device(name: str, number: str, **more: object) -> Device:
    return Device(
        *(name, number, 64 * MIB, 512, 512),
        **{"serial": f"S{name}" if name.startswith("sd") else "", **more},  # type: ignore[arg-type]
    )


def graph(opened: str = "", mounted: bool = False, upper: str = "") -> Graph:
    devices = [
        device("sda", "8:0", signatures=(LUKS,)),
        device("sdb", "8:16", signatures=(Signature("ext4", "filesystem", "u-2"),)),
    ]
    if opened:
        uuid = f"CRYPT-LUKS2-{UUID.replace('-', '')}-{opened}"
        lower = ("sda",)
        devices.append(device("dm-0", "253:0", dm_name=opened, dm_uuid=uuid, lower=lower))
    if upper:
        devices.append(device("dm-1", "253:1", dm_name=upper, dm_uuid="LVM-x", lower=("sdb",)))
    mounts = (Mount("/srv", "253:0", "/", "ext4", "/dev/dm-0", False),) if mounted else ()
    return build(Observed(devices=tuple(devices), mounts=mounts))


def wanted(device: str = DISK, name: str = "safe", **more: object) -> luks.Wanted:
    return luks.Wanted(device, name, **{"key_file": "/etc/key", **more})  # type: ignore[arg-type]


def test_opened_once_and_taken_back_by_closing():
    (step,) = luks.open_(wanted(), graph()).steps
    assert isinstance(step, OpenLuks) and step.uuid == UUID and "/etc/key" in step.describe()
    assert step.inverse() == CloseLuks(step.device, UUID, "safe")
    assert luks.open_(wanted(), graph(opened="safe")).steps == ()
    assert luks.open_(wanted(), graph()).etag != luks.open_(wanted(), graph(opened="safe")).etag
    with pytest.raises(volumes.LuksOpen, match="other"):
        luks.open_(wanted(), graph(opened="other"))
    with pytest.raises(volumes.LuksNameTaken):
        luks.open_(wanted(name="vg-lv"), graph(upper="vg-lv"))
    named = luks.open_(wanted(key_file="", credential="k", is_read_only=True), graph()).steps[0]
    assert "for reading with credential k" in named.describe()


@pytest.mark.parametrize(
    "name", ["", "-x", "a/b", "../x", "a..b", "a b", "a\n", "x" * 65, "d\u00e4ta", "$(reboot)"]
)
def test_odd_names_are_refused(name):
    with pytest.raises(InvalidRequest) as told:
        luks.open_(wanted(name=name), graph())
    assert [one.field for one in told.value.violations] == ["name"]


@pytest.mark.parametrize(
    "more",
    [
        {"key_file": ""},
        {"credential": "k"},
        {"key_file": "etc/key"},
        {"key_file": "/etc/\n"},
        {"key_file": "", "credential": "../k"},
    ],
)
def test_a_key_is_one_file_or_one_credential(more):
    with pytest.raises(InvalidRequest):
        luks.open_(wanted(**more), graph())


def test_closed_while_nobody_uses_it():
    assert luks.close(DISK, graph()).steps == ()
    (step,) = luks.close(DISK, graph(opened="safe")).steps
    assert step == CloseLuks(step.device, UUID, "safe") and step.inverse() is None
    with pytest.raises(errors.DeviceBusy, match="/srv"):
        luks.close(DISK, graph(opened="safe", mounted=True))


def test_what_holds_no_luks():
    for plan in (lambda: luks.close(OTHER, graph()), lambda: luks.backup(OTHER, graph())):
        with pytest.raises(volumes.LuksNotFound, match="ext4"):
            plan()
    (step,) = luks.backup(UUID, graph()).steps
    assert "keep the header" in step.describe() and step.inverse() is None


def test_the_graph_says_whether_it_is_open_and_nobody_else_may_have_the_disk_then():
    facts = {node.id: node.facts.get("luks") for node in graph().nodes}
    assert (facts[DISK], facts[OTHER]) == ("closed", None)
    opened = graph(opened="safe")
    assert next(n.facts["luks"] for n in opened.nodes if n.id == DISK) == "open"
    (found,) = luks.all_of(opened)
    assert found.name == "safe" and found.opened is not None
    with pytest.raises(errors.DeviceBusy, match="dm-0"):
        filesystem.wipe(DISK, opened)


@given(st.integers(8, HEADER_MOST_BYTES // 512))
def test_a_header_of_luks1_is_as_long_as_it_says(sectors):
    assert header_bytes(first(sectors * 512)) == sectors * 512


@given(st.lists(st.integers(32768, HEADER_MOST_BYTES), min_size=1, max_size=3))
def test_a_header_of_luks2_ends_where_the_first_segment_begins(offsets):
    told = {"segments": {str(i): {"offset": str(one)} for i, one in enumerate(offsets)}}
    assert header_bytes(second(told)) == min(offsets)


def test_a_header_apart_from_its_data():
    assert header_bytes(second({"segments": {}})) == header_bytes(first(0)) == 16 * MIB


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"LUKS\xba\xbe\0\3".ljust(4096, b"\0"),
        first(512),
        first(1 << 30),
        second([]),
        second({}),
        second({"segments": {"0": {}}}),
        second({"segments": {"0": {"offset": "x"}}}),
        second({"segments": {"0": {"offset": "1"}}}),
        second({"segments": {}})[:8192],
        second({"segments": {}}, 4096 + 16).replace(b"{", b"["),
    ],
)
def test_headers_that_are_damaged(header):
    with pytest.raises(ValueError, match=r"."):
        header_bytes(header)


@given(st.binary(max_size=64), st.integers(0, 16000))
def test_a_header_with_damage_is_refused_or_bounded(damage, at):
    header = bytearray(second({"segments": {"0": {"offset": "16777216"}}}))
    header[at : at + len(damage)] = damage
    try:
        assert 4096 <= header_bytes(bytes(header)) <= HEADER_MOST_BYTES
    except ValueError:
        return


def test_the_uuid_of_an_open_device_is_of_that_name_alone():
    pattern = device_uuid(UUID, "a.b")
    digits = UUID.replace("-", "")
    assert pattern.fullmatch(f"CRYPT-LUKS1-{digits}-a.b")
    assert not pattern.fullmatch(f"CRYPT-LUKS1-{digits}-axb")
    assert not pattern.fullmatch(f"CRYPT-PLAIN-{digits}-a.b")
