from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
import runtime_door as door
import runtime_pki as pki
from cryptography import x509

from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.tls import (
    BadIdentity,
    CertificateExpired,
    CertificateNotYetValid,
    ServerIdentity,
    TlsTooOld,
    TlsUnusable,
    is_issued_by,
    parse_client,
)

DAY = timedelta(days=1)


@pytest.fixture
def authority() -> pki.Authority:
    return pki.Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: pki.Authority) -> Path:
    pki.install(tmp_path / "pki", authority.host(), authority.certificate)
    return tmp_path / "pki"


def bundle(*authorities: pki.Authority) -> bytes:
    return b"".join(authority.certificate for authority in authorities)


async def call(
    target: tuple[str, int], caller: pki.Pair | None, roots: bytes, method: str = door.WHO
) -> dict[str, object]:
    credentials = grpc.ssl_channel_credentials(
        roots, *((caller.key, caller.certificate) if caller else ())
    )
    options = [("grpc.ssl_target_name_override", pki.HOST), ("grpc.use_local_subchannel_pool", 1)]
    address = f"127.0.0.1:{target[1]}"
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        answer: dict[str, object] = json.loads(await door.invoke(channel, method))
        return answer


async def served_serial(target: tuple[str, int], caller: pki.Pair, roots: bytes, at: Path) -> int:
    """Ask Python's own TLS, not grpcio, which certificate is served."""
    file = at / "caller.pem"
    file.write_bytes(caller.certificate + caller.key)
    context = ssl.create_default_context(cadata=roots.decode())
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", target[1], ssl=context, server_hostname=pki.HOST
    )
    serial = int(writer.get_extra_info("peercert")["serialNumber"], 16)
    writer.close()
    return serial


def serial(pair: pki.Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate).serial_number


# The host's identity: what is refused at the start.


def test_good_folder(folder: Path) -> None:
    identity = ServerIdentity(folder)
    assert identity.problem == ""
    certificate = x509.load_pem_x509_certificate((folder / "host.pem").read_bytes())
    assert identity.certificate_expire_time == certificate.not_valid_after_utc


def mismatch(folder: Path, authority: pki.Authority) -> None:
    pki.replace(folder / "host.key", authority.host().key)


def expired(folder: Path, authority: pki.Authority) -> None:
    pair = authority.issue("h1", [x509.DNSName("h1")], begins=-2 * DAY, ends=-DAY)
    pki.install(folder, pair, authority.certificate)


def early(folder: Path, authority: pki.Authority) -> None:
    pair = authority.issue("h1", [x509.DNSName("h1")], begins=DAY, ends=2 * DAY)
    pki.install(folder, pair, authority.certificate)


def foreign(folder: Path, authority: pki.Authority) -> None:
    pki.replace(folder / "ca.pem", pki.Authority("CA").certificate)


def locked(folder: Path, authority: pki.Authority) -> None:
    pair = authority.issue("h1", [x509.DNSName("h1")], password=b"secret")
    pki.install(folder, pair, authority.certificate)


def torn(folder: Path, authority: pki.Authority) -> None:
    whole = (folder / "host.pem").read_bytes()
    (folder / "host.pem").write_bytes(whole[: len(whole) // 2])


def broken_roots(folder: Path, authority: pki.Authority) -> None:
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (mismatch, "host.key", "does not belong to"),
        (expired, "host.pem", "expired"),
        (early, "host.pem", "not yet valid"),
        (foreign, "host.pem", "certificate"),
        (locked, "host.pem", "cannot be used"),
        (torn, "host.pem", "cannot be used"),
        (broken_roots, "ca.pem", "no usable root"),
        (lambda f, a: (f / "host.key").unlink(), "host.key", "No such file"),
        (lambda f, a: (f / "ca.pem").write_bytes(b""), "ca.pem", "is not PEM"),
        (lambda f, a: (f / "ca.pem").write_bytes(bytes(2 << 20)), "ca.pem", "larger than"),
    ],
)
def test_unusable_folder_names_file_and_reason(
    folder: Path,
    authority: pki.Authority,
    spoil: Callable[[Path, pki.Authority], object],
    file: str,
    reason: str,
) -> None:
    spoil(folder, authority)
    with pytest.raises(TlsUnusable, match=reason) as caught:
        ServerIdentity(folder)
    assert caught.value.file == folder / file
    assert str(folder / file) in str(caught.value)


# Hot reload, seen by callers.


@door.on_uvloop
async def test_new_pair_is_served_to_new_connections(
    tmp_path: Path, folder: Path, authority: pki.Authority
) -> None:
    admin, roots = authority.user("admin"), authority.certificate
    async with door.opened(tmp_path) as here:
        before = await served_serial(here.tcp, admin, roots, tmp_path)
        fresh = authority.host()
        pki.install(folder, fresh, roots)
        after = await served_serial(here.tcp, admin, roots, tmp_path)
        assert after == serial(fresh) != before
        assert here.identity.problem == ""
        assert (await call(here.tcp, admin, roots))["identity"] == pki.user("admin")


