"""A new CA in the place of the old one: a kill at any point, locked keys, backups, bundles."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.ca_backup import back_up, restore
from hostler.ca_rotation import Rotation, Stage
from hostler.core import trust
from hostler.core.bundle import verify
from hostler.core.certificates import is_encrypted, load_certificates, make_ca
from hostler.issued import PkiError, PkiLocked
from hostler.pki import Authority

SECRET = b"a passphrase of some length"


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    made = Authority.create(tmp_path / "ca", "lab")
    made.issue_user("alice")
    made.grant("user/alice", "admins")
    return made


def leaf(authority: Authority, name: str) -> str:
    """The fingerprint of the CA that a user's certificate is of."""
    pem = authority.certificate_path("user", name).read_bytes()
    return trust.issuer_of(load_certificates(pem)[0], authority.ca_pem)


def test_three_steps_and_the_bundle_holds_all_the_way(ca: Authority, tmp_path: Path) -> None:
    copy = tmp_path / "ca-of-the-context.pem"
    copy.write_bytes(ca.ca_pem)
    other = make_ca("elsewhere").pem
    ca.ca_path.write_bytes(ca.ca_pem + other)
    old = ca.ca.fingerprint
    rotation = Rotation(ca.folder, (copy,))
    assert rotation.stage is Stage.NONE
    for early in (rotation.pair, rotation.switch, rotation.drop):
        with pytest.raises(PkiError):
            early()
    pair = rotation.begin()
    assert (rotation.stage, pair.old) == (Stage.TRUST, old)
    assert rotation.begin() == pair
    assert set(trust.fingerprints(copy.read_bytes())) == {pair.old, pair.new}
    # The old one signs still.
    now = rotation.authority
    assert now.ca.fingerprint == old
    now.write_bundle()
    verify(now.bundle_path.read_bytes(), pair.old_pem)
    with pytest.raises(PkiError):
        rotation.drop()
    version = now.read_bundle()
    assert rotation.switch() == pair == rotation.switch()
    assert rotation.stage is Stage.REISSUE
    now = rotation.authority
    assert now.ca.fingerprint == pair.new
    bundle = verify(now.bundle_path.read_bytes(), pair.new_pem)
    assert version is not None and bundle.version == version.version + 1
    assert bundle.members == version.members
    with pytest.raises(PkiError):
        rotation.begin()
    assert leaf(now, "alice") == old
    assert (rotation.reissue_users(), rotation.reissue_users()) == (("alice",), ())
    assert leaf(now, "alice") == pair.new
    rotation.drop()
    assert rotation.stage is Stage.NONE
    assert trust.fingerprints(ca.ca_path.read_bytes()) == (
        pair.new,
        *trust.fingerprints(other),
    )
    assert trust.fingerprints(copy.read_bytes()) == (pair.new,)
    assert not list(ca.folder.glob("ca.next*")) and not list(ca.folder.glob("ca.old*"))
    rotation.authority.issue_user("bob")
    assert rotation.begin().old == pair.new


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("what", ["begin", "switch", "drop"])
def test_a_kill_at_any_change_of_a_file_is_gone_on_with(
    ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Each rename, link and unlink is once the last thing that is done."""
    before = Rotation(ca.folder)
    if what != "begin":
        before.begin()
    if what == "drop":
        before.switch()
    at, over = 0, False
    while not over:
        folder = tmp_path / f"{what}-{at}"
        shutil.copytree(ca.folder, folder)
        rotation = Rotation(folder)
        with monkeypatch.context() as patch:
            over = not _killed_at(at, patch, lambda rotation=rotation: getattr(rotation, what)())
        # Whatever was left: both sign, verify and are told apart, and the same step ends it.
        left = rotation.authority
        assert left.read_bundle() is not None
        left.issue_user(f"user{at}")
        if not (what == "drop" and rotation.stage is Stage.NONE):
            getattr(rotation, what)()
        for step in {"begin": ("switch", "drop"), "switch": ("drop",), "drop": ()}[what]:
            getattr(rotation, step)()
        assert rotation.stage is Stage.NONE
        assert len(trust.fingerprints(rotation.authority.ca_pem)) == 1
        assert rotation.authority.ca.fingerprint != ca.ca.fingerprint
        rotation.authority.write_bundle()
        at += 1
    assert at > 2


def _killed_at(at: int, patch: pytest.MonkeyPatch, work: object) -> bool:
    """Do the work as far as its change of a file number `at`; answers whether it got there."""
    count = 0
    for name in ("link", "rename", "unlink"):
        real = getattr(os, name)

        def stopping(*words: object, real: object = real, **more: object) -> object:
            nonlocal count
            if count == at:
                raise Killed
            count += 1
            return real(*words, **more)  # type: ignore[operator]

        patch.setattr(os, name, stopping)
    try:
        work()  # type: ignore[operator]
    except Killed:
        return True
    return False


def test_a_locked_key_stays_locked_all_the_way(ca: Authority) -> None:
    ca.encrypt_key(SECRET)
    for passphrase in (None, lambda: b"another passphrase"):
        with pytest.raises(PkiLocked):
            Rotation(ca.folder, passphrase=passphrase).begin()
        assert not (ca.folder / "ca.next.key").exists()
    rotation = Rotation(ca.folder, passphrase=lambda: SECRET)
    rotation.begin()
    assert is_encrypted((ca.folder / "ca.next.key").read_bytes())
    with pytest.raises(PkiLocked):
        Rotation(ca.folder, passphrase=lambda: b"another passphrase").switch()
    assert rotation.stage is Stage.TRUST
    # A new passphrase is that of both.
    other = b"another one, for both of them"
    rotation.authority.encrypt_key(other)
    rotation = Rotation(ca.folder, passphrase=lambda: other)
    rotation.switch()
    assert is_encrypted((ca.folder / "ca.key").read_bytes())
    rotation.reissue_users()
    rotation.drop()
    rotation.authority.encrypt_key(b"")
    Authority.open(ca.folder).write_bundle()


def test_a_backup_from_the_middle_goes_on_where_it_was(ca: Authority, tmp_path: Path) -> None:
    rotation = Rotation(ca.folder)
    earlier = tmp_path / "earlier"
    back_up(ca, earlier, SECRET)
    pair = rotation.begin()
    begun = tmp_path / "begun"
    back_up(rotation.authority, begun, SECRET)
    rotation.switch()
    switched = tmp_path / "switched"
    back_up(rotation.authority, switched, SECRET)
    for file, stage in ((begun, Stage.TRUST), (switched, Stage.REISSUE)):
        folder = tmp_path / f"{file.name}-restored"
        restored = restore(file, folder, SECRET)
        again = Rotation(folder)
        assert (again.stage, again.pair()) == (stage, pair)
        again.switch()
        assert again.authority.ca.fingerprint == pair.new
        # Hosts take its bundle: it is ahead of all that the lost one had signed.
        newer = again.authority.read_bundle()
        assert newer is not None and newer.version >= restored.bundle_version
        again.drop()
    # One from before knows nothing of it: its next rotation makes another CA.
    folder = tmp_path / "earlier-restored"
    restore(earlier, folder, SECRET)
    assert Rotation(folder).stage is Stage.NONE
    assert Rotation(folder).begin().new != pair.new


CAS = [make_ca(f"domain{n}").pem for n in range(4)]
chosen = st.lists(st.sampled_from(CAS), min_size=1, max_size=6)


@settings(deadline=None)
@given(chosen, st.lists(st.sampled_from(CAS), max_size=3), st.lists(st.sampled_from(CAS)))
def test_trust_is_what_was_there_and_came_and_has_not_gone(
    present: list[bytes], added: list[bytes], removed: list[bytes]
) -> None:
    gone = {trust.fingerprints(one)[0] for one in removed}
    once = trust.changed(b"".join(present), b"".join(added), gone)
    wanted = {trust.fingerprints(one)[0] for one in (*present, *added)} - gone
    found = trust.fingerprints(once) if once else ()
    assert set(found) == wanted and len(found) == len(wanted)
    if once:
        assert trust.changed(once, b"".join(added), gone) == once
