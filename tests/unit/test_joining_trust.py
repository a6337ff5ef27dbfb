"""Whom a host trusts: CAs come and go, it never locks itself out, and a bundle holds throughout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostler.ca_rotation import Pair, Rotation
from hostler.core import trust
from hostler.core.bundle import verify
from hostler.core.certificates import issue_user, load_certificates, load_key, make_ca
from hostler.core.joining import check_request, draw_token
from hostler.core.units import UNITS
from hostler.pki import Authority
from hostlerd.joining.__main__ import answer
from hostlerd.joining.joining import Joining, JoinRefused


class Host:
    """A host that is enrolled, and the CA that it was enrolled by."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority.create(folder / "ca", "lab")
        self.ca.write_bundle()
        (folder / "etc/pki").mkdir(parents=True)
        self.joining = Joining(folder / "etc", folder / "state", os.getegid())
        self.certify(self.ca, may_go_back=False)
        self.pushed = [folder / "state" / domain / "bundle.json" for domain in UNITS]
        for path in self.pushed:
            path.parent.mkdir(parents=True)
            path.write_bytes(self.ca.bundle_path.read_bytes())

    def read(self, name: str) -> bytes:
        return (self.joining.etc / name).read_bytes()

    def trusts(self) -> set[str]:
        return set(trust.fingerprints(self.read("pki/ca.pem")))

    def certify(self, ca: Authority, *, may_go_back: bool) -> None:
        token = draw_token()
        told = answer({"do": "request", "name": "web1", "token": token}, self.joining)
        key = check_request(told["request"].encode(), "web1", token)
        path = ca.sign_host("web1", key, renew=True).path
        assert path is not None
        request = {"do": "install", "token": token, "certificate": path.read_text()}
        request |= {"ca": ca.ca_pem.decode(), "bundle": ca.bundle_path.read_text()}
        answer(request | {"may_go_back": may_go_back}, self.joining)

    def change(self, bundle: Path, add: bytes = b"", remove: str = "", name: str = "web1") -> None:
        request = {"do": "trust", "name": name, "add": add.decode(), "bundle": bundle.read_text()}
        told = answer(request | {"remove": [remove] if remove else []}, self.joining)
        assert set(told["trusted"]) == self.trusts()

    def refused(self, *words: object, **more: object) -> str:
        before = {path: path.read_bytes() for path in self.joining.etc.rglob("*.*")}
        with pytest.raises(JoinRefused) as refused:
            self.change(*words, **more)  # type: ignore[arg-type]
        assert {path: path.read_bytes() for path in self.joining.etc.rglob("*.*")} == before
        assert all(path.exists() for path in self.pushed)
        return refused.value.reason


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def rotation(host: Host) -> Rotation:
    return Rotation(host.ca.folder)


def test_all_three_steps(host: Host, rotation: Rotation) -> None:
    pair, bundle = rotation.begin(), host.ca.bundle_path
    for _ in range(2):
        host.change(bundle, pair.new_pem)
        assert host.trusts() == {pair.old, pair.new}
    rotation.switch()
    host.certify(rotation.authority, may_go_back=True)
    # What was pushed holds still, and stays; what is installed is of the new CA.
    assert all(path.exists() for path in host.pushed)
    verify(host.read("bundle.json"), pair.new_pem)
    answer({"do": "keep"}, host.joining)
    for _ in range(2):
        host.change(bundle, remove=pair.old)
        assert host.trusts() == {pair.new}
    assert not any(path.exists() for path in host.pushed)
    assert sorted(p.name for p in host.joining.pki.iterdir()) == ["ca.pem", "host.key", "host.pem"]


def test_a_host_that_was_left_behind_gets_trust_and_bundle_at_once(
    host: Host, rotation: Rotation
) -> None:
    pair = rotation.begin()
    rotation.switch()
    host.change(host.ca.bundle_path, pair.new_pem)
    assert host.trusts() == {pair.old, pair.new}
    verify(host.read("bundle.json"), pair.new_pem)