@door.on_uvloop
async def test_mismatched_pair_is_kept_out_until_it_is_whole(
    tmp_path: Path, folder: Path, authority: pki.Authority
) -> None:
    admin, roots = authority.user("admin"), authority.certificate
    async with door.opened(tmp_path) as here:
        first = await served_serial(here.tcp, admin, roots, tmp_path)
        fresh = authority.host()
        pki.replace(folder / "host.key", fresh.key)
        assert await served_serial(here.tcp, admin, roots, tmp_path) == first
        assert "does not belong to" in here.identity.problem
        assert (await call(here.tcp, admin, roots))["identity"] == pki.user("admin")
        pki.replace(folder / "host.pem", fresh.certificate)
        assert await served_serial(here.tcp, admin, roots, tmp_path) == serial(fresh)
        assert here.identity.problem == ""


@door.on_uvloop
async def test_missing_file_keeps_the_last_good_one(
    tmp_path: Path, folder: Path, authority: pki.Authority
) -> None:
    admin, roots = authority.user("admin"), authority.certificate
    async with door.opened(tmp_path) as here:
        (folder / "host.pem").unlink()
        assert (await call(here.tcp, admin, roots))["identity"] == pki.user("admin")
        assert "host.pem: No such file" in here.identity.problem


@door.on_uvloop
async def test_roots_are_reloaded(tmp_path: Path, folder: Path, authority: pki.Authority) -> None:
    other = pki.Authority("CA2")
    old, new = authority.user("old"), other.user("new")
    async with door.opened(tmp_path) as here:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(here.tcp, new, authority.certificate)
        pki.replace(folder / "ca.pem", bundle(authority, other))
        assert (await call(here.tcp, new, authority.certificate))["identity"] == pki.user("new")
        assert (await call(here.tcp, old, authority.certificate))["identity"] == pki.user("old")
        pki.install(folder, other.host(), other.certificate)
        assert (await call(here.tcp, new, other.certificate))["identity"] == pki.user("new")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(here.tcp, old, other.certificate)


@door.on_uvloop
async def test_handshakes_that_must_fail(
    tmp_path: Path, folder: Path, authority: pki.Authority
) -> None:
    roots = authority.certificate
    stranger = pki.Authority("CA").user("admin")
    past = authority.issue("admin", [pki.uri(pki.user("admin"))], begins=-2 * DAY, ends=-DAY)
    async with door.opened(tmp_path) as here:
        for caller in (None, stranger, past):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(here.tcp, caller, roots)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.sleep(0.2)
        counts = here.relay.statistics
        assert counts.silent >= 3
        assert counts.open == 0


@door.on_uvloop
async def test_no_call_fails_while_files_keep_changing(
    tmp_path: Path, folder: Path, authority: pki.Authority
) -> None:
    """Key and certificate change one after the other: in between, and while read, they differ."""
    roots, admin = authority.certificate, authority.user("admin")
    pairs = [authority.host() for _ in range(4)]
    over, times = False, 0

    def change() -> None:
        nonlocal times
        while not over:
            pki.install(folder, pairs[times % len(pairs)], roots)
            times += 1

    async with door.opened(tmp_path) as here:
        changing = asyncio.create_task(asyncio.to_thread(change))
        try:
            calls = 0
            while calls < 150 or times < 50:
                assert (await call(here.tcp, admin, roots))["identity"] == pki.user("admin")
                calls += 1
        finally:
            over = True
        await changing


# Who the caller is.


def shown(pair: pki.Pair, version: bytes = b"TLSv1.3") -> dict[str, list[bytes]]:
    return {"ssl_tls_version": [version], "x509_pem_cert": [pair.certificate]}


def test_parse_client(authority: pki.Authority) -> None:
    pair = authority.user("admin")
    found = parse_client(shown(pair))
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    assert found.identity == "spiffe://lab.hostler/user/admin"
    assert int(found.serial, 16) == certificate.serial_number
    assert found.not_before == certificate.not_valid_before_utc
    assert found.not_after == certificate.not_valid_after_utc
    assert found.tls_version == "TLSv1.3"


@pytest.mark.parametrize("version", [b"TLSv1.2", b"TLSv1", b"", b"tlsv1.3"])
def test_old_tls_is_refused(authority: pki.Authority, version: bytes) -> None:
    with pytest.raises(TlsTooOld) as caught:
        parse_client(shown(authority.user("admin"), version))
    assert caught.value.reason == "TLS_TOO_OLD"


