"""What of the chain is in the journal alone, remembered where a full disk cannot prevent it.

Two copies: one in the run directory, which is memory and outlives the daemon, and one that lies
ready on the disk of the log, written in place, which outlives a boot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hostler.core.audit import Anchor
from hostlerd.runtime import audit_journal
from hostlerd.runtime.log import get_log

log = get_log("runtime.audit")

_STATE_BYTES = 64 << 10
# So many fit into the state; of a longer gap the head alone holds all of it fast.
_MOST_HASHES = 800


@dataclass(frozen=True, slots=True)
class Spilled:
    """Records that are in the journal alone: the hash before them, their hashes, their end."""

    from_seq: int
    before: str
    seq: int
    head: str
    hashes: tuple[str, ...]

    @property
    def end(self) -> Anchor:
        """The last of them."""
        return Anchor(self.seq, self.head)

    def record(self) -> dict[str, object]:
        """The fields of the record that names them once the disk is back."""
        told: dict[str, object] = {
            "kind": "gap",
            "from_seq": self.from_seq,
            "to_seq": self.seq,
            "before": self.before,
            "head": self.head,
        }
        if len(self.hashes) == self.seq - self.from_seq + 1:
            told["hashes"] = list(self.hashes)
        return told


class Overflow:
    """The way to the journal, and what went there. Used under the log's lock."""

    def __init__(self, path: Path, spare: Path | None) -> None:
        self._log = path
        self._ready = path.with_suffix(".overflow")
        self._quick = spare / self._ready.name if spare else self._ready
        self.spilled: Spilled | None = None

    def prepare(self) -> None:
        """Lay the copy on the disk ready; read what an earlier process or boot has left."""
        self.look()
        if self._quick != self._ready and self.spilled is None:
            self.spilled = _read(self._ready)
            if self.spilled is not None:
                self._remember()
        try:
            if self._ready.stat().st_size == _STATE_BYTES:
                return
        except FileNotFoundError:
            pass
        try:
            _write(self._ready, self.spilled, os.O_CREAT)
        except OSError as e:
            log.warning("no room to lay the overflow state ready", error=e.strerror)

    def look(self) -> None:
        """Read what any process has sent, or brought back. Costs one open while all is well."""
        self.spilled = _read(self._quick)

    def send(self, lines: Sequence[bytes], anchors: Sequence[Anchor], before: str) -> None:
        """Send lines of the chain to the journal. Raises OSError if it does not take all."""
        for line, anchor in zip(lines, anchors, strict=True):
            self.copy(line, anchor)
        now, last = self.spilled, anchors[-1]
        new = tuple(anchor.head for anchor in anchors)
        if now is None:
            now = Spilled(anchors[0].seq, before, last.seq, last.head, new[:_MOST_HASHES])
        else:
            hashes = (now.hashes + new)[:_MOST_HASHES]
            now = Spilled(now.from_seq, now.before, last.seq, last.head, hashes)
        self.spilled = now
        self._remember()

    def copy(self, line: bytes, anchor: Anchor) -> None:
        """Send one line of the chain to the journal. Raises OSError."""
        audit_journal.send(
            audit_journal.CHAINED,
            f"audit record {anchor.seq} of {self._log}: the log takes no records",
            {
                "HOSTLER_AUDIT_LOG": str(self._log),
                "HOSTLER_AUDIT_SEQ": anchor.seq,
                "HOSTLER_AUDIT_HASH": anchor.head,
                "HOSTLER_AUDIT_LINE": line.rstrip(b"\n"),
            },
        )

    def clear(self) -> None:
        """Forget it: the log itself names the gap from now on."""
        self.spilled = None
        if self._quick != self._ready:
            self._quick.unlink(missing_ok=True)
        _write(self._ready, None, 0)

    def _remember(self) -> None:
        for place, flags in ((self._quick, os.O_CREAT), (self._ready, 0)):
            try:
                _write(place, self.spilled, flags)
            except OSError as e:
                log.warning("overflow state not kept", path=place, error=e.strerror)


def _write(path: Path, spilled: Spilled | None, flags: int) -> None:
    """Write a state in place: blocks that are there already need no room. Raises OSError."""
    text = json.dumps(asdict(spilled)) if spilled else ""
    data = text.encode().ljust(_STATE_BYTES, b"\n")
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        if os.pwrite(file, data, 0) != len(data):
            raise OSError(28, os.strerror(28))
        os.fdatasync(file)
    finally:
        os.close(file)


def _read(path: Path) -> Spilled | None:
    try:
        data = path.read_bytes()[:_STATE_BYTES].strip(b"\n\0")
        told = json.loads(data) if data else None
        if told is None:
            return None
        return Spilled(**{**told, "hashes": tuple(told["hashes"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as e:
        log.warning("overflow state not readable", path=path, error=repr(e))
        return None
