"""Open streams under the real policies: what ends them, what does not, and who is told what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

import hostler
from hostler.core.bundle import Bundle, Policy
from hostlerd.runtime.access import Method
from hostlerd.runtime.authz import Authorizer, CertificateRevoked, PermissionDenied
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.streams import Stopping, Stream, Streams
from hostlerd.runtime.tls import CertificateExpired

DEFAULT = (Path(hostler.__file__).parent / "policies/default.cedar").read_text()
WATCH = Method("/hostler.api.netns.v1.S/Watch", "READ", ("name",))
RUN = Method("/hostler.api.netns.v1.S/Run", "ROOT_EQUIVALENT", ("name",))
VERA = "spiffe://t.test/user/vera"
MESSAGE = health_pb2.HealthCheckResponse()


def bundle(version: int, *extra: str, **changed: Any) -> Bundle:
    values: dict[str, Any] = {
        "version": version,
        "trust_domain": "t.test",
        "created": datetime.now(UTC),
        "members": {VERA: ("viewers", "admins")},
        "policies": tuple(Policy(f"p{n}", text) for n, text in enumerate((DEFAULT, *extra))),
        "revoked": frozenset(),
    }
    return Bundle(**{**values, **changed})


def authorizer() -> Authorizer:
    made = Authorizer("netns", [WATCH, RUN])
    made.use(bundle(1))
    return made


def call(method: Method = WATCH, life_s: float | None = None, **more: Any) -> Call:
    ends = None if life_s is None else datetime.now(UTC) + timedelta(seconds=life_s)
    caller = Caller(VERA, "192.0.2.1:4711", False, certificate_serial="abc", not_after=ends)
    return Call(method, caller, **more)


async def quiet() -> AsyncIterator[Any]:
    """Say nothing, for ever."""
    await asyncio.Event().wait()
    yield MESSAGE


async def write(message: Any) -> None:
    """Take a message."""


async def run(streams: Streams, asked: Call, messages: Any = None) -> None:
    with streams.opened(asked) as stream:
        stream.admitted = True
        await stream.outbound(messages if messages is not None else quiet(), write)


async def until_open(streams: Streams) -> Stream:
    while not streams._open:
        await asyncio.sleep(0)
    (stream,) = streams._open
    return stream


async def test_a_new_bundle_is_looked_at_on_whichever_thread_it_comes() -> None:
    judge = authorizer()
    streams = Streams(judge)
    task = asyncio.create_task(run(streams, call()))
    await until_open(streams)
    revoking = bundle(2, revoked=frozenset({"abc"}))
    thread = threading.Thread(target=judge.use, args=[revoking])
    thread.start()
    async with asyncio.timeout(2):
        with pytest.raises(CertificateRevoked):
            await task
    thread.join()
    assert not streams._open


async def test_a_bundle_that_takes_nothing_away_ends_nothing() -> None:
    judge = authorizer()
    streams = Streams(judge)
    task = asyncio.create_task(run(streams, call()))
    await until_open(streams)
    judge.use(bundle(2, revoked=frozenset({"another"})))
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()


async def test_what_a_policy_says_of_a_resource_holds_for_streams() -> None:
    judge = authorizer()
    streams = Streams(judge)
    rule = 'forbid (principal, action, resource == Resource::"netns/db");'
    kept = asyncio.create_task(run(streams, call(resources=("web",))))
    cut = asyncio.create_task(run(streams, call(resources=("web", "db"))))
    await asyncio.sleep(0)
    judge.use(bundle(2, rule))
    async with asyncio.timeout(2):
        with pytest.raises(PermissionDenied):
            await cut
    assert not kept.done()
    kept.cancel()


async def test_an_approval_that_is_wanted_only_now_ends_a_stream() -> None:
    judge = authorizer()
    streams = Streams(judge)
    rule = (
        'forbid (principal, action == Action::"/hostler.api.netns.v1.S/Run", resource) '
        "when { context.approvals < 1 };"
    )
    # The other one was opened with an approval, and goes on.
    alone = asyncio.create_task(run(streams, call(RUN)))
    approved = asyncio.create_task(run(streams, call(RUN, approval_needed=True)))
    await asyncio.sleep(0)
    judge.use(bundle(2, rule))
    async with asyncio.timeout(2):
        with pytest.raises(PermissionDenied, match="approval"):
            await alone
    assert not approved.done()
    approved.cancel()


async def test_a_certificate_ends_its_stream_by_a_timer_of_its_own() -> None:
    streams = Streams(authorizer(), recheck_s=1000)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(CertificateExpired):
        await run(streams, call(life_s=0.3))
    assert 0.3 <= asyncio.get_running_loop().time() - begun < 0.6


async def test_time_alone_has_a_stream_looked_at() -> None:
    """What nobody announces, here a bundle put in place behind the authorizer's back, is found."""
    judge = authorizer()
    streams = Streams(judge, recheck_s=0.2)
    task = asyncio.create_task(run(streams, call()))
    await until_open(streams)
    judge._parsed = judge._parse(bundle(2, members={}))
    async with asyncio.timeout(2):
        with pytest.raises(PermissionDenied):
            await task


async def test_a_stream_that_has_not_said_what_it_is_about_is_not_judged_for_it() -> None:
    judge = authorizer()
    judge.use(bundle(2, 'forbid (principal, action, resource == Resource::"netns");'))
    streams = Streams(judge, recheck_s=0.05)
    with streams.opened(call()) as stream:
        await asyncio.sleep(0.2)
        assert stream.verdict is None


async def test_the_callers_own_cancel_stays_a_cancel() -> None:
    streams = Streams(authorizer())
    task = asyncio.create_task(run(streams, call()))
    stream = await until_open(streams)
    stream.end(Stopping("both in one moment"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_service_that_swallows_the_cancel_is_ended_at_its_next_message() -> None:
    async def stubborn() -> AsyncIterator[Any]:
        while True:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                pass
            yield MESSAGE

    streams = Streams(authorizer())
    task = asyncio.create_task(run(streams, call(), stubborn()))
    (await until_open(streams)).end(Stopping("now"))
    async with asyncio.timeout(2):
        with pytest.raises(Stopping):
            await task


async def test_stopping_ends_what_reads_and_lets_nothing_begin() -> None:
    streams = Streams(authorizer())
    reading = asyncio.create_task(run(streams, call()))
    changing = asyncio.create_task(run(streams, call(RUN)))
    await asyncio.sleep(0)
    streams.stop()
    with pytest.raises(Stopping):
        await reading
    with pytest.raises(Stopping):
        await run(streams, call())
    assert not changing.done()
    changing.cancel()


async def test_each_message_that_comes_in_is_admitted_once() -> None:
    async def incoming() -> AsyncIterator[Any]:
        for n in range(3):
            yield health_pb2.HealthCheckRequest(service=str(n))

    told: list[str] = []

    async def admit(asked: Call, message: Any) -> None:
        told.append(f"first {message.service}")

    def admit_next(asked: Call, message: Any) -> None:
        told.append(f"next {message.service}")

    streams = Streams(authorizer())
    with streams.opened(call()) as stream:
        passed = [m.service async for m in stream.inbound(incoming(), admit, admit_next)]
    assert passed == ["0", "1", "2"]
    assert told == ["first 0", "next 1", "next 2"]
