"""Pushing a bundle through real doors: the daemons' own service behind real unix sockets."""

import contextlib

import grpc.aio
import pytest
from journal_backing import backed

from hostler import aio
from hostler.api.common.v1 import bundle_pb2_grpc
from hostler.fleet import Fleet, Host
from hostler.pki import Authority
from hostler.push import PushBundle
from hostler.results import CallFailed
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.bundle import BundleStore
from hostlerd.runtime.common_services import BundleService
from hostlerd.runtime.pushing import BundleKernel

DOORS = ("netns", "firewall")


@pytest.fixture
def authority(tmp_path):
    made = Authority.create(tmp_path / "pki", "lab")
    made.grant("alice", "admins")
    return made


class Door:
    """One daemon's bundle service; without its interceptors, which other tests are about."""

    def __init__(self, folder, domain, ca_path):
        self.path, self.domain = folder / f"{domain}.sock", domain
        self.authorizer = Authorizer(domain, [])
        state = folder / domain
        state.mkdir()
        self.store = BundleStore(
            folder / "none.json", state / "bundle.json", ca_path, self.authorizer
        )

    @contextlib.asynccontextmanager
    async def open(self):
        changes = backed(BundleKernel(self.store), self.path.with_suffix(".backing"))
        server = grpc.aio.server()
        bundle_pb2_grpc.add_BundleServiceServicer_to_server(
            BundleService(self.store, self.authorizer, changes), server
        )
        server.add_insecure_port(f"unix:{self.path}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)


@contextlib.asynccontextmanager
async def doors(tmp_path, authority, domains=DOORS):
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(Door(tmp_path, domain, authority.ca_path).open())
            for domain in domains
        ]
        host = Host("h1", f"unix:{tmp_path}")
        yield opened, aio.Client(None, Fleet((host,)), timeout_s=5), host


async def push(client, host, authority):
    change = PushBundle(authority.bundle_path.read_bytes(), DOORS)
    plans = await client.plan(change, [host])
    return plans[0], (await client.apply(change, [host], plans))[0]


async def test_a_push_reaches_every_door_and_the_second_is_empty(tmp_path, authority):
    async with doors(tmp_path, authority) as (opened, client, host):
        plan, done = await push(client, host, authority)
        assert [step.description for step in plan.value().steps] == [
            f"{domain}: put bundle version 1 in force (was 0)" for domain in DOORS
        ]
        assert done.value().changed and done.value().version == 1
        assert [door.authorizer.bundle.version for door in opened] == [1, 1]
        plan, done = await push(client, host, authority)
        assert plan.value().steps == () and not done.value().changed


async def test_an_older_bundle_is_refused_everywhere(tmp_path, authority):
    old = authority.bundle_path.read_bytes()
    authority.revoke("ff")
    async with doors(tmp_path, authority) as (opened, client, host):
        await push(client, host, authority)
        refused = (await client.plan(PushBundle(old, DOORS), [host]))[0]
        assert refused.error.code and "not newer" in str(refused.error)
        assert [door.authorizer.bundle.version for door in opened] == [2, 2]


async def test_a_door_that_is_shut_holds_up_no_other_and_is_told(tmp_path, authority):
    async with doors(tmp_path, authority, ("firewall",)) as (opened, client, host):
        change = PushBundle(authority.bundle_path.read_bytes(), DOORS)
        async with client.session(host) as session:
            session.timeout_s = 0.5
            planned = await change.plan(session)
            assert len(planned.steps) == 1 and planned.warnings[0].startswith("NOT_PLANNED: netns")
            with pytest.raises(CallFailed) as caught:
                await change.apply(session, planned)
        assert caught.value.error.metadata["doors"] == "netns"
        assert opened[0].authorizer.bundle.version == 1


async def test_no_open_door_is_a_failure(tmp_path, authority):
    async with doors(tmp_path, authority, ()) as (_, client, host):
        async with client.session(host) as session:
            session.timeout_s = 0.5
            with pytest.raises(CallFailed) as caught:
                await PushBundle(b"", DOORS).plan(session)
        assert caught.value.error.metadata["doors"] == "netns,firewall"
