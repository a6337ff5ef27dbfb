"""Exports and attachments: their names, what is refused, and that the second apply is empty."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.storage.model import iscsi as model
from hostlerd.storage.model.graph import Graph, Kind
from hostlerd.storage.model.iscsi import Attachment, AttachmentState, Export, ExportState
from hostlerd.storage.model.iscsi_steps import (
    ApplyAttachment,
    ApplyExport,
    DeleteAttachment,
    DeleteExport,
)
from hostlerd.storage.model.observed import Device, IscsiFacts, Mount, Observed, PartitionFacts
from hostlerd.storage.plan import iscsi as plan
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.in_use import users

H1 = "iqn.2026-01.example.hostler:h1"
LINK = "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"
SDA = Device(
    name="sda",
    number="8:0",
    size_bytes=1 << 30,
    logical_sector_bytes=512,
    physical_sector_bytes=4096,
    serial="WD-1",
    wwn="0x5000c500a1b2c3d4",
    disk_sequence=3,
    links=("/dev/disk/by-path/pci-1", LINK),
)
SDB = Device(
    name="sdb",
    number="8:16",
    size_bytes=1 << 30,
    logical_sector_bytes=512,
    physical_sector_bytes=512,
    transport="iscsi",
    wwn="0x6001405aaaaaaaaaaaaaaaaaaaaaaaaa",
    state="running",
    iscsi=IscsiFacts("iqn.2026-01.example.hostler:h2:leg", "10.0.0.12:3260", "LOGGED_IN"),
    links=("/dev/disk/by-id/wwn-0x6001405aaaaaaaaaaaaaaaaaaaaaaaaa",),
)
WANTED = plan.Wanted("leg", "WD-1", "10.0.0.12:3260", (H1,))
ATTACHED = Attachment(
    "leg", "10.0.0.12:3260", "iqn.2026-01.example.hostler:h2:leg", H1, "leg", "", 10
)


def graph(*devices: Device, mounts: tuple[Mount, ...] = ()) -> Graph:
    return build(Observed(devices or (SDA,), mounts))


def exported(wanted: plan.Wanted = WANTED, **more: object) -> ExportState:
    made = plan.apply(wanted, graph(), (), "h2")
    return ExportState(made.result, **{"is_up": True, **more})  # type: ignore[arg-type]


def reason(call: object, *args: object) -> str:
    with pytest.raises(DomainError) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.reason


# -- names


@given(st.text(max_size=300), st.from_regex(model.NAME, fullmatch=True))
def test_whatever_a_host_is_called_its_names_are_iqns(host: str, export: str) -> None:
    for name in (model.target_name(host, export), model.initiator_name(host)):
        assert model.iqn_fault(name) == ""
        assert len(name.encode()) <= 223


@given(st.text(max_size=80), st.text(max_size=80))
def test_hosts_of_different_names_have_different_names_there(one: str, other: str) -> None:
    same = model.initiator_name(one) == model.initiator_name(other)
    assert same == (one == other)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("iqn.2001-04.com.example:storage:diskarrays-sn-a8675309", True),
        ("iqn.2001-04.com.example", True),
        ("iqn.2001-13.com.example:x", False),
        ("iqn.2001-04.com.example:X", False),
        ("iqn.2001-04.-com:x", False),
        ("iqn.2001-04.com.example:", False),
        ("iqn.2001-04.com.example:a b", False),
        ("iqn.2001-04.com.example:a/../b", False),
        ("eui.02004567A425678D", True),
        ("eui.02004567a425678d", False),
        ("naa.52004567BA64678D", True),
        ("naa.62004567BA64678D0123456789ABCDEF", True),
        ("", False),
        (f"iqn.2001-04.com.example:{'x' * 223}", False),
    ],
)
def test_names_are_those_of_the_standard(name: str, is_one: bool) -> None:
    assert (model.iqn_fault(name) == "") == is_one


@given(st.ip_addresses(), st.integers(1, 65535))
def test_a_portal_is_one_address_and_written_in_one_way(address: object, port: int) -> None:
    text = model.join_portal(str(address), port)
    found = ip_address(str(address))
    odd = found.is_unspecified or found.is_multicast or (found.version == 6 and found.is_link_local)
    assert (model.portal_fault(text) == "") == (not odd and "%" not in text)
    assert model.split_portal(text) == (str(address), port)


@given(st.text(max_size=60))
def test_no_text_breaks_a_portal_or_a_name(text: str) -> None:
    model.portal_fault(text)
    model.iqn_fault(text)


@pytest.mark.parametrize(
    "portal",
    [
        *("0.0.0.0:3260", "[::]:3260", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:+5"),
        *("fd00::1:3260", "[10.0.0.1]:3260", "[fd00:0:0::1]:3260", "h2:3260", "224.0.0.1:3260"),
        *("[fe80::1]:3260", "10.0.0.1:03260"),
    ],
)
def test_a_portal_is_never_all_addresses_or_a_name(portal: str) -> None:
    assert model.portal_fault(portal)


def test_what_others_see_of_a_device_is_its_own() -> None:
    one = exported().export
    assert re.fullmatch(r"0x6001405[0-9a-f]{25}", one.unit_wwn)
    other = replace(one, link=f"{LINK}-part1")
    assert one.unit_wwn != other.unit_wwn and one.unit_serial != other.unit_serial
    assert Export.read(asdict(one)) == one and Attachment.read(asdict(ATTACHED)) == ATTACHED


# -- exports


def test_an_export_is_of_the_device_that_is_named_and_the_second_apply_is_empty() -> None:
    made = plan.apply(WANTED, graph(), (), "h2")
    (step,) = made.steps
    assert isinstance(step, ApplyExport) and step.new_secret and step.before is None
    assert step.export.target == "iqn.2026-01.example.hostler:h2:leg"
    assert (step.export.link, step.export.chap_user) == (LINK, "leg")
    assert step.device.disk_sequence == 3
    assert "WD-1" in step.describe() and H1 in step.describe()
    assert step.inverse() == DeleteExport(step.export, force=True)
    again = plan.apply(WANTED, graph(), (exported(),), "renamed")
    assert again.steps == () and again.etag == again.etag_after == made.etag_after
    # One that is not to be had is made again, with the secret that it has.
    (step,) = plan.apply(WANTED, graph(), (exported(is_up=False),), "h2").steps
    assert isinstance(step, ApplyExport) and not step.new_secret


def test_a_change_of_what_is_in_use_is_refused_unless_it_is_forced() -> None:
    have = (exported(sessions=(H1,), mark="5a"),)
    other = replace(WANTED, portal="10.0.0.13:3260")
    assert reason(plan.apply, other, graph(), have, "h2") == "EXPORT_IN_USE"
    assert reason(plan.apply, replace(WANTED, new_secret=True), graph(), have, "h2")
    forced = plan.apply(replace(other, force=True), graph(), have, "h2")
    (step,) = forced.steps
    assert isinstance(step, ApplyExport) and "in another way" in step.describe()
    assert step.inverse() == ApplyExport(
        *(have[0].export, step.export, step.device), force=True, mark="5a", goes_back=True
    )
    assert [one.code for one in forced.notices] == ["SESSION_CUT"]
    assert reason(plan.delete, "leg", False, have) == "EXPORT_IN_USE"
    (gone,) = plan.delete("leg", True, have).steps
    assert "cut off" in gone.describe() and gone.inverse() is None
    assert plan.delete("leg", False, ()).steps == ()
    assert reason(plan.delete, "Leg!", False, ()) == "INVALID_REQUEST"


PART = Device(
    name="sda1",
    number="8:1",
    size_bytes=1 << 29,
    logical_sector_bytes=512,
    physical_sector_bytes=4096,
    disk_sequence=3,
    partition=PartitionFacts("sda", 1, 2048),
    links=(f"{LINK}-part1",),
)
MOUNTED = Mount("/srv", "8:1", "/", "ext4", "/dev/sda1", False)
UPPER = replace(SDB, name="md0", number="9:0", iscsi=None, transport="", wwn="", lower=("sda",))


@pytest.mark.parametrize(
    ("devices", "mounts", "words", "why"),
    [
        ((replace(SDA, is_read_only=True),), (), "WD-1", "DEVICE_READ_ONLY"),
        ((replace(SDA, size_bytes=4096),), (), "WD-1", "DEVICE_TOO_SMALL"),
        ((replace(SDA, links=()),), (), "WD-1", "LINK_MISSING"),
        ((SDA, PART), (MOUNTED,), "WD-1", "DEVICE_BUSY"),
        ((SDA, UPPER), (), "WD-1", "DEVICE_BUSY"),
        ((replace(SDA, exported="iblock_0/x"),), (), "WD-1", "DEVICE_BUSY"),
        ((replace(SDA, exported="iblock_0/x"), PART), (), f"{LINK}-part1", "DEVICE_BUSY"),
        ((SDA, replace(SDB, links=(LINK,))), (), "wwn-0x5000c500a1b2c3d4", "DEVICE_AMBIGUOUS"),
        ((SDA, replace(SDA, name="sdc", number="8:32")), (), "WD-1", "DEVICE_AMBIGUOUS"),
        ((SDA, SDB), (), "wwn-0x6001405aaaaaaaaaaaaaaaaaaaaaaaaa", "DEVICE_BUSY"),
        ((SDA,), (), "sda", "DEVICE_NAME_NOT_LASTING"),
        ((SDA,), (), "WD-2", "DEVICE_NOT_FOUND"),
    ],
)
def test_what_is_not_to_be_exported_is_refused_by_name(
    devices: tuple[Device, ...], mounts: tuple[Mount, ...], words: str, why: str
) -> None:
    with pytest.raises(DomainError) as caught:
        plan.apply(replace(WANTED, device=words), graph(*devices, mounts=mounts), (), "h2")
    assert caught.value.reason == why, caught.value
    assert caught.value.metadata["device"]


def test_the_device_of_an_export_is_not_changed_under_its_name() -> None:
    other = replace(SDA, name="sdc", number="8:32", serial="WD-9", wwn="0x9", links=(f"{LINK}9",))
    args = (replace(WANTED, device="WD-9"), graph(SDA, other), (exported(),), "h2")
    assert reason(plan.apply, *args) == "EXPORT_EXISTS"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Leg"},
        {"name": "x" * 33},
        {"portal": "0.0.0.0:3260"},
        {"initiators": ()},
        {"initiators": ("h1",)},
        {"initiators": (H1, H1)},
        {"chap_user": "a b"},
        {"chap_secret_file": "relative"},
        {"chap_secret_file": "/etc/x", "new_secret": True},
    ],
)
def test_bad_words_are_refused_before_anything_is_looked_for(wrong: dict[str, object]) -> None:
    asked = replace(WANTED, device="not there", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        plan.apply(asked, graph(), (), "h2")


def test_an_exported_device_is_in_use_on_its_own_host() -> None:
    seen = graph(replace(SDA, exported="iblock_7442/leg"), PART)
    assert users(seen, "wwn-0x5000c500a1b2c3d4") == ("exported as iblock_7442/leg",)
    assert users(seen, "wwn-0x5000c500a1b2c3d4-part1") == ("exported as iblock_7442/leg",)
    seen = graph(SDA, replace(PART, exported="iblock_7442/leg"))
    assert users(seen, "wwn-0x5000c500a1b2c3d4") == ("exported as iblock_7442/leg",)


# -- attachments


def test_a_target_is_attached_once_and_again_when_its_session_has_ended() -> None:
    asked = replace(ATTACHED, initiator="", timeout_s=0)
    made = plan.attach(asked, (), graph(), "h1")
    (step,) = made.steps
    assert step == ApplyAttachment(ATTACHED, None) and H1 in step.describe()
    assert step.inverse() == DeleteAttachment(ATTACHED, (), whatever_came=True)
    have = (AttachmentState(ATTACHED, "LOGGED_IN"),)
    again = plan.attach(asked, have, graph(SDA, SDB), "h1")
    assert again.steps == () and again.notices == () and again.etag_after == made.etag_after
    lost = plan.attach(asked, (AttachmentState(ATTACHED, "FAILED"),), graph(SDA, SDB), "h1")
    assert lost.steps == () and [one.code for one in lost.notices] == ["SESSION_LOST"]
    for there, is_new in (((AttachmentState(ATTACHED),), False), (have, True)):
        (step,) = plan.attach(asked, there, graph(), "h1", is_new).steps
        assert step == ApplyAttachment(ATTACHED, ATTACHED) and step.inverse() is None
        assert "log in again" in step.describe()


def test_an_attachment_is_not_redefined_nor_attached_twice() -> None:
    have = (AttachmentState(ATTACHED, "LOGGED_IN"),)
    for other in (replace(ATTACHED, portal="10.0.0.13:3260"), replace(ATTACHED, name="twin")):
        assert reason(plan.attach, other, have, graph(), "h1") == "ATTACHMENT_EXISTS"
    # Somebody else has attached it.
    assert reason(plan.attach, ATTACHED, (), graph(SDA, SDB), "h1") == "ATTACHMENT_EXISTS"
    for wrong in ({"target": "x"}, {"chap_user": ""}, {"timeout_s": 601}, {"initiator": "h1"}):
        with pytest.raises(InvalidRequest):
            plan.attach(replace(ATTACHED, **wrong), (), graph(), "h1")


def test_what_is_used_here_is_not_logged_out_of() -> None:
    have = (AttachmentState(ATTACHED, "LOGGED_IN"),)
    held = replace(UPPER, lower=("sdb",))
    with pytest.raises(DomainError) as caught:
        plan.detach("leg", have, graph(SDA, SDB, held))
    assert caught.value.reason == "DEVICE_BUSY" and "md0 is built on it" in caught.value.message
    (step,) = plan.detach("leg", have, graph(SDA, SDB)).steps
    assert isinstance(step, DeleteAttachment) and [one.name for one in step.devices] == ["sdb"]
    assert SDB.wwn in step.describe() and step.inverse() is None
    assert plan.detach("leg", (), graph()).steps == ()
    assert reason(plan.detach, "Leg", (), graph()) == "INVALID_REQUEST"
    node = plan.device_of(graph(SDA, SDB), ATTACHED.target)
    assert node is not None and node.kind is Kind.NETWORK
