"""What is thrown at the doors of a host; each answers nothing and counts what came of it."""

from __future__ import annotations

import random
import selectors
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
import malformed_http2 as http2
import security_access as access
import security_lab as support
from hypothesis import HealthCheck, Phase, given, settings
from malformed_messages import BROKEN, harmless, messages
from malformed_siege import ADDRESSES, Siege, channel_of, heard

QUIET_S = 0.05
_TIMEOUT_S, _LISTEN_S = 30.0, 0.1
# Whoever may call these starts something by it: they are sent by one who may not.
STARTING = {"RunProcess", "WriteFiles"}
# Codes that say of a daemon that it has a fault, or has gone, or hangs.
FAULTY = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "DATA_LOSS"}
# A hello of TLS that is cut off, one of SSL 2, and a record longer than TLS has them.
_NO_HELLO = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x80\x2e\x01\x00\x02")
_NO_HELLO += (b"\x17\x03\x03\xff\xff" + bytes(5000), b"GET / HTTP/1.1\r\n\r\n", http2.START)


def noise_before_tls(siege: Siege, dice: random.Random) -> None:
    """Bytes at every TCP door, and at every unix socket there is, that are no handshake."""
    for domain in support.DOMAINS:
        for hello in (*_NO_HELLO, dice.randbytes(1), dice.randbytes(600), dice.randbytes(70_000)):
            with siege.tcp(domain) as sock:
                with suppress(OSError):
                    sock.sendall(hello)
                _, closed = heard(sock, QUIET_S)
            siege.count("noise before TLS", "closed" if closed else "left open")
    for name in siege.sockets():
        for said in (b"\n", b"{}", b"\xff" * 9, dice.randbytes(600), dice.randbytes(70_000)):
            with siege.local(name) as sock:
                with suppress(OSError):
                    sock.sendall(said)
                _, closed = heard(sock, QUIET_S)
            siege.count("noise at a unix socket", "closed" if closed else "left open")


def wrong_http2(siege: Siege, dice: random.Random, doors: int = len(support.DOMAINS)) -> None:
    """Frames and calls that are wrong, each at so many doors, by TLS or at the unix socket."""
    for name, make in http2.SAID.items():
        for domain in dice.sample(support.DOMAINS, doors):
            local = dice.random() < 0.3
            with siege.local(f"{domain}.sock") if local else siege.tls(domain) as sock:
                with suppress(OSError):
                    sock.sendall(make(dice))
                said, closed = heard(sock, QUIET_S)
            told = set(http2.statuses(said))
            if name in http2.ANSWERED_BY_GRPC:
                told.discard("13")
            assert told.isdisjoint({"2", "13"}), (domain, name, said)
            siege.count("wrong HTTP/2", "closed" if closed else "left open")


def say(channel: grpc.Channel, method: Any, data: bytes) -> tuple[str, str]:
    """Send bytes as the request of a method of any shape; answers code and message.

    Of answers that are a stream, those are taken that come within a moment.
    """
    kind = "stream_" if method.client_streaming else "unary_"
    kind += "stream" if method.server_streaming else "unary"
    made: Any = getattr(channel, kind)(access.full_name(method), None, None)
    sent: Any = iter([data]) if method.client_streaming else data
    try:
        answer = made(sent, timeout=_TIMEOUT_S, wait_for_ready=True)
        if method.server_streaming:
            _listen(answer)
    except grpc.RpcError as e:
        error: Any = e
        return error.code().name, error.details() or ""
    return "OK", ""


def _listen(answer: Any) -> None:
    answer.initial_metadata()
    timer = threading.Timer(_LISTEN_S, answer.cancel)
    timer.start()
    try:
        for taken, _ in enumerate(answer):
            if taken > 3:
                break
    finally:
        timer.cancel()
        answer.cancel()


def broken_messages(siege: Siege, kinds: Sequence[str] = tuple(BROKEN)) -> None:
    """Bytes that are no message, to every method, by one who may call all and one who may not."""
    expected = access.expected()
    codes = {"D": "PERMISSION_DENIED", "+": "INVALID_ARGUMENT"}
    for domain in support.DOMAINS:
        for who in ("admin", "viewer"):
            with channel_of(siege.lab, siege.host, domain, who) as channel:
                for name, method in access.methods_of(domain).items():
                    for kind in kinds:
                        code, words = say(channel, method, BROKEN[kind])
                        assert code == codes[expected[name][who]], (who, name, kind, code, words)
                        siege.count("broken protobuf", code)


def made_up_messages(siege: Siege, domain: str, examples: int, *, anew: bool) -> None:
    """Messages that Hypothesis makes, to every method; changes are only planned."""
    with (
        channel_of(siege.lab, siege.host, domain, "admin") as admin,
        channel_of(siege.lab, siege.host, domain, "viewer") as viewer,
    ):
        for method in access.methods_of(domain).values():
            caller = viewer if method.name in STARTING else admin
            _make_up(siege, caller, method, examples, anew=anew)