@pytest.mark.parametrize("context", [{}, {"ssl_tls_version": [b"TLSv1.3", b"TLSv1.3"]}])
def test_connection_without_tls_is_refused(context: dict[str, list[bytes]]) -> None:
    with pytest.raises(TlsTooOld):
        parse_client(context)


GOOD = "spiffe://lab.hostler/user/admin"


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [GOOD, "spiffe://lab.hostler/user/other"],
        [GOOD, GOOD],
        [GOOD, "https://example.org/"],
        ["https://lab.hostler/user/admin"],
        ["spiffe://lab.hostler"],
        ["spiffe://lab.hostler/"],
        ["spiffe:///user/admin"],
        ["spiffe://LAB/user/admin"],
        ["spiffe://lab.hostler/user/../host/h1"],
        ["spiffe://lab.hostler/user/./admin"],
        ["spiffe://lab.hostler/user//admin"],
        ["spiffe://lab.hostler/user/admin/"],
        ["spiffe://lab.hostler/user/ad min"],
        ["spiffe://lab.hostler/user/admin\n"],
        ["spiffe://lab.hostler/user/admin?x=1"],
        ["spiffe://lab.hostler:7441/user/admin"],
        ["spiffe://lab.hostler/user/" + "a" * 2048],
    ],
)
def test_identity_must_be_one_spiffe_uri(authority: pki.Authority, uris: list[str]) -> None:
    pair = authority.issue("x", [x509.DNSName("x"), *(pki.uri(text) for text in uris)])
    with pytest.raises(BadIdentity) as caught:
        parse_client(shown(pair))
    assert caught.value.reason == "BAD_IDENTITY"


def test_names_of_other_kinds_do_not_count(authority: pki.Authority) -> None:
    names = [x509.DNSName("x"), x509.RFC822Name("spiffe@example.org"), pki.uri(GOOD)]
    assert parse_client(shown(authority.issue("x", names))).identity == GOOD


def test_certificate_without_names(authority: pki.Authority) -> None:
    with pytest.raises(BadIdentity):
        parse_client(shown(authority.issue(GOOD, [])))


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff" * 100])
def test_unreadable_certificate(pem: bytes) -> None:
    with pytest.raises(BadIdentity):
        parse_client({"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [pem]})


def test_dates_are_looked_at_on_every_call(authority: pki.Authority) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    pair = authority.issue("x", [pki.uri(GOOD)], ends=timedelta(seconds=1.5))
    assert parse_client(shown(pair)).identity == GOOD
    while datetime.now(UTC) < ends + timedelta(seconds=1):
        try:
            parse_client(shown(pair))
        except CertificateExpired as error:
            assert error.reason == "CERTIFICATE_EXPIRED"
            break
    else:
        pytest.fail("an expired certificate was taken")


@pytest.mark.parametrize(
    ("begins", "ends", "error"),
    [(-2 * DAY, -DAY, CertificateExpired), (DAY, 2 * DAY, CertificateNotYetValid)],
)
def test_dates(
    authority: pki.Authority, begins: timedelta, ends: timedelta, error: type[DomainError]
) -> None:
    pair = authority.issue("x", [pki.uri(GOOD)], begins=begins, ends=ends)
    with pytest.raises(error):
        parse_client(shown(pair))


# Who is trusted no more.


def test_a_chain_leads_to_the_roots_there_are_now(authority: pki.Authority) -> None:
    other = pki.Authority("CA")
    mine, theirs = authority.user("admin").certificate, other.user("admin").certificate
    assert is_issued_by(mine, authority.certificate)
    assert is_issued_by(mine, bundle(other, authority))
    # The names of both CAs are the same: it is the key that counts.
    assert not is_issued_by(mine, other.certificate)
    assert not is_issued_by(theirs + mine, authority.certificate)
    assert not is_issued_by(theirs + authority.certificate, authority.certificate)
    assert not is_issued_by(b"no certificate", authority.certificate)
    assert not is_issued_by(mine, b"no root")
    assert is_issued_by(mine + theirs * 8, authority.certificate)
    assert not is_issued_by(mine + theirs * 9, authority.certificate)


@door.on_uvloop
async def test_what_is_trusted_is_told_before_the_next_caller(
    tmp_path: Path, folder: Path, authority: pki.Authority
) -> None:
    """A look that finds the change first leaves it to the next handshake all the same."""
    other = pki.Authority("CA2")
    new = other.user("new")
    async with door.opened(tmp_path) as here:
        first = here.identity.authorities
        pki.replace(folder / "ca.pem", bundle(authority, other))
        here.identity.refresh()
        assert here.identity.roots == bundle(authority, other)
        assert here.identity.authorities[:1] == first and len(here.identity.authorities) == 2
        assert (await call(here.tcp, new, authority.certificate))["identity"] == pki.user("new")
