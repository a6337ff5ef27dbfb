"""What a host is refused for, and what is done to one: from what it said of itself."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.certificates import (
    Certificate,
    Issuer,
    Validity,
    issue_host,
    make_ca,
    make_key,
    read_certificate,
)
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.plan import (
    AddToFleet,
    Certify,
    Copy,
    Install,
    Known,
    OpenDoors,
    Step,
    TellDoors,
    Wanted,
    steps,
)
from hostler.enrolment.scripts import BEGIN, END, LOOK
from hostler.enrolment.seen import Seen, parse
from hostler.packages import Package

NOW = datetime.now(UTC)
DOMAINS = ("netns", "storage", "firewall", "tracing", "ssl")
MADE = make_ca("lab")
CA = read_certificate(MADE.pem)
ISSUER = Issuer.load(MADE.pem, MADE.key_pem)
OTHER_CA = read_certificate(make_ca("elsewhere").pem)


def host_certificate(name: str, address: str = "192.0.2.1", days_ago: int = 0) -> Certificate:
    began = NOW - timedelta(days=days_ago, minutes=5)
    validity = Validity(not_before=began, not_after=began + timedelta(days=30))
    issued = issue_host(ISSUER, name, (), (address,), key=make_key(), validity=validity)
    return issued.certificate


MINE, THEIRS = host_certificate("web1"), host_certificate("web1", "192.0.2.9")


def package(name: str, size_bytes: int = 1000) -> Package:
    path = Path(f"/p/{name}_1.0_amd64.deb")
    return Package(name, "1.0", path, size_bytes, f"sum of {name}")


PACKAGES = tuple(package(f"hostler-{name}") for name in ("common", *DOMAINS))
WANTED = Wanted("web1", "192.0.2.1", PACKAGES, DOMAINS, (), ("192.0.2.1",))
KNOWN = Known(CA)
BARE = Seen(
    clock_s=int(NOW.timestamp()),
    uid=0,
    os_id="debian",
    os_version="12",
    architecture="amd64",
    systemd=True,
    room_kib={"/var": 10**6, "/opt": 10**6},
)
DONE = replace(
    BARE,
    packages={one.name: ("1.0", "installed") for one in PACKAGES},
    ca=CA,
    certificate=MINE,
    has_pair=True,
    open=frozenset(DOMAINS),
)
ENROLLED = Known(CA, MINE, {"web1": "192.0.2.1"})


def kinds(found: tuple[Step, ...]) -> list[type]:
    return [type(step) for step in found]


def test_a_bare_host_gets_all_and_an_enrolled_one_nothing() -> None:
    assert kinds(steps(WANTED, BARE, KNOWN, NOW)) == [
        *(Copy, Install, Certify, OpenDoors, AddToFleet)
    ]
    assert steps(WANTED, DONE, ENROLLED, NOW) == ()


@pytest.mark.parametrize(
    ("seen", "known", "missing"),
    [
        ({"packages": {}}, ENROLLED, [Copy, Install]),
        (
            {"packages": {}, "staged": {one.path.name: one.sha256 for one in PACKAGES}},
            ENROLLED,
            [Install],
        ),
        (
            {"packages": {}, "staged": {"hostler-common_1.0_amd64.deb": "half"}},
            ENROLLED,
            [Copy, Install],
        ),
        (
            {"packages": {**DONE.packages, "hostler-ssl": ("1.0", "half-configured")}},
            ENROLLED,
            [Copy, Install],
        ),
        (
            {"packages": {**DONE.packages, "hostler-ssl": ("0.9", "installed")}},
            ENROLLED,
            [Copy, Install],
        ),
        ({"open": frozenset({"netns"})}, ENROLLED, [OpenDoors]),
        ({}, replace(ENROLLED, fleet={}), [AddToFleet]),
        # Signed, and cut before the host had it: it shows the key that tells.
        (
            {"certificate": None, "ca": None, "has_pair": False, "joining": True},
            ENROLLED,
            [Certify, OpenDoors],
        ),
        # Its certificate was revoked or has ended.
        ({}, replace(ENROLLED, current=None), [Certify, OpenDoors]),
    ],
)
def test_what_is_missing_is_done_and_no_more(
    seen: dict[str, object], known: Known, missing: list[type]
) -> None:
    assert kinds(steps(WANTED, replace(DONE, **seen), known, NOW)) == missing


def test_only_the_doors_that_are_wanted() -> None:
    two = replace(WANTED, domains=("netns", "firewall"), packages=PACKAGES[:1])
    found = steps(two, replace(DONE, open=frozenset({"netns"})), ENROLLED, NOW)
    assert found == (OpenDoors(("firewall",)), TellDoors("web1", ("netns", "firewall")))
    told = replace(ENROLLED, domains=("netns", "firewall"))
    there = replace(DONE, open=frozenset({"netns", "firewall"}))
    assert steps(two, there, told, NOW) == ()
    # Those it has had before stay, and all of them need no word.
    assert steps(replace(two, domains=("ssl",)), there, told, NOW) == (
        OpenDoors(("ssl",)),
        TellDoors("web1", ("netns", "firewall", "ssl")),
    )
    assert steps(WANTED, DONE, told, NOW) == (TellDoors("web1", ()),)
    assert TellDoors("web1", ()).describe() == "tell the fleet that web1 has all doors"
    fresh = steps(two, replace(BARE), KNOWN, NOW)[-1]
    assert fresh == AddToFleet("web1", "192.0.2.1", {}, ("netns", "firewall"))


def test_a_certificate_in_its_last_third_is_renewed() -> None:
    for days, renewed in ((19, []), (21, [Certify, OpenDoors]), (31, [Certify, OpenDoors])):
        old = host_certificate("web1", days_ago=days)
        seen, known = replace(DONE, certificate=old), replace(ENROLLED, current=old)
        found = steps(WANTED, seen, known, NOW)
        assert kinds(found) == renewed, days
        assert all(step.replaces for step in found if isinstance(step, Certify))


def test_an_address_that_the_certificate_lacks_is_put_into_a_new_one() -> None:
    moved = replace(WANTED, address="192.0.2.7", ip_addresses=("192.0.2.7",))
    known = replace(ENROLLED, fleet={})
    assert kinds(steps(moved, DONE, known, NOW)) == [Certify, OpenDoors, AddToFleet]


@pytest.mark.parametrize(
    ("seen", "known", "reason", "advice"),
    [
        ({"os_id": "ubuntu", "os_version": "24.04"}, KNOWN, "NOT_DEBIAN_12", "Debian 12"),
        ({"os_version": "11"}, KNOWN, "NOT_DEBIAN_12", "Debian 12"),
        ({"architecture": "arm64"}, KNOWN, "OTHER_ARCHITECTURE", "amd64"),
        ({"systemd": False}, KNOWN, "NO_SYSTEMD", "boot"),
        ({"uid": 1000}, KNOWN, "NOT_ROOT", "--sudo"),
        ({"clock_s": BARE.clock_s + 7200}, KNOWN, "CLOCK_OFF", "timedatectl"),
        ({"clock_s": BARE.clock_s - 7200}, KNOWN, "CLOCK_OFF", "timedatectl"),
        ({"room_kib": {"/var": 10**6, "/opt": 1000}}, KNOWN, "NO_ROOM", "make room"),
        ({"room_kib": {}}, KNOWN, "NO_ROOM", "make room"),
        ({"ca": OTHER_CA, "has_pair": True}, KNOWN, "OTHER_CA", "--replace"),
        ({"has_pair": True}, KNOWN, "OTHER_CA", "--replace"),
        (
            {"ca": CA, "has_pair": True, "certificate": host_certificate("db1")},
            KNOWN,
            "OTHER_NAME",
            "--replace",
        ),
        ({}, ENROLLED, "NAME_HAS_CERTIFICATE", "--replace"),
        (
            {"ca": CA, "has_pair": True, "certificate": THEIRS},
            ENROLLED,
            "NAME_HAS_CERTIFICATE",
            "-",
        ),
        ({}, Known(CA, None, {"web1": "192.0.2.2"}), "NAME_TAKEN", "another name"),
        ({}, Known(CA, None, {"web2": "192.0.2.1"}), "ADDRESS_TAKEN", "web2"),
    ],
)
def test_what_cannot_be_enrolled_is_refused_with_what_to_do(
    seen: dict[str, object], known: Known, reason: str, advice: str
) -> None:
    with pytest.raises(EnrolmentError) as refused:
        steps(WANTED, replace(BARE, **seen), known, NOW)
    assert refused.value.reason == reason
    assert advice in refused.value.advice


def test_replace_takes_a_name_and_a_host_from_whoever_had_them_but_no_place_in_the_fleet() -> None:
    forced = replace(WANTED, replace=True)
    other = replace(BARE, ca=OTHER_CA, has_pair=True)
    for seen, known in ((BARE, ENROLLED), (other, KNOWN)):
        assert Certify in kinds(steps(forced, seen, known, NOW))
    with pytest.raises(EnrolmentError, match="NAME_TAKEN"):
        steps(forced, BARE, Known(CA, None, {"web1": "192.0.2.2"}), NOW)


def after(step: Step, seen: Seen, known: Known) -> tuple[Seen, Known]:
    """The world once a step is done."""
    match step:
        case Copy(packages):
            return replace(seen, staged={p.path.name: p.sha256 for p in packages}), known
        case Install(packages):
            there = {p.name: (p.version, "installed") for p in packages}
            return replace(seen, staged={}, packages={**seen.packages, **there}), known
        case Certify():
            new = host_certificate(step.name, *step.ip_addresses)
            seen = replace(seen, ca=CA, certificate=new, has_pair=True, joining=False)
            return seen, replace(known, current=new)
        case OpenDoors(domains):
            return replace(seen, open=seen.open | set(domains)), known
        case AddToFleet():
            fleet = {**known.fleet, step.name: step.address}
            return seen, replace(known, fleet=fleet, domains=step.domains)
        case TellDoors():
            return seen, replace(known, domains=step.domains)


@given(
    installed=st.sets(st.sampled_from(PACKAGES)),
    staged=st.sets(st.sampled_from(PACKAGES)),
    opened=st.sets(st.sampled_from(DOMAINS)),
    held=st.booleans(),
    listed=st.booleans(),
    cut=st.integers(0, 5),
)
def test_cut_anywhere_and_begun_again_it_ends_with_nothing_to_do(
    installed: set[Package],
    staged: set[Package],
    opened: set[str],
    held: bool,
    listed: bool,
    cut: int,
) -> None:
    seen = replace(
        DONE if held else BARE,
        packages={p.name: ("1.0", "installed") for p in installed},
        staged={p.path.name: p.sha256 for p in staged},
        open=frozenset(opened),
    )
    known = Known(CA, MINE if held else None, {"web1": "192.0.2.1"} if listed else {})
    for step in steps(WANTED, seen, known, NOW)[:cut]:
        seen, known = after(step, seen, known)
    for step in steps(WANTED, seen, known, NOW):
        seen, known = after(step, seen, known)
    assert steps(WANTED, seen, known, NOW) == ()


def test_the_look_at_this_machine_says_what_is_so() -> None:
    done = subprocess.run(["/bin/sh", "-s"], input=LOOK.encode(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = parse(done.stdout)
    release = Path("/etc/os-release").read_text()
    assert f"ID={seen.os_id}\n" in release
    assert abs(seen.clock_s - datetime.now(UTC).timestamp()) < 60
    assert seen.hostname == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert seen.systemd == Path("/run/systemd/system").is_dir()
    assert min(seen.room_kib["/opt"], seen.room_kib["/var"]) > 0


def test_an_answer_is_read_whatever_a_login_shell_prints_around_it() -> None:
    pem = base64.b64encode(MADE.pem).decode()
    facts = f"clock 1800000000\nuid 0\nroom_kib /opt 5\nca {pem}\npackage hostler-ssl 1 installed\n"
    facts += "package hostler-x\n" * 0 + "staged ab  /x/a.deb\nopen ssl\nnews of tomorrow\n"
    seen = parse(f"uid 7\nwelcome\n{BEGIN}\n{facts}{END}\nbye\n".encode())
    assert (seen.uid, seen.room_kib, seen.ca) == (0, {"/opt": 5}, CA)
    assert seen.packages == {"hostler-ssl": ("1", "installed")}
    assert (seen.staged, seen.open) == ({"a.deb": "ab"}, frozenset({"ssl"}))
    assert not seen.has_pair


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bash: sh: command not found",
        f"{BEGIN}\nclock 1\nuid 0\n",
        f"{BEGIN}\nclock soon\nuid 0\n{END}\n",
        f"{BEGIN}\nclock 1\n{END}\n",
        f"{BEGIN}\nclock 1\nuid 0\npackage only-a-name\n{END}\n",
    ],
)
def test_what_is_no_answer_is_told(text: str) -> None:
    with pytest.raises(EnrolmentError, match="ODD_ANSWER"):
        parse(text.encode())


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading(data: bytes) -> None:
    framed = f"{BEGIN}\n".encode() + data + f"\n{END}\n".encode()
    try:
        parse(framed)
    except EnrolmentError as refused:
        assert refused.reason == "ODD_ANSWER"
