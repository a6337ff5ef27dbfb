"""The doctor on this machine: each thing broken by itself, and doors that are real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.aio import Client
from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.config import load_context
from hostler.core.certificates import Validity
from hostler.doctor.door import check_door
from hostler.doctor.finding import Level
from hostler.doctor.here import check_here
from hostler.fleet import Fleet, Host
from hostler.fleet_file import add_host
from hostler.pki import Authority

CONFIG = """
current = "t"
[contexts.t]
trust_domain = "lab"
ca = "pki/ca.pem"
certificate = "pki/users/alice.pem"
key = "pki/users/alice.key"
fleet = "fleet.toml"
"""


class Here:
    """A configuration with all that belongs to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create(folder / "pki", "lab")
        self.authority.issue_user("alice")
        (folder / "config.toml").write_text(CONFIG)
        add_host(folder / "fleet.toml", Host("h1", "127.0.0.1"))

    def found(self, now: datetime | None = None) -> dict[str, tuple[Level, str]]:
        return {one.check: (one.level, one.code) for one in check_here(None, now)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTLER_CONFIG", str(tmp_path / "config.toml"))
    return Here(tmp_path)


def test_all_is_well_here(here):
    assert set(here.found().values()) == {(Level.OK, "")}


def test_without_a_configuration_nothing_else_is_asked(here):
    (here.folder / "config.toml").unlink()
    found = here.found()
    assert found.pop("configuration") == (Level.FAILED, "CONFIGURATION")
    assert set(found.values()) == {(Level.SKIPPED, "")}


def _no_ca(here):
    (here.folder / "pki/ca.pem").unlink()


def _leaf_for_ca(here):
    (here.folder / "pki/ca.pem").write_bytes((here.folder / "pki/users/alice.pem").read_bytes())


def _other_ca(here):
    other = Authority.create(here.folder / "other", "lab")
    (here.folder / "pki/ca.pem").write_bytes(other.ca_pem)


def _no_certificate(here):
    (here.folder / "pki/users/alice.pem").write_text("nothing")


def _other_domain(here):
    (here.folder / "config.toml").write_text(CONFIG.replace('"lab"', '"prod"'))


def _other_key(here):
    here.authority.issue_user("bob")
    (here.folder / "pki/users/alice.key").write_bytes(
        (here.folder / "pki/users/bob.key").read_bytes()
    )


def _open_key(here):
    (here.folder / "pki/users/alice.key").chmod(0o640)


def _no_key(here):
    (here.folder / "pki/users/alice.key").unlink()


def _no_host(here):
    (here.folder / "fleet.toml").write_text("")


def _no_fleet(here):
    (here.folder / "fleet.toml").write_text("[hosts.h1]\naddres = 1\n")


@pytest.mark.parametrize(
    ("broken", "check", "level", "code"),
    [
        (_no_ca, "ca", Level.FAILED, "CA_UNREADABLE"),
        (_leaf_for_ca, "ca", Level.FAILED, "CA_UNREADABLE"),
        (_other_ca, "certificate", Level.FAILED, "OTHER_CA"),
        (_no_certificate, "certificate", Level.FAILED, "CERTIFICATE_UNREADABLE"),
        (_other_domain, "certificate", Level.FAILED, "OTHER_TRUST_DOMAIN"),
        (_other_key, "key", Level.FAILED, "OTHER_KEY"),
        (_open_key, "key", Level.WARNING, "KEY_OPEN"),
        (_no_key, "key", Level.FAILED, "KEY_UNREADABLE"),
        (_no_host, "fleet", Level.WARNING, "FLEET_EMPTY"),
        (_no_fleet, "fleet", Level.FAILED, "FLEET_UNREADABLE"),
    ],
)
def test_the_one_thing_that_is_broken_is_named(here, broken, check, level, code):
    broken(here)
    found = here.found()
    assert found.pop(check) == (level, code)
    assert set(found.values()) == {(Level.OK, "")}


@pytest.mark.parametrize(
    ("after", "check", "expected"),
    [
        (timedelta(days=5), "certificate", (Level.WARNING, "CERTIFICATE_ENDS_SOON")),
        (timedelta(days=8), "certificate", (Level.FAILED, "CERTIFICATE_ENDED")),
        (timedelta(hours=-1), "certificate", (Level.FAILED, "CLOCK_BEHIND")),
        (timedelta(days=4000), "ca", (Level.FAILED, "CA_ENDED")),
    ],
)
def test_time_passes(here, after, check, expected):
    assert here.found(datetime.now(UTC) + after)[check] == expected


class Said(host_pb2_grpc.HostServiceServicer):
    """A daemon that answers what it is told to."""

    def __init__(self) -> None:
        self.host = host_pb2.Host(version="1", caller="spiffe://lab/user/alice", bundle_version=3)
        self.off = timedelta()
        self.host.certificate_expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=30))

    async def GetHost(self, request, context):
        now = Timestamp()
        now.FromDatetime(datetime.now(UTC) + self.off)
        self.host.now.CopyFrom(now)
        return host_pb2.GetHostResponse(host=self.host)


