"""The host's half of an enrolment: its key stays, its token is used once, a cut changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler.core.certificates import load_certificates, load_key, make_key, to_pem
from hostler.core.joining import check_request, draw_token, make_request
from hostler.core.ssl.authority.request import RequestInvalid
from hostler.core.units import UNITS
from hostler.lab.identity import RESTORES, SOCKETS
from hostler.pki import Authority
from hostlerd.joining.__main__ import answer
from hostlerd.joining.joining import Joining, JoinRefused, open_doors

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "ca", "lab")
    made.write_bundle()
    return made


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Joining]:
    (tmp_path / "etc/pki").mkdir(parents=True)
    yield Joining(tmp_path / "etc", tmp_path / "state", os.getegid())


def files(host: Joining) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (host.etc / "pki").iterdir()}


def signed(ca: Authority, request: bytes, token: str, name: str = "web1") -> bytes:
    key = check_request(request, name, token)
    path = ca.sign_host(name, key, (), ("192.0.2.1",), renew=True).path
    assert path is not None
    return path.read_bytes()


def joined(ca: Authority, host: Joining, name: str = "web1") -> str:
    token = draw_token()
    certificate = signed(ca, host.request(name, token), token, name)
    return host.install(token, certificate, ca.ca_pem, ca.bundle_path.read_bytes())


def test_a_pair_that_fits_and_nothing_left_of_the_way_there(ca: Authority, host: Joining) -> None:
    serial = joined(ca, host)
    there = files(host)
    assert set(there) == {"ca.pem", "host.pem", "host.key"}
    leaf = load_certificates(there["host.pem"])[0]
    assert leaf.public_key() == load_key(there["host.key"]).public_key()
    assert f"{leaf.serial_number:x}" == serial == ca.show("host/web1").certificate.serial
    assert (host.etc / "pki/host.key").stat().st_mode & 0o7777 == 0o640
    assert (host.etc / "bundle.json").read_bytes() == ca.bundle_path.read_bytes()
    # The CA has the certificate, and never the key.
    assert [p.name for p in (ca.folder / "hosts").iterdir()] == ["web1.pem"]


def test_a_cut_keeps_the_key_and_an_older_token_brings_nothing(
    ca: Authority, host: Joining
) -> None:
    first, second = draw_token(), draw_token()
    one, two = host.request("web1", first), host.request("web1", second)
    assert check_request(one, "web1", first) == check_request(two, "web1", second)
    certificate = signed(ca, two, second)
    bundle = ca.bundle_path.read_bytes()
    before = files(host)
    with pytest.raises(JoinRefused) as refused:
        host.install(first, certificate, ca.ca_pem, bundle)
    assert refused.value.reason == "TOKEN_OTHER"
    assert files(host) == before
    host.install(second, certificate, ca.ca_pem, bundle)
    with pytest.raises(JoinRefused) as refused:
        host.install(second, certificate, ca.ca_pem, bundle)
    assert refused.value.reason == "TOKEN_USED"


def test_what_does_not_fit_is_refused_and_changes_nothing(
    ca: Authority, host: Joining, tmp_path: Path
) -> None:
    joined(ca, host)
    token = draw_token()
    request = host.request("web1", token)
    good, bundle = signed(ca, request, token), ca.bundle_path.read_bytes()
    other = Authority.create(tmp_path / "other", "lab")
    other.write_bundle()
    stranger = to_pem(
        load_certificates(
            ca.sign_host("web1", make_key().public_key(), renew=True).path.read_bytes()
        )[0]
    )  # type: ignore[union-attr]
    named = ca.sign_host("web2", check_request(request, "web1", token)).path
    assert named is not None
    before = files(host)
    for certificate, ca_pem, signed_bundle, reason in (
        (b"none", ca.ca_pem, bundle, "CERTIFICATE_UNREADABLE"),
        (stranger, ca.ca_pem, bundle, "OTHER_KEY"),
        (named.read_bytes(), ca.ca_pem, bundle, "OTHER_NAME"),
        (good, other.ca_pem, bundle, "OTHER_CA"),
        (good, ca.ca_pem, b"{}", "BUNDLE_INVALID"),
        (good, ca.ca_pem, other.bundle_path.read_bytes(), "BUNDLE_INVALID"),
    ):
        with pytest.raises(JoinRefused) as refused:
            host.install(token, certificate, ca_pem, signed_bundle)
        assert refused.value.reason == reason
    assert files(host) == before


def test_another_ca_takes_the_pushed_bundles_of_the_old_one_with_it(
    ca: Authority, host: Joining, tmp_path: Path
) -> None:
    pushed = [host.state / d / n for d in UNITS for n in ("bundle.json", "bundle.kept.json")]
    for path in pushed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ca.bundle_path.read_bytes())
    joined(ca, host)
    joined(ca, host)
    assert all(path.exists() for path in pushed)
    other = Authority.create(tmp_path / "other", "lab")
    other.write_bundle()
    joined(other, host)
    assert not any(path.exists() for path in pushed)


def test_a_request_speaks_for_its_name_its_token_and_its_key_alone() -> None:
    key, token = make_key(), draw_token()
    request = make_request(key, "web1", token)
    assert check_request(request, "web1", token) == key.public_key()
    for name, told in (("web2", token), ("web1", draw_token())):
        with pytest.raises(RequestInvalid):
            check_request(request, name, told)
    with pytest.raises(RequestInvalid):
        check_request(request.replace(b"\nMI", b"\nMJ", 1), "web1", token)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        [],
        {"do": "delete"},
        {"do": "request", "name": "web1"},
        {"do": "request", "name": "../x", "token": "0" * 64},
        {"do": "request", "name": "web1", "token": "short"},
        {"do": "install", "token": "0" * 64, "certificate": "", "ca": "", "bundle": ""},
        {"do": "open", "domains": []},
        {"do": "open", "domains": ["netns", "sshd"]},
        {"do": "open", "domains": 7},
    ],
)
def test_odd_requests_are_refused_by_name(host: Joining, request_: object) -> None:
    with pytest.raises(JoinRefused):
        answer(request_, host)
    assert files(host) == {}


def test_no_unit_is_named_by_the_caller() -> None:
    with pytest.raises(JoinRefused, match="no domain"):
        open_doors(["--now"])


@pytest.mark.parametrize("domain", UNITS)
def test_an_upgrade_enables_what_enrolment_does(domain: str) -> None:
    text = (CHECKOUT / f"packaging/debian/hostler-{domain}/postinst").read_text()
    enabling = text[text.index("/etc/hostler/pki/host.pem") :]
    named = set(re.findall(r"hostler-[a-z-]+(?:@[a-z]+)?\.(?:socket|service|timer)", enabling))
    assert named == set(UNITS[domain])


def test_the_lab_enables_the_same() -> None:
    every = {unit for units in UNITS.values() for unit in units}
    assert {*SOCKETS, *RESTORES} == {unit for unit in every if not unit.endswith(".timer")}


def test_the_note_has_no_token_in_it(host: Joining) -> None:
    token = draw_token()
    host.request("web1", token)
    note = host.etc / "pki/joining.json"
    assert json.loads(note.read_text())["name"] == "web1"
    assert token not in note.read_text()
    assert (host.etc / "pki/joining.key").stat().st_mode & 0o7777 == 0o600