def test_other_cas_that_are_trusted_there_stay(host: Host, rotation: Rotation) -> None:
    other = make_ca("lab").pem
    (host.joining.pki / "ca.pem").write_bytes(host.ca.ca_pem + other)
    pair = rotation.begin()
    host.change(host.ca.bundle_path, pair.new_pem)
    assert host.trusts() == {pair.old, pair.new, *trust.fingerprints(other)}


def test_what_would_lock_it_out_is_refused(host: Host, rotation: Rotation, tmp_path: Path) -> None:
    pair, bundle = rotation.begin(), host.ca.bundle_path
    old_bundle = tmp_path / "old-bundle.json"
    old_bundle.write_bytes(bundle.read_bytes())
    assert host.refused(bundle, remove=pair.old) == "OLD_CERTIFICATE_SERVED"
    assert host.refused(bundle, pair.new_pem, name="web2") == "OTHER_NAME"
    assert host.refused(bundle, make_ca("elsewhere").pem) == "NOT_A_CA"
    leaf = issue_user(_issuer(host.ca), "alice").pem
    assert host.refused(bundle, leaf) == "NOT_A_CA"
    assert host.refused(bundle, b"-----BEGIN CERTIFICATE-----\n") == "CERTIFICATE_UNREADABLE"
    host.change(bundle, pair.new_pem)
    assert host.refused(bundle, remove=pair.old) == "OLD_CERTIFICATE_SERVED"
    rotation.switch()
    host.certify(rotation.authority, may_go_back=True)
    # By the bundle of the old CA nobody could be let in afterwards.
    assert host.refused(old_bundle, remove=pair.old) == "BUNDLE_INVALID"


def test_an_older_bundle_takes_no_place(host: Host, rotation: Rotation, tmp_path: Path) -> None:
    pair = rotation.begin()
    older = tmp_path / "older.json"
    older.write_bytes(host.ca.bundle_path.read_bytes())
    host.ca.revoke("4f9a")
    host.pushed[2].write_bytes(host.ca.bundle_path.read_bytes())
    assert host.refused(older, pair.new_pem) == "BUNDLE_OLD"
    host.change(host.ca.bundle_path, pair.new_pem)


def test_the_pair_before_comes_back_whole_or_goes(host: Host, rotation: Rotation) -> None:
    pair = rotation.begin()
    host.change(host.ca.bundle_path, pair.new_pem)
    before = host.read("pki/host.key"), host.read("pki/host.pem")
    rotation.switch()
    for _ in range(2):
        # The one that is kept is the one that served, however often another comes.
        host.certify(rotation.authority, may_go_back=True)
    assert host.read("pki/host.key") != before[0]
    assert answer({"do": "go back"}, host.joining) == {"changed": True}
    assert (host.read("pki/host.key"), host.read("pki/host.pem")) == before
    assert (host.joining.pki / "host.key").stat().st_mode & 0o7777 == 0o640
    assert answer({"do": "go back"}, host.joining) == {"changed": False}
    host.certify(rotation.authority, may_go_back=True)
    after = host.read("pki/host.key")
    answer({"do": "keep"}, host.joining)
    assert answer({"do": "go back"}, host.joining) == {"changed": False}
    assert host.read("pki/host.key") == after


def _issuer(ca: Authority):  # type: ignore[no-untyped-def]
    from hostler.core.certificates import Issuer

    return Issuer.of(ca.ca_pem, load_key((ca.folder / "ca.key").read_bytes()))


def test_pairs_are_told_by_their_fingerprints(rotation: Rotation) -> None:
    pair = rotation.begin()
    assert isinstance(pair, Pair) and pair.old != pair.new
    assert load_certificates(pair.new_pem)[0].subject == load_certificates(pair.old_pem)[0].subject
