"""Streams that are cut and opened again, by a real server that cuts them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from hostler.api.netns.v1 import counter_pb2, counter_pb2_grpc
from hostler.channel import Connector, rpc
from hostler.fleet import Host
from hostler.results import CallFailed
from hostler.resume import OPENED, after_seq
from hostler.session import Retry, Session

WATCH = rpc(counter_pb2, "CounterService", "WatchCounters")
QUICK = Retry(first_pause_s=0.01, longest_pause_s=0.05, connect_s=0.3, resume_s=1.5)


@dataclass
class Cutting(counter_pb2_grpc.CounterServiceServicer):  # type: ignore[misc]
    """Says `each` readings a time, then cuts the stream with the next code there is."""

    codes: list[grpc.StatusCode]
    each: int = 3
    says_open: bool = True
    requests: list[Any] = field(default_factory=list)

    def WatchCounters(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        if self.says_open:
            context.send_initial_metadata((OPENED,))
        for seq in range(request.after_seq + 1, request.after_seq + 1 + self.each):
            yield counter_pb2.WatchCountersResponse(seq=seq)
        if self.codes:
            context.abort(self.codes.pop(0), "cut")


@contextmanager
def served(folder: Path, service: Cutting) -> Iterator[grpc.Server]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    counter_pb2_grpc.add_CounterServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{folder}/netns.sock")
    server.start()
    try:
        yield server
    finally:
        server.stop(0).wait(5)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A session with a server at a unix socket, as on the host itself."""
    return Session(Host("local", f"unix:{tmp_path}"), Connector(None), retry=QUICK)


async def seqs(session: Session, resume: Any = after_seq, **options: Any) -> list[int]:
    request = counter_pb2.WatchCountersRequest(count=7)
    return [r.seq async for r in session.stream(WATCH, request, resume=resume, **options)]


async def test_a_cut_stream_goes_on_without_gap_or_duplicate(
    tmp_path: Path, session: Session
) -> None:
    cuts = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED] * 6
    service = Cutting(cuts)
    with served(tmp_path, service):
        # More cuts than a call has attempts: each stream that opens counts anew.
        assert await seqs(session) == list(range(1, 3 * 13 + 1))
    assert [r.after_seq for r in service.requests] == list(range(0, 3 * 13, 3))
    assert {r.count for r in service.requests} == {7}
    await session.close()


async def test_the_callers_request_stays_as_it_was(tmp_path: Path, session: Session) -> None:
    request = counter_pb2.WatchCountersRequest()
    with served(tmp_path, Cutting([grpc.StatusCode.UNAVAILABLE])):
        async for _ in session.stream(WATCH, request, resume=after_seq):
            assert request.after_seq == 0
    await session.close()


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED]
)
async def test_a_refusal_is_final(tmp_path: Path, session: Session, code: grpc.StatusCode) -> None:
    service = Cutting([code])
    with served(tmp_path, service), pytest.raises(CallFailed) as caught:
        await seqs(session)
    assert caught.value.error.code == code.name
    assert len(service.requests) == 1
    await session.close()


async def test_without_a_way_to_go_on_it_is_not_opened_again(
    tmp_path: Path, session: Session
) -> None:
    service = Cutting([grpc.StatusCode.UNAVAILABLE])
    with served(tmp_path, service), pytest.raises(CallFailed):
        await seqs(session, resume=None)
    assert len(service.requests) == 1
    await session.close()


async def test_a_host_that_does_not_come_back_is_given_up_in_time(
    tmp_path: Path, session: Session
) -> None:
    with served(tmp_path, Cutting([grpc.StatusCode.UNAVAILABLE])) as server:
        with pytest.raises(CallFailed) as caught:
            async for reading in session.stream(
                WATCH, counter_pb2.WatchCountersRequest(), resume=after_seq
            ):
                if reading.seq == 3:
                    server.stop(0)
                    begun = time.monotonic()
    assert caught.value.error.code == "UNAVAILABLE"
    assert 1.0 < time.monotonic() - begun < 3.0
    await session.close()


async def test_a_host_that_was_never_there_is_named_soon(session: Session) -> None:
    begun = time.monotonic()
    with pytest.raises(CallFailed) as caught:
        await seqs(session)
    assert caught.value.error.reason == "UNREACHABLE"
    assert time.monotonic() - begun < 1.0
    await session.close()


async def test_the_time_limit_is_for_all_of_it(tmp_path: Path, session: Session) -> None:
    service = Cutting([grpc.StatusCode.UNAVAILABLE] * 1000)
    begun = time.monotonic()
    with served(tmp_path, service), pytest.raises(CallFailed):
        await seqs(session, timeout_s=0.5)
    assert 0.3 < time.monotonic() - begun < 1.5
    assert len(service.requests) > 2
    await session.close()


async def test_a_server_that_lets_nobody_in_is_given_up(tmp_path: Path, session: Session) -> None:
    """A stream that is cut before it is open is no progress, however often."""
    service = Cutting([grpc.StatusCode.UNAVAILABLE] * 1000, each=0, says_open=False)
    begun = time.monotonic()
    with served(tmp_path, service), pytest.raises(CallFailed):
        await seqs(session)
    assert 1.0 < time.monotonic() - begun < 3.0
    await session.close()


async def test_a_caller_that_looks_no_further_leaves_nothing_open(
    tmp_path: Path, session: Session
) -> None:
    service = Cutting([], each=10_000_000)
    with served(tmp_path, service):
        stream = session.stream(WATCH, counter_pb2.WatchCountersRequest(), resume=after_seq)
        assert (await anext(stream)).seq == 1
        await stream.aclose()  # type: ignore[attr-defined]
        await session.close()
    assert len(service.requests) == 1
