"""Messages that nobody sane would send: Hypothesis makes them of any method's descriptor.

Values are extreme, odd, or nearly right, so that some get past the first look. Whatever changes
something only plans it: `harmless` sees to that, after everything else was drawn.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

DEPTH = 3
_MOST_FIELDS, _MOST_ITEMS = 6, 3

_ODD = (
    *("", " ", "\0", "a\0b", "a\nb", "\x1b[31m", "\u202e", "\ufeff", "\U0010ffff", "é" * 40),
    *(".", "..", "../../etc/shadow", "/", "//", "/nonexistent", "/proc/self/mem", "-", "--", "-rf"),
    *("*", "?", "[", "%s%n", "{0}", "$(id)", "`id`", ";", "'", '"', "\\", "a/b", "a,b", "a=b"),
    *("0", "-1", "1e999", "nan", "99999999999999999999", "0x", "²", "٣", "x" * 15, "x" * 300),
    *("127.0.0.1", "0.0.0.0/0", "::/0", "::1%lo", "10.0.0.0/33", "fe80::/129", "1.2.3", "[::1]:0"),
    *("00:00:00:00:00:00", "localhost", "a.example", "xn--a", "-a.example", "host:99999"),
    *(
        "00000000-0000-0000-0000-000000000000",
        "jobs/",
        "jobs/..",
        "approvals/x",
        "x",
        "web",
        "eth0",
    ),
    *("proc.name=", "((", "not", "evt.type in (", "fd.port > -1", "-----BEGIN CERTIFICATE-----"),
    *("SIGKILL", "SIG", "sha256:", "ext4", "LABEL=x", "UUID=", "raid1", "1d", "PT1S", "*:0/0"),
)
# What nearly fits a field of such a name; nothing of it exists on a host.
_NEARLY = {
    "name": ("web", "data", "r0", "cert1", "default"),
    "namespace": ("web", "nowhere"),
    "address": ("10.99.0.1/24", "fd99::1/64", "192.0.2.7", "2001:db8::1"),
    "source": ("192.0.2.0/24", "2001:db8::/32"),
    "gateway": ("10.99.0.254", "fd99::fe"),
    "interface": ("eth9", "v-web"),
    "path": ("/srv/nowhere", "/etc/ssl/hostler/none.pem"),
    "director": ("/srv/nowhere", "/var/tmp/nowhere"),
    "device": ("/dev/hostler-none0", "/dev/disk/by-id/none", "none0"),
    "mount": ("/srv/nowhere", "/mnt/none"),
    "filter": ("proc.name = none and evt.type in (open, read)", "tcp port 80", "fd.port > 1"),
    "host": ("a.example.net", "192.0.2.7"),
    "id": ("00000000-0000-4000-8000-000000000000", "36f8a1c2"),
    "token": ("page:1", "AAAA", "djE6MTA"),
    "pem": ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",),
    "argv": ("/bin/true", "-x"),
    "etag": ("0" * 64,),
    "hash": ("0" * 64,),
}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_SECONDS = (0, 1, 60, 1_700_000_000, 253_402_300_799)
_TEXT = st.sampled_from(_ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_BYTES = st.binary(max_size=40) | _TEXT.map(str.encode)


def _numbers(least: int, most: int) -> st.SearchStrategy[int]:
    near = [n for n in (least, -1, 0, 1, 2, 1023, 65535, 65536, most) if least <= n <= most]
    return st.sampled_from(near) | st.integers(least, most)


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind in _INTEGERS:
        return _numbers(*_INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        # Enums of proto3 are open: a number without a name arrives, too.
        known = sorted(field.enum_type.values_by_number)
        return st.sampled_from([*known, known[-1] + 1, 2**31 - 1, -1])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BYTES
    nearly = [text for word, texts in _NEARLY.items() if word in field.name for text in texts]
    return st.sampled_from(nearly) | _TEXT if nearly else _TEXT


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = DEPTH) -> Any:
    """A message of the type with some of its fields set, those inside of it down to `depth`."""
    made: Any = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name in _TIMES and draw(st.integers(0, 3)):
        # A request with a time that is none is not looked into any further.
        made.seconds, made.nanos = draw(st.sampled_from(_SECONDS)), draw(st.sampled_from((0, 1)))
        return made
    fields = [f for f in descriptor.fields if depth or f.message_type is None]
    if not fields:
        return made
    # Most of a message is set, most of the time: what lacks everything is refused at once.
    most = min(len(fields), _MOST_FIELDS)
    count = draw(st.sampled_from([0, most, most, most]) | st.integers(0, most))
    chosen = st.lists(st.sampled_from(fields), min_size=count, max_size=count, unique=True)
    for field in draw(chosen):
        _set(draw, made, field, depth)
    return made


def _set(draw: st.DrawFn, made: Any, field: FieldDescriptor, depth: int) -> None:
    held = getattr(made, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(draw(st.integers(0, _MOST_ITEMS))):
            drawn = draw(_scalar(key))
            if value.message_type is None:
                held[drawn] = draw(_scalar(value))
            else:
                held[drawn].CopyFrom(draw(messages(value.message_type, depth - 1)))
    elif field.is_repeated:
        one = _scalar(field) if entry is None else messages(entry, depth - 1)
        held.extend(draw(st.lists(one, max_size=_MOST_ITEMS)))
    elif entry is not None:
        held.CopyFrom(draw(messages(entry, depth - 1)))
        held.SetInParent()
    else:
        setattr(made, field.name, draw(_scalar(field)))


def harmless(request: Any) -> Any:
    """Have a change only planned; answers the request."""
    if "change" in request.DESCRIPTOR.fields_by_name:
        request.change.validate_only = True
    return request


# None of these is a message of any type: each is broken in the bytes that every parser must read.
BROKEN = {
    "tag cut off": b"\x80",
    "varint of 11 bytes": b"\x08" + b"\xff" * 11,
    "length beyond the end": b"\x0a\x7fab",
    "length of 4 GiB": b"\x0a\xff\xff\xff\xff\x0f",
    "end of no group": b"\x0c",
    "group without an end": b"\x0b" * 3,
    "groups without number": b"\x0b" * 20_000,
    "wire type 7": b"\x0f\x00",
    "fixed64 cut off": b"\x09\x00\x00",
    "noise": bytes(range(255, 127, -1)),
}