def _make_up(siege: Siege, channel: Any, method: Any, examples: int, *, anew: bool) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not anew,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(messages(method.input_type))
    def each(request: Any) -> None:
        if not request.ListFields() and request.DESCRIPTOR.fields:
            # Always the first example; test_security_access.py has sent it to everyone.
            return
        code, words = say(channel, method, harmless(request).SerializeToString())
        siege.count("made-up messages", code)
        assert code not in FAULTY, (method.full_name, code, words, request)

    each()


def too_much(siege: Siege, dice: random.Random, doors: int = len(support.DOMAINS)) -> None:
    """Headers and messages larger than anybody takes, and headers of ours that say nonsense."""
    host, refused = http2.GET_HOST, "RESOURCE_EXHAUSTED"
    small = ("hostler-run", "\x7e" * 3000), ("hostler-details-bytes", "9" * 400)
    for domain in dice.sample(support.DOMAINS, doors):
        with channel_of(siege.lab, siege.host, domain, "viewer") as channel:
            for headers, size, code in (
                (small, 0, "OK"),
                ((("x-bin", dice.randbytes(2000)),), 0, "OK"),
                ((("x", "y" * (64 << 10)),), 0, refused),
                ([(f"x-{n}", "y" * 40) for n in range(2000)], 0, refused),
                ((("x", "y" * (2 << 20)),), 0, refused),
                ((), 5 << 20, refused),
                ((), 17 << 20, refused),
            ):
                call = channel.unary_unary(host)
                # An unknown field of bytes: whoever takes the message reads it.
                length = struct.pack("<I", size) if size else b""
                body = b"\xfa\x06" + _varint(len(length) + size) + length + bytes(size)
                try:
                    call(body if size else b"", metadata=headers, timeout=_TIMEOUT_S)
                    told = "OK"
                except grpc.RpcError as e:
                    told = e.code().name
                assert told == code, (domain, size, len(headers), told)
                siege.count("too much", told)


def _varint(value: int) -> bytes:
    told = b""
    while value >= 128:
        told += bytes([value % 128 + 128])
        value //= 128
    return told + bytes([value])


class Held:
    """Connections that are held open, some of which say a byte now and then."""

    def __init__(self, siege: Siege) -> None:
        self._siege = siege
        self._slow: list[tuple[Any, bytes]] = []
        self._open = selectors.DefaultSelector()
        self.count = 0

    def keep(self, sock: Any, slowly: bytes = b"") -> None:
        """Hold a connection; `slowly` is said on it byte by byte."""
        sock.setblocking(False)
        self._open.register(sock, selectors.EVENT_READ)
        self.count += 1
        if slowly:
            self._slow.append((sock, slowly))

    def until_ended(self, patience_s: float) -> float:
        """Go on until the daemons have ended all of them; answers how long that took, in s."""
        begun, at = time.monotonic(), 0
        while self._open.get_map():
            assert time.monotonic() - begun < patience_s, f"{len(self._open.get_map())} still open"
            for sock, slowly in self._slow:
                with suppress(OSError):
                    sock.send(slowly[at : at + 1])
            at += 1
            for key, _ in self._open.select(0.3):
                self._read(key.fileobj)
            time.sleep(0.2)
        return time.monotonic() - begun

    def _read(self, sock: Any) -> None:
        try:
            over = not sock.recv(1 << 16)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            over = True
        if over:
            self._open.unregister(sock)
            sock.close()


def slow_connections(siege: Siege, held: Held, domain: str, each: int) -> None:
    """Connections that never come to a call: in the handshake, in the preface, in the headers."""
    hello = b"\x16\x03\x01\x02\x00" + bytes(200)
    for _ in range(each):
        held.keep(siege.tcp(domain), hello)
        held.keep(siege.tls(domain), http2.START)
        begun = siege.tls(domain)
        begun.sendall(http2.START)
        held.keep(begun, http2.opening(1))
    siege.count("slow connections", "begun", 3 * each)


def idle_connections(siege: Siege, held: Held, domain: str, count: int) -> None:
    """So many connections from sixteen addresses that say nothing at all."""
    for number in range(count):
        held.keep(siege.tcp(domain, ADDRESSES[1 + number % 16]))
    siege.count("idle connections", "begun", count)


def calls_held(siege: Siege, domain: str, count: int) -> Any:
    """So many calls on one connection whose messages never come; answers the connection.

    A whole call comes first, so that the connection is not ended as one without any.
    """
    sock = siege.tls(domain, "viewer", ADDRESSES[18])
    sock.sendall(http2.START + http2.call(1, http2.message()))
    assert http2.statuses(heard(sock, 1)[0]) == ["0"]
    sock.sendall(b"".join(http2.opening(stream) for stream in range(3, 3 + 2 * count, 2)))
    siege.count("calls without a message", "begun", count)
    return sock
