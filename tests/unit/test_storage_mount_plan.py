"""What is planned for mounts and swap areas, and what is refused before systemd is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Plan
from hostlerd.storage import errors
from hostlerd.storage.model.declared import ActiveSwap, Declared, Units
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.mount import State, Unit
from hostlerd.storage.model.mount_steps import SetMount, SetSwap
from hostlerd.storage.model.observed import (
    Device,
    FstabLine,
    IscsiFacts,
    Mount,
    Observed,
    PartitionFacts,
    Signature,
)
from hostlerd.storage.plan import mount as plan
from hostlerd.storage.plan import swap as swap_plan
from hostlerd.storage.plan.graph import build
from hostlerd.storage.plan.health import health
from hostlerd.storage.plan.mounts_compared import places, swaps

MIB = 1 << 20
UUID, SWAP_UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
LINK, BY_ID = f"/dev/disk/by-uuid/{UUID}", "/dev/disk/by-id/ata-WD-1-part1"
EXT4, SWAP = Signature("ext4", "filesystem", UUID, "data"), Signature("swap", "other", SWAP_UUID)
DISK = Device("sda", "8:0", 1024 * MIB, 512, 512, disk_sequence=3, serial="WD-1")
PART = replace(
    DISK,
    name="sda1",
    number="8:1",
    partition=PartitionFacts("sda", 1, 2048),
    signatures=(EXT4,),
    links=(BY_ID, LINK),
)
PAGED = replace(
    PART, name="sda2", number="8:2", signatures=(SWAP,), links=(),
    partition=PartitionFacts("sda", 2, 4096),
)  # fmt: skip
MOUNTED = Mount("/srv", "8:1", "/", "ext4", "/dev/sda1", is_read_only=False)
PARTITION, PAGED_ID = "serial-WD-1-part1", "serial-WD-1-part2"


def seen(*devices: Device, **more: object) -> Observed:
    return Observed(devices or (DISK, PART, PAGED), **more)  # type: ignore[arg-type]


def graph(units: Units = Units(), *devices: Device) -> Graph:  # noqa: B008
    return build(seen(*devices, mounts=units.mounts))


def after(step: SetMount | SetSwap, units: Units) -> Units:
    """What the worker makes of a step."""
    unit, name = step.after.unit, (step.after.unit or step.before.unit or Unit("", "", "")).name
    rest = tuple(one for one in units.declared if not one.by.endswith(f"/{name}"))
    if unit is not None:
        folder = "/etc/systemd/system" if unit.lasting else "/run/systemd/system"
        rest += (
            Declared(unit.where, unit.what, unit.type, unit.options, f"{folder}/{name}", unit,
                     unit.lasting),
        )  # fmt: skip
    if isinstance(step, SetSwap):
        active = (ActiveSwap("/dev/sda2", "8:2", 64 * MIB, 0, 5),) if step.after.is_active else ()
        return replace(units, declared=rest, swaps=active)
    mounts = (replace(MOUNTED, path=step.where),) if step.after.is_active else ()
    return replace(units, declared=rest, mounts=mounts)


def apply(units: Units, hidden: int = 0, **more: object) -> Plan:
    wanted = plan.Wanted(**{"where": "/srv", "device": PARTITION, **more})  # type: ignore[arg-type]
    return plan.apply(wanted, graph(units), units, hidden)


wanted_mounts = st.builds(
    plan.Wanted,
    where=st.just("/srv"),
    device=st.sampled_from([PARTITION, UUID]),
    options=st.sampled_from([(), ("ro", "noatime"), ("suid",), ("dev", "suid", "commit=9")]),
    lasting=st.booleans(),
    required=st.booleans(),
    timeout_s=st.sampled_from([0, 30]),
)


@given(wanted_mounts, st.one_of(st.none(), wanted_mounts), st.booleans())
def test_a_plan_makes_what_is_wanted_and_the_second_is_empty(
    wanted: plan.Wanted, first: plan.Wanted | None, still: bool
) -> None:
    units = Units()
    if first is not None:
        (step,) = plan.apply(first, graph(), units, 0).steps
        units = after(step, units)  # type: ignore[arg-type]
        units = units if still else replace(units, mounts=())
    made = plan.apply(wanted, graph(units), units, 0)
    have = units
    for step in made.steps:
        have = after(step, have)  # type: ignore[arg-type]
    (declared,) = have.declared
    assert (declared.ours, declared.lasting) == (made.result, wanted.lasting)
    assert have.mounted_at("/srv") is not None
    again = plan.apply(wanted, graph(have), have, 0)
    assert again.steps == () and again.etag == made.etag_after
    for step in made.steps:
        back = step.inverse()
        assert back is not None and after(back, have) == units  # type: ignore[arg-type]
    gone = plan.delete("/srv", graph(have), have)
    assert after(gone.steps[0], have) == Units()  # type: ignore[arg-type]
    assert plan.delete("/srv", graph(), Units()).steps == ()


def test_a_mount_is_safe_unless_more_is_asked_for() -> None:
    made = apply(Units(), options=("noatime",))
    assert made.result == Unit(
        LINK, "/srv", "ext4", ("noatime", "nosuid", "nodev", "nofail"), lasting=True
    )
    (step,) = made.steps
    assert "serial WD-1" in step.describe() and "on /srv by srv.mount" in step.describe()
    assert apply(Units(), options=("suid",), required=True).result.options == ("nodev",)
    assert apply(Units(), device=BY_ID).result.what == BY_ID
    # A clone has the same UUID: then only the disk's own name is good.
    clone = replace(PART, name="sdb", number="8:16", serial="WD-2", links=(), partition=None)
    wanted = plan.Wanted("/srv", PARTITION)
    assert plan.apply(wanted, graph(Units(), DISK, PART, clone), Units(), 0).result.what == BY_ID
    with pytest.raises(errors.LinkMissing):
        bare = replace(PART, links=())
        plan.apply(wanted, graph(Units(), DISK, bare, clone), Units(), 0)
    remote = replace(DISK, transport="iscsi", iscsi=IscsiFacts("iqn.x", "192.0.2.1:3260", "LOGGED"))
    found = plan.apply(wanted, graph(Units(), remote, PART), Units(), 0).result.options
    assert found[-2:] == ("nofail", "_netdev")


def test_what_would_be_hidden_or_is_mounted_twice_is_told() -> None:
    (hides,) = apply(Units(), hidden=3).notices
    assert hides.code == "MOUNT_HIDES_CONTENT" and "3 entries" in hides.message
    (twice,) = apply(Units(mounts=(replace(MOUNTED, path="/mnt"),))).notices
    assert twice.code == "MOUNTED_ELSEWHERE" and "/mnt" in twice.message


BY_FSTAB = Declared("/srv", f"UUID={UUID}", "ext4", ("defaults",), "fstab line 2")
BY_UNIT = replace(BY_FSTAB, by="/etc/systemd/system/srv.mount")
OURS = Unit(LINK, "/srv", "ext4", ("nosuid", "nodev", "nofail"))
BY_US = replace(BY_UNIT, what=LINK, options=OURS.options, ours=OURS)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: apply(Units((BY_FSTAB,))), errors.UnitNotOurs),
        (lambda: apply(Units((BY_UNIT,))), errors.UnitNotOurs),
        (lambda: apply(Units(mounts=(MOUNTED,))), errors.UnitNotOurs),
        (lambda: plan.delete("/srv", graph(), Units(mounts=(MOUNTED,))), errors.UnitNotOurs),
        (lambda: plan.delete("/srv", graph(), Units((BY_FSTAB,))), errors.UnitNotOurs),
        (
            lambda: apply(Units((BY_US,), (replace(MOUNTED, number="8:9", source="/dev/sdz"),))),
            errors.UnitNotOurs,
        ),
        (
            lambda: apply(Units((replace(BY_US, ours=replace(OURS, what="/dev/disk/by-id/x")),))),
            errors.MountExists,
        ),
        (lambda: apply(Units(), device=PAGED_ID), errors.FilesystemNotFound),
        (lambda: apply(Units(), device="/dev/sda1"), errors.DeviceNameNotLasting),
        (lambda: apply(Units(), where="/etc"), InvalidRequest),
        (lambda: apply(Units(), options=("subvol=x",)), InvalidRequest),
        (lambda: plan.delete("/etc", graph(), Units()), InvalidRequest),
        (lambda: swap(Units(), device=PARTITION), errors.FilesystemNotFound),
        (lambda: swap(Units(), priority=40000), InvalidRequest),
        (lambda: swap(Units((IN_FSTAB,))), errors.UnitNotOurs),
        (lambda: swap(Units(swaps=(USED,))), errors.UnitNotOurs),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Plan], kind: type[DomainError]) -> None:
    with pytest.raises(kind):
        make()


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as told:
        apply(Units(), where="srv", options=("ro", "rw"), timeout_s=601, device="")
    fields = {one.field for one in told.value.violations}
    assert fields == {"where", "options[1]", "timeout_seconds", "device"}


IN_FSTAB = Declared("", f"UUID={SWAP_UUID}", "swap", ("sw",), "fstab line 3")
USED = ActiveSwap("/dev/sda2", "8:2", 64 * MIB, 32 * MIB, 5)


def swap(units: Units, **more: object) -> Plan:
    wanted = swap_plan.Wanted(**{"device": PAGED_ID, **more})  # type: ignore[arg-type]
    return swap_plan.apply(wanted, graph(units), seen(), units)


wanted_swaps = st.builds(
    dict,
    priority=st.sampled_from([None, 0, 7]),
    discard=st.booleans(),
    lasting=st.booleans(),
)


@given(wanted_swaps, st.one_of(st.none(), wanted_swaps))
def test_swap_areas_likewise(wanted: dict[str, object], first: dict[str, object] | None) -> None:
    units = Units(available_bytes=64 * MIB)
    if first is not None:
        units = after(swap(units, **first).steps[0], units)  # type: ignore[arg-type]
    made, have = swap(units, **wanted), units
    for step in made.steps:
        have = after(step, have)  # type: ignore[arg-type]
    assert have.declared[0].ours == made.result and len(have.swaps) == len(have.declared) == 1
    assert swap(have, **wanted).steps == ()
    for step in made.steps:
        assert after(step.inverse(), have) == units  # type: ignore[arg-type]
    gone = swap_plan.delete(PAGED_ID, graph(), seen(), have)
    assert after(gone.steps[0], have) == Units(available_bytes=64 * MIB)  # type: ignore[arg-type]
    assert swap_plan.delete(PAGED_ID, graph(), seen(), Units()).steps == ()


def test_a_swap_area_that_memory_needs_stays() -> None:
    units = Units(available_bytes=256 * MIB)
    units = after(swap(units).steps[0], units)  # type: ignore[arg-type]
    full = replace(units, swaps=(USED,), available_bytes=33 * MIB)
    with pytest.raises(errors.SwapNeeded):
        swap_plan.delete(PAGED_ID, graph(), seen(), full)
    with pytest.raises(errors.SwapNeeded):
        swap(full, priority=9)
    # To forget it at the next boot takes nothing out of it.
    assert swap(full, lasting=False).steps
    other = ActiveSwap("/swapfile", "", 8 * MIB, 0, -2)
    more = replace(full, swaps=(USED, other))
    assert swap_plan.delete(PAGED_ID, graph(), seen(), more).steps


def test_what_is_declared_is_compared_with_what_is_there() -> None:
    lines = (FstabLine(1, f"UUID={UUID}", "/old", "ext4", ("defaults",)),)
    unit = FstabLine(0, LINK, "/srv", "ext4", OURS.options, BY_US.by)
    other = replace(MOUNTED, path="/mnt")
    units = Units((BY_US, replace(BY_FSTAB, where="/old"), IN_FSTAB), (other,), (USED,))
    observed = seen(mounts=(other,), fstab=(*lines, unit))
    found = {one.where: one for one in places(observed, units)}
    assert {where: one.differs for where, one in found.items()} == {
        "/mnt": ("NOT_IN_FSTAB",),
        "/old": ("NOT_MOUNTED",),
        "/srv": ("NOT_MOUNTED",),
    }
    (area,) = swaps(observed, graph(), units)
    assert (area.device, area.declared, area.active) == (PAGED_ID, IN_FSTAB, USED)
    (area,) = swaps(observed, graph(), replace(units, declared=()))
    assert (area.device, area.declared, area.active) == (PAGED_ID, None, USED)
    wrong = replace(MOUNTED, number="8:2", source="/dev/sda2")
    _, reasons = health(seen(mounts=(wrong,), fstab=(unit,)))
    (told,) = [one.message for one in reasons if one.code == "MOUNT_OTHER_DEVICE"]
    assert BY_US.by in told


def test_steps_say_what_they_do() -> None:
    (step,) = apply(Units(), timeout_s=30, lasting=False).steps
    assert isinstance(step, SetMount)
    assert "mount serial-WD-1-part1" in step.describe()
    assert "within 30 s; until the next boot" in step.describe()
    assert step.inverse().describe().startswith("unmount serial-WD-1-part1")
    assert (
        replace(step, before=State(step.after.unit, is_active=True)).describe().startswith("go on")
    )
    forget = SetMount("/srv", None, State(step.after.unit), State())
    assert forget.describe().startswith("forget a device that is not there on /srv")
    assert "unused now" in forget.inverse().describe()