@contextlib.asynccontextmanager
async def daemon(here, name="h1", authority=None, **validity):
    """A door of mTLS on a port of its own, as the daemons have it; what it says, and its host."""
    authority = authority or here.authority
    authority.issue_host(name, validity=Validity(**validity))
    pair = [(authority.folder / f"hosts/{name}.{end}").read_bytes() for end in ("key", "pem")]
    server = grpc.aio.server()
    said = Said()
    host_pb2_grpc.add_HostServiceServicer_to_server(said, server)
    credentials = grpc.ssl_server_credentials(
        [(pair[0], pair[1])], authority.ca_pem, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield said, Host("h1", "127.0.0.1", ports={"netns": port})
    finally:
        await server.stop(None)


async def checked(host, bundle_version=3):
    """What is found at the door of netns, by check; each check that failed, with its code."""
    context = load_context()
    client = Client(context, Fleet((host,)), timeout_s=5, record=False)
    found = await check_door(client, context, host, "netns", bundle_version)
    assert all(one.host == "h1" and one.domain == "netns" for one in found)
    assert all(one.advice for one in found if one.level in (Level.FAILED, Level.WARNING))
    return [(one.check, str(one.level), one.code) for one in found]


def failed(check, code, *skipped):
    return [(check, "failed", code), *((one, "skipped", "") for one in skipped)]


WELL = [(check, "ok", "") for check in ("name", "port", "tls", "answer")]


async def test_all_is_well_at_a_door(here):
    async with daemon(here) as (_, host):
        found = await checked(host)
    assert found == [*WELL, *((check, "ok", "") for check in ("clock", "certificate", "bundle"))]


async def test_a_name_that_is_none(here):
    found = await checked(Host("h1", "no-such-host.invalid"))
    assert found == failed("name", "NAME_UNKNOWN", "port", "tls", "answer")


async def test_nothing_listens(here):
    async with daemon(here) as (_, host):
        pass
    assert await checked(host) == WELL[:1] + failed("port", "PORT_CLOSED", "tls", "answer")


async def test_nothing_answers_at_all(here, monkeypatch):
    monkeypatch.setattr("hostler.doctor.door.CONNECT_S", 0.5)
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # A queue that is full takes no more: the kernel drops what asks for a connection.
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        host = Host("h1", "127.0.0.1", ports={"netns": listener.getsockname()[1]})
        found = await checked(host)
    assert found == WELL[:1] + failed("port", "PORT_SILENT", "tls", "answer")


async def test_it_is_another_host(here):
    async with daemon(here, "h2") as (_, host):
        found = await checked(host)
    assert found == WELL[:2] + failed("tls", "HOST_NAME_NOT_IN_CERTIFICATE", "answer")


async def test_its_certificate_has_ended(here):
    ended = datetime.now(UTC) - timedelta(days=1)
    async with daemon(here, not_before=ended - timedelta(days=2), not_after=ended) as (_, host):
        found = await checked(host)
    assert found == WELL[:2] + failed("tls", "HOST_CERTIFICATE_ENDED", "answer")


async def test_it_is_of_another_ca(here):
    other = Authority.create(here.folder / "other", "lab")
    async with daemon(here, authority=other) as (_, host):
        found = await checked(host)
    assert found == WELL[:2] + failed("tls", "HOST_OF_OTHER_CA", "answer")


async def test_it_does_not_take_our_certificate(here):
    other = Authority.create(here.folder / "other", "lab")
    other.issue_user("alice")
    async with daemon(here) as (_, host):
        for end in ("pem", "key"):
            path = here.folder / f"pki/users/alice.{end}"
            path.write_bytes((other.folder / f"users/alice.{end}").read_bytes())
        found = await checked(host)
    assert found == WELL[:2] + failed("tls", "REFUSED_BY_HOST", "answer")


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 no\r\n\r\n", b"\0" * 100])
async def test_something_else_listens(here, says):
    async def answer(_, writer):
        writer.write(says)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        found = await checked(Host("h1", "127.0.0.1", ports={"netns": port}))
    assert found == WELL[:2] + failed("tls", "REFUSED_BY_HOST", "answer")


async def test_a_listener_that_says_nothing(here, monkeypatch):
    monkeypatch.setattr("hostler.doctor.door.HANDSHAKE_S", 0.3)
    async with await asyncio.start_server(lambda *_: asyncio.sleep(5), "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        found = await checked(Host("h1", "127.0.0.1", ports={"netns": port}))
    assert found == WELL[:2] + failed("tls", "TLS_SILENT", "answer")


def _soon(said):
    said.host.certificate_expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=2))


