"""The blocks of a PEM file, as people really write them. Source: RFC 7468, RFC 1421.

Taken as they come: any line ends, a byte order mark, text between blocks, blocks that stand on one
line. Named: a block without its end, an end of another label, characters that are no base64.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BEGIN, _END, _DASHES = "-----BEGIN ", "-----END ", "-----"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LABEL = re.compile(r"[A-Z0-9][A-Z0-9 ]{0,60}")
_HEADER = re.compile(r"[A-Za-z-]{1,40}:[^\n]*")
_MOST_BLOCKS = 20_000


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `body` is None where there is nothing to read; `line` counts from 1.

    `text` is the block in its plain form, headers of an encrypted key included.
    """

    label: str
    line: int
    body: bytes | None
    text: bytes = b""
    encrypted: bool = False
    fault: str = ""


def looks_like_pem(data: bytes) -> bool:
    """Whether a block begins somewhere in the bytes."""
    return _BEGIN in _text(data)


def blocks(data: bytes) -> Iterator[Block]:
    """Read one block after the other. Never raises; what is wrong is in a block's `fault`."""
    text = _text(data)
    at, line, counted = 0, 1, 0
    for _ in range(_MOST_BLOCKS):
        begin = text.find(_BEGIN, at)
        if begin < 0:
            return
        line += text.count("\n", counted, begin)
        counted = begin
        block, at = _block(text, begin, line)
        yield block
    yield Block("", line, None, fault=f"more than {_MOST_BLOCKS} blocks: the rest is not read")


def _block(text: str, begin: int, line: int) -> tuple[Block, int]:
    label_at = begin + len(_BEGIN)
    label_end = text.find(_DASHES, label_at, label_at + 70)
    label = text[label_at:label_end] if label_end > 0 else ""
    if not _LABEL.fullmatch(label):
        return Block("", line, None, fault="a BEGIN line that is malformed"), label_at
    body_at = label_end + len(_DASHES)
    again = text.find(_BEGIN, body_at)
    # No further than the next block: a file of beginnings alone is gone through once.
    limit = again if again >= 0 else len(text)
    end = text.find(_END, body_at, limit)
    if end < 0:
        return Block(label, line, None, fault=f"{label} has no END line: truncated"), limit
    closing = f"{_END}{label}{_DASHES}"
    if not text.startswith(closing, end):
        return Block(label, line, None, fault=f"{label} has the END line of another"), end + 1
    return _decoded(label, line, text[body_at:end]), end + len(closing)


def _decoded(label: str, line: int, inner: str) -> Block:
    headers: list[str] = []
    rows = [row.strip() for row in inner.split("\n")]
    body = [row for row in rows if row and not _HEADER.fullmatch(row)]
    headers = [row for row in rows if _HEADER.fullmatch(row)]
    try:
        decoded = base64.b64decode("".join("".join(body).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        return Block(label, line, None, fault=f"{label}: no base64: {error}")
    encrypted = "ENCRYPTED" in label or any("ENCRYPTED" in header for header in headers)
    head = "\n".join(headers) + "\n\n" if headers else ""
    plain = f"{_BEGIN}{label}{_DASHES}\n{head}" + "\n".join(body) + f"\n{_END}{label}{_DASHES}\n"
    return Block(label, line, decoded, plain.encode("ascii", "replace"), encrypted)


def _text(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace").replace("\r\n", "\n")
    return data.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


def written(certificate: bytes) -> bytes:
    """A DER certificate as a PEM block."""
    encoded = base64.b64encode(certificate).decode()
    rows = "\n".join(encoded[at : at + 64] for at in range(0, len(encoded), 64))
    return f"{_BEGIN}CERTIFICATE{_DASHES}\n{rows}\n{_END}CERTIFICATE{_DASHES}\n".encode()
