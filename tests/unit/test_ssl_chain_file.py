"""Chain files as the installer writes them: read again, taken back, and undone if cut off."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from http_files import serving
from ssl_pki import ec_key, make

from hostlerd.privileged.refused import Refused
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.ssl.errors import NoGoodChain
from hostlerd.ssl.installer import chain_file
from hostlerd.ssl.installer.configuration import read
from hostlerd.ssl.installer.keys import Waiting
from hostlerd.ssl.installer.run import Runs
from hostlerd.ssl.installer.transaction import Transaction
from hostlerd.ssl.kernel import chains
from hostlerd.ssl.model.chain import Query, check
from hostlerd.ssl.model.inventory import Inventory

ROOT = make("Root", ec_key(), is_ca=True)
CA = make("Issuing", ec_key(), ROOT, is_ca=True)
LEAF = make("leaf", ec_key(), CA, names=("a.test",))
OLD = LEAF.pem
WHOLE = (LEAF.pem + CA.pem).decode()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """What carries out runs, for files below `ssl`, of which `chain.pem` has the leaf alone."""
    (tmp_path / "ssl").mkdir()
    (tmp_path / "journal").mkdir()
    settings = tmp_path / "hostler.toml"
    settings.write_text(f'[ssl]\ninstall_directories = ["{tmp_path / "ssl"}"]\n')
    path = tmp_path / "ssl/chain.pem"
    path.write_bytes(OLD)
    path.chmod(0o640)
    return Runs(read(settings), Waiting(tmp_path / "keys"), tmp_path / "journal")


def chain(runs: Runs) -> Path:
    return runs.journal.with_name("ssl") / "chain.pem"


def names(runs: Runs) -> list[str]:
    return sorted(path.name for path in chain(runs).parent.iterdir())


def test_what_does_not_read_as_the_chain_is_taken_back(runs: Runs) -> None:
    good = chain_file.prepare(str(chain(runs)), WHOLE, runs.allowed)
    for data in (CA.pem + LEAF.pem, LEAF.pem, b"", LEAF.pem + b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(Refused) as refused:
            runs.put_in_place(replace(good, data={"full_chain": data}))
        assert refused.value.reason in ("NOT_VERIFIED", "NOT_A_CHAIN"), refused.value.message
        assert "everything is as it was before" in refused.value.message
        assert chain(runs).read_bytes() == OLD and names(runs) == ["chain.pem"]
        assert not list(runs.journal.iterdir())
    runs.put_in_place(good)
    assert chain(runs).read_text() == WHOLE and names(runs) == ["chain.pem"]


def test_what_was_cut_off_is_undone_by_the_next_start(runs: Runs) -> None:
    inode = chain(runs).stat().st_ino
    good = chain_file.prepare(str(chain(runs)), WHOLE, runs.allowed)
    Transaction.begin(runs.journal, [good], []).swap([good])
    assert chain(runs).read_text() == WHOLE
    (words,) = runs.recover()
    assert "cut off" in words and str(chain(runs)) in words
    found = chain(runs).stat()
    assert (found.st_ino, found.st_mode & 0o777, found.st_uid) == (inode, 0o640, os.geteuid())
    assert chain(runs).read_bytes() == OLD and names(runs) == ["chain.pem"]


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        ((CA.pem + LEAF.pem).decode(), "CHAIN_BROKEN"),
        ((LEAF.pem + CA.pem + ROOT.pem).decode(), "CHAIN_BROKEN"),
        ((LEAF.pem + ROOT.pem).decode(), "CHAIN_BROKEN"),
        (make("leaf", ec_key(), CA, names=("a.test",)).pem.decode(), "KEY_MISMATCH"),
        ("nothing", "INVALID"),
    ],
)
def test_what_is_no_chain_of_the_key_is_refused(runs: Runs, pem: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        runs.write_chain(str(chain(runs)), pem)
    assert refused.value.reason == reason
    assert chain(runs).read_bytes() == OLD and names(runs) == ["chain.pem"]


def test_a_host_fetches_only_if_it_may() -> None:
    roots = ROOT.pem.decode()
    with serving() as web:
        web.file("/ca.crt", CA.der)
        leaf = make("leaf", ec_key(), CA, names=("a.test",), aia=web.uri("/ca.crt"))
        found = chains.of_pem(leaf.pem.decode(), "pem", Inventory())
        query = Query(roots_pem=roots, rules="private", fetch=True)
        kept = chains.build(query, found, may_fetch=False)
        assert not kept.judged.verdict.ok and not web.requests
        with pytest.raises(NoGoodChain, match="nowhere; may not"):
            chains.to_write(kept, "may not")
        assert not chains.build(replace(query, fetch=False), found, may_fetch=True).ok
        assert not web.requests
        assert chains.build(query, found, may_fetch=True).judged.verdict.ok and web.requests
    assert not chains.fetches({}) and chains.fetches({"fetch_issuers": True})
    with pytest.raises(ValueError, match="true or false"):
        chains.fetches({"fetch_issuers": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pem", "-----BEGIN PRIVATE KEY-----"),
        ("roots_pem", "x" * ((1 << 20) + 1)),
        ("path", "relative"),
        ("usage", "email"),
        ("rules", "lax"),
        ("name", "a" * 254),
        ("within_s", 0.0),
        ("within_s", 31.0),
    ],
)
def test_what_is_no_query_is_named(field: str, value: object) -> None:
    check(Query())
    with pytest.raises(InvalidRequest) as refused:
        check(replace(Query(), **{field: value}))
    (violation,) = refused.value.violations
    assert violation.field == f"query.{field.removesuffix('_s')}"
