"""Manifests: a line of JSON for each file of a copy, and one at the end that is over all others."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from hostler.core.copying.contents import ALGORITHM
from hostler.core.copying.look import Attributes

FORMAT = 1
MAX_BYTES = 1 << 30


class BadManifest(Exception):
    """A manifest is cut, damaged or of another version."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a copy. `path` is empty for what was copied, else below it.

    `link_to` is the path of the entry that it is a hard link to, None where it is not; `digest` is
    that of a regular file.
    """

    path: str
    attributes: Attributes
    link_to: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a copy was when it was made; `root` is its name, in the folder of the manifest."""

    root: str
    entries: tuple[Entry, ...]


def as_bytes(manifest: Manifest) -> bytes:
    """Write a manifest."""
    head = {"hostler_manifest": FORMAT, "root": manifest.root, "algorithm": ALGORITHM}
    lines = "".join(f"{json.dumps(line)}\n" for line in (head, *map(as_line, manifest.entries)))
    body = lines.encode("ascii")
    end = {"entries": len(manifest.entries), "sha256": hashlib.sha256(body).hexdigest()}
    return body + f"{json.dumps(end)}\n".encode("ascii")


def of_bytes(text: bytes) -> Manifest:
    """Read a manifest. Raises BadManifest."""
    body, _, last = text.rstrip(b"\n").rpartition(b"\n")
    try:
        end = json.loads(last)
        if end["sha256"] != hashlib.sha256(body + b"\n").hexdigest():
            raise BadManifest("the manifest was changed after it was written")
        head, *lines = (json.loads(line) for line in body.split(b"\n"))
        if (head["hostler_manifest"], head["algorithm"]) != (FORMAT, ALGORITHM):
            raise BadManifest("the manifest is of another version")
        return Manifest(head["root"], tuple(map(of_line, lines)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadManifest("this is no whole manifest") from error


def as_line(entry: Entry) -> dict[str, Any]:
    """An entry as a value of JSON."""
    one = entry.attributes
    return {
        "path": entry.path,
        "mode": f"{one.mode:o}",
        "uid": one.uid,
        "gid": one.gid,
        "size_bytes": one.size_bytes,
        "mtime_ns": one.mtime_ns,
        "atime_ns": one.atime_ns,
        "device": one.device,
        "link": one.link,
        "xattrs": {key: base64.b64encode(value).decode() for key, value in one.xattrs},
        "link_to": entry.link_to,
        "digest": entry.digest,
    }


def of_line(line: dict[str, Any]) -> Entry:
    """Read an entry. Raises ValueError, KeyError, TypeError, AttributeError."""
    xattrs = line.pop("xattrs").items()
    path, link_to, digest = (line.pop(key) for key in ("path", "link_to", "digest"))
    attributes = Attributes(
        **{**line, "mode": int(line["mode"], 8)},
        xattrs=tuple((key, base64.b64decode(value)) for key, value in xattrs),
    )
    entry = Entry(path, attributes, link_to, digest)
    _require_types(entry)
    return entry


def _require_types(entry: Entry) -> None:
    """Raise TypeError where a value is of another type than any that was written."""
    one = entry.attributes
    words = (entry.path, entry.digest, entry.link_to or "", one.link)
    numbers = (one.mode, one.uid, one.gid, one.size_bytes, one.mtime_ns, one.atime_ns, one.device)
    if not all(type(word) is str for word in words) or not all(type(n) is int for n in numbers):
        raise TypeError("a value is of another type")
