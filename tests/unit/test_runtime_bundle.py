"""Which bundle is in force: the last good one, whatever becomes of the file and of the daemon."""

import pytest

from hostler.pki import Authority
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.bundle import BundleStore


@pytest.fixture
def authority(tmp_path):
    made = Authority.create(tmp_path / "pki", "lab")
    made.grant("alice", "admins")
    return made


@pytest.fixture
def start(tmp_path, authority):
    """Begin as a daemon does that has just been started; answers its store and authorizer."""
    (tmp_path / "state").mkdir()

    def begin():
        authorizer = Authorizer("netns", [])
        store = BundleStore(
            tmp_path / "bundle.json", tmp_path / "state/bundle.json", authority.ca_path, authorizer
        )
        store.refresh()
        return store, authorizer

    return begin


def install(tmp_path, data):
    (tmp_path / "bundle.json").write_bytes(data)


def test_a_damaged_bundle_leaves_the_last_good_one_in_force_after_a_restart(
    tmp_path, authority, start
):
    install(tmp_path, authority.bundle_path.read_bytes())
    version = start()[1].bundle.version
    for damage in (b"{}", b"", b"\0" * 100):
        install(tmp_path, damage)
        store, authorizer = start()
        assert authorizer.bundle.version == version
        assert "bundle.json" in store.problem


def test_what_is_kept_is_not_believed_without_the_signature(tmp_path, authority, start):
    install(tmp_path, authority.bundle_path.read_bytes())
    start()
    kept = tmp_path / "state/bundle.kept.json"
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    install(tmp_path, b"{}")
    assert start()[1].bundle is None


def test_one_that_was_taken_away_on_purpose_is_gone(tmp_path, authority, start):
    install(tmp_path, authority.bundle_path.read_bytes())
    start()
    (tmp_path / "bundle.json").unlink()
    assert start()[1].bundle is None


def test_what_is_kept_follows_what_is_installed(tmp_path, authority, start):
    old = authority.bundle_path.read_bytes()
    authority.revoke("ff")
    install(tmp_path, authority.bundle_path.read_bytes())
    assert start()[1].bundle.version == 2
    # Whoever installs an older one means it.
    install(tmp_path, old)
    assert start()[1].bundle.version == 1
    install(tmp_path, b"{}")
    assert start()[1].bundle.version == 1
