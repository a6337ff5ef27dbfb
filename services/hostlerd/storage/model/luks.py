"""LUKS: what keeps its data enciphered, and the device that it is while it is open.

Source: cryptsetup(8), LUKS1 On-Disk Format 1.2.3, LUKS2 On-Disk Format 1.1.1.
"""

from __future__ import annotations

import json
import re

SIGNATURE = "crypto_LUKS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PATH = re.compile(r"/[^\x00-\x1f\x7f]{1,1023}")
CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}")
HEADER_MOST_BYTES = 64 << 20
FIRST_BYTES = 4 << 20
"""What tells how long the header is lies before that."""
_MAGIC = b"LUKS\xba\xbe"
_LEAST_BYTES = 4096
_DETACHED_BYTES = 16 << 20
_JSON_AT = 4096


def device_uuid(uuid: str, name: str) -> re.Pattern[str]:
    """What the device mapper calls the open device of a UUID and a name."""
    return re.compile(f"CRYPT-LUKS[12]-{uuid.replace('-', '')}-{re.escape(name)}")


def header_bytes(first: bytes) -> int:
    """How long the header is with its keys, by what a device begins with. Raises ValueError."""
    if first[:6] != _MAGIC:
        raise ValueError("no header of LUKS")
    version = int.from_bytes(first[6:8], "big")
    if version == 1:
        length = int.from_bytes(first[104:108], "big") * 512
    elif version == 2:
        length = _of_json(first)
    else:
        raise ValueError(f"LUKS{version} is not known")
    # A header that lies apart from its data says 0.
    length = length or _DETACHED_BYTES
    if not _LEAST_BYTES <= length <= HEADER_MOST_BYTES:
        raise ValueError(f"the header has {length} bytes")
    return length


def _of_json(first: bytes) -> int:
    size = int.from_bytes(first[8:16], "big")
    if not _JSON_AT < size <= len(first):
        raise ValueError(f"the header is said to have {size} bytes")
    told = json.loads(first[_JSON_AT:size].split(b"\0", 1)[0])
    segments = told.get("segments") if isinstance(told, dict) else None
    if not isinstance(segments, dict):
        raise ValueError("the header tells of no segments")
    try:
        return min((int(one["offset"]) for one in segments.values()), default=0)
    except (KeyError, TypeError) as e:
        raise ValueError("the header tells of no offset") from e