def _none(said):
    said.host.ClearField("certificate_expire_time")


def _off(said):
    said.off = timedelta(seconds=-400)


def _a_little_off(said):
    said.off = timedelta(seconds=60)


def _old(said):
    said.host.bundle_version = 2


def _no_bundle(said):
    said.host.bundle_version, said.host.bundle_problem = 0, "there is none"


def _not_taken(said):
    said.host.bundle_problem = "version 4 is signed by another CA"


def _full(said):
    said.host.audit_problem = "no space left"


def _missing(said):
    said.host.capabilities.add(name="macvlan", reason="no such module")


def _neighbour(said):
    said.host.neighbours.add(code="DOCKER_RUNS", name="docker.service", message="m", advice="a")


def _enemy(said):
    said.host.neighbours.add(
        code="NFTABLES_FLUSHES", name="nftables.service", message="m", advice="a", conflict=True
    )


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (_soon, ("certificate", "warning", "HOST_CERTIFICATE_ENDS_SOON")),
        (_none, ("certificate", "warning", "NO_CERTIFICATE")),
        (_off, ("clock", "failed", "CLOCK_OFF")),
        (_a_little_off, ("clock", "warning", "CLOCK_OFF")),
        (_old, ("bundle", "warning", "BUNDLE_OLD")),
        (_no_bundle, ("bundle", "failed", "BUNDLE_PROBLEM")),
        (_not_taken, ("bundle", "warning", "BUNDLE_PROBLEM")),
        (_full, ("audit", "failed", "AUDIT_DEGRADED")),
        (_missing, ("capabilities", "warning", "CAPABILITY_MISSING")),
        (_neighbour, ("neighbours", "warning", "DOCKER_RUNS")),
        (_enemy, ("neighbours", "failed", "NFTABLES_FLUSHES")),
    ],
)
async def test_what_a_daemon_says_of_itself(here, broken, expected):
    async with daemon(here) as (said, host):
        broken(said)
        found = await checked(host)
    assert [one for one in found if one[1] != "ok"] == [expected]
