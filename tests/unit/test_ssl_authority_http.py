"""The responder's HTTP: heads taken apart, slow and many callers, the end after idleness."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.authority import http
from hostlerd.authority.http import Rejected
from hostlerd.authority.published import Published
from hostlerd.authority.responder import MAX_PER_PEER, HttpResponder, serve

END = b"\r\n\r\n"
PATIENCE_S = 60


def test_a_head_is_taken_apart() -> None:
    head = b"POST /ocsp HTTP/1.1\r\nHost: a\r\nCONTENT-length:  7 \r\nX: \r\n\r\n"
    assert http.parse_head(head) == ("POST", "/ocsp", 7)
    assert http.parse_head(b"GET /a%20b?c HTTP/1.0\r\n\r\n") == ("GET", "/a%20b?c", 0)


@given(head=st.binary(max_size=200))
def test_any_bytes_are_taken_apart_or_rejected(head: bytes) -> None:
    with suppress(Rejected):
        http.parse_head(head + END)


@given(
    line=st.sampled_from([b"GET / HTTP/1.1", b"POST /ocsp HTTP/1.1"]),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"Content-Length", b"content-length", b"Host", b"Transfer-Encoding"]),
            st.one_of(st.binary(max_size=8), st.integers(0, 10**10).map(lambda n: b"%d" % n)),
        ),
        max_size=4,
    ),
)
def test_a_body_is_never_longer_than_its_bound(
    line: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    head = b"\r\n".join([line, *(b": ".join(header) for header in headers)]) + END
    try:
        _, _, length = http.parse_head(head)
    except Rejected as e:
        assert e.status in HTTPStatus
        return
    assert 0 <= length <= http.MAX_BODY_BYTES
    # Two that say how long a body is: the one behind another would read another request.
    names = [name.lower() for name, _ in headers]
    assert names.count(b"content-length") <= 1
    assert b"transfer-encoding" not in names


@asynccontextmanager
async def responding(folder: Path, request_s: float) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listener.getsockname()[1]
    task = asyncio.create_task(
        serve(HttpResponder(Published(folder), request_s), [listener], idle_s=PATIENCE_S)
    )
    try:
        yield port
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /service.crl HT")
    return reader, writer


async def test_of_one_address_so_many_are_let_in_and_no_more(tmp_path: Path) -> None:
    async with responding(tmp_path, request_s=3600) as port, asyncio.timeout(PATIENCE_S):
        peers = [await opened(port) for _ in range(MAX_PER_PEER + 8)]

        async def ended(reader: asyncio.StreamReader) -> bool:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            return True

        waiting = {asyncio.create_task(ended(reader)) for reader, _ in peers}
        done: set[asyncio.Task[bool]] = set()
        while len(done) < 8:
            now, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= now
        # Another address is let in while the first has all that it may have.
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=("127.0.0.2", 0)
        )
        writer.write(b"GET /service.crl HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404")
        assert len(waiting) == MAX_PER_PEER
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        for _, other in peers:
            other.close()


async def test_who_drips_is_cut_off(tmp_path: Path) -> None:
    async with responding(tmp_path, request_s=0.3) as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await opened(port)

        async def drip() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        dripping.cancel()
        writer.close()


async def test_it_ends_when_nobody_comes(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(PATIENCE_S):
        await serve(HttpResponder(Published(tmp_path)), [listener], idle_s=0.2)


@pytest.mark.parametrize("name", ["service.crl", "service.cer"])
async def test_a_file_that_grew_too_large_is_not_served(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as stream:
        stream.truncate(17 << 20)
    async with responding(tmp_path, request_s=30) as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /%s HTTP/1.1\r\n\r\n" % name.encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 500")
        writer.close()
