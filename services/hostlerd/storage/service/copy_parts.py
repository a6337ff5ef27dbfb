"""Parts of streams of files as messages, and back."""

from __future__ import annotations

import os

from hostler.api.storage.v1 import copy_pb2 as pb
from hostler.core.copying.look import Attributes
from hostler.core.copying.manifest import Entry
from hostler.core.copying.parts import PIECE_BYTES, Begin, Data, End, Part, Tail
from hostlerd.runtime.errors import InvalidRequest, Violation

_PATH_BYTES_MOST = 65_536
_XATTR_BYTES_MOST = 256 << 10


def to_proto(part: Part) -> pb.FilePart:
    """A part as a message."""
    if isinstance(part, Data):
        return pb.FilePart(data=pb.FileData(offset=part.offset, data=bytes(part.data)))
    if isinstance(part, Entry):
        return pb.FilePart(entry=_entry(part))
    if isinstance(part, Tail):
        return pb.FilePart(tail=pb.FileTail(digest=part.digest))
    if isinstance(part, Begin):
        return pb.FilePart(begin=pb.FileBegin(size_bytes=part.size_bytes))
    return pb.FilePart(end=pb.FileEnd(entries=part.entries, digest=part.digest))


def from_proto(message: pb.FilePart) -> Part:
    """A message as a part. Raises InvalidRequest."""
    kind = message.WhichOneof("part")
    if kind == "data":
        if len(message.data.data) > PIECE_BYTES or message.data.offset < 0:
            raise _invalid("data", f"has an offset, and at most {PIECE_BYTES} bytes")
        return Data(message.data.offset, message.data.data)
    if kind == "entry":
        return _from_entry(message.entry)
    if kind == "tail":
        return Tail(message.tail.digest)
    if kind == "begin":
        return Begin(max(0, message.begin.size_bytes))
    if kind == "end":
        return End(message.end.entries, message.end.digest)
    raise _invalid("part", "is missing")


def _entry(entry: Entry) -> pb.FileEntry:
    one = entry.attributes
    return pb.FileEntry(
        path=os.fsencode(entry.path),
        mode=one.mode,
        uid=one.uid,
        gid=one.gid,
        size_bytes=one.size_bytes,
        mtime_ns=one.mtime_ns,
        atime_ns=one.atime_ns,
        device=one.device,
        link=os.fsencode(one.link),
        xattrs=[pb.FileXattr(name=os.fsencode(key), value=value) for key, value in one.xattrs],
        link_to=None if entry.link_to is None else os.fsencode(entry.link_to),
    )


def _from_entry(told: pb.FileEntry) -> Entry:
    xattr_bytes = sum(len(one.name) + len(one.value) for one in told.xattrs)
    if max(map(len, (told.path, told.link, told.link_to))) > _PATH_BYTES_MOST:
        raise _invalid("entry", f"has paths of at most {_PATH_BYTES_MOST} bytes")
    if xattr_bytes > _XATTR_BYTES_MOST or told.size_bytes < 0:
        raise _invalid("entry", f"has a size, and at most {_XATTR_BYTES_MOST} bytes of attributes")
    attributes = Attributes(
        mode=told.mode,
        uid=told.uid,
        gid=told.gid,
        size_bytes=told.size_bytes,
        mtime_ns=told.mtime_ns,
        atime_ns=told.atime_ns,
        device=told.device,
        link=os.fsdecode(told.link),
        xattrs=tuple((os.fsdecode(one.name), one.value) for one in told.xattrs),
    )
    link_to = os.fsdecode(told.link_to) if told.HasField("link_to") else None
    return Entry(os.fsdecode(told.path), attributes, link_to)


def _invalid(field: str, why: str) -> InvalidRequest:
    return InvalidRequest.of([Violation(field, why)])
