"""A process that goes on while the CA and the certificates that it uses are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from client_doors import World, world

import hostler.aio
from hostler.api.netns.v1 import namespace_pb2
from hostler.ca_rotation import Rotation
from hostler.channel import Connector
from hostler.config import load_context
from hostler.fleet import Host
from hostler.results import CallFailed
from hostler.session import Session

LIST = hostler.aio.rpc(namespace_pb2, "NamespaceService", "ListNamespaces")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


async def ask(session: Session) -> None:
    await session.call(LIST, namespace_pb2.ListNamespacesRequest())


async def test_a_session_goes_on_from_one_ca_to_the_other(fleet: World) -> None:
    """Its door is shut, and opens again as one that the files of before do not take."""
    before = fleet.start("h1").doors["netns"]
    client = hostler.aio.connect(config=fleet.config, record=False)
    (host,) = (Host("h1", "127.0.0.1", ports={"netns": before.port}),)
    async with client.session(host) as session:
        await ask(session)
        rotation = Rotation(fleet.authority.folder)
        rotation.begin()
        rotation.switch()
        rotation.reissue_users()
        rotation.drop()
        fleet.authority = rotation.authority
        before.end()
        fleet.authority.certificate_path("host", "h1").unlink()
        before._credentials = fleet.credentials("h1")
        before.open()
        await ask(session)
    async with client.session(host) as session:
        await ask(session)


async def test_another_ca_is_refused_at_once_where_nothing_has_changed_here(
    fleet: World, tmp_path: Path
) -> None:
    door = fleet.start("h1").doors["netns"]
    host = Host("h1", "127.0.0.1", ports={"netns": door.port})
    async with Session(host, Connector(load_context(path=fleet.config))) as session:
        await ask(session)
        door.end()
        other = World(_made(tmp_path / "other"))
        door._credentials = other.credentials("h1")
        door.open()
        with pytest.raises(CallFailed) as failed:
            await ask(session)
    assert failed.value.error.reason == "TLS_HANDSHAKE_FAILED"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_a_pair_that_is_half_there_is_not_taken(fleet: World) -> None:
    door = fleet.start("h1").doors["netns"]
    connector = Connector(load_context(path=fleet.config))
    path = fleet.authority.certificate_path("user", "admin")
    first = connector.follow()
    kept = path.read_bytes()
    path.unlink()
    assert connector.follow() == first
    host = Host("h1", "127.0.0.1", ports={"netns": door.port})
    async with Session(host, connector) as session:
        await ask(session)
    path.write_bytes(kept)
    assert connector.follow() != first
