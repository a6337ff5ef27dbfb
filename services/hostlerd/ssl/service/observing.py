"""Observes the host: what the reader finds, what certificates say, what servers serve."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Lock

from hostlerd.ssl.kernel import handshake
from hostlerd.ssl.kernel.certificates import Certificates
from hostlerd.ssl.kernel.reading import Reader, Reading
from hostlerd.ssl.model.inventory import Certificate, Endpoint, Inventory
from hostlerd.ssl.model.library import Unseen
from hostlerd.ssl.plan import endpoints as planning
from hostlerd.ssl.plan import inventory

# For so long the pages after the first one are of the same reading.
_KEPT_S = 120.0


class Observer:
    """What is on the host. A reading is kept for the pages that follow, not for other callers."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._certificates = Certificates()
        self._lock = Lock()
        self._kept: tuple[float, Reading, Inventory] | None = None

    def inventory(self, *, again: bool) -> tuple[Inventory, list[Unseen]]:
        """Certificates, keys and sites, and what could not be seen. Raises ReaderUnavailable.

        `again`: that of the page before will do.
        """
        reading, made = self._read(again=again)
        return made, reading.unseen

    def endpoints(self, *, again: bool) -> tuple[list[Endpoint], Inventory, list[Unseen]]:
        """What is configured and what listens. Raises ReaderUnavailable."""
        reading, made = self._read(again=again)
        return planning.endpoints(made, reading.listeners), made, reading.unseen

    def shake_hands(self, wanted: Sequence[Endpoint]) -> Inventory:
        """Shake hands with endpoints, and note in each what was shown; answers what was served."""
        wanted = [each for each in wanted if each.listens]
        asked = [(each.listener, _asked(each.name), each.starttls) for each in wanted]
        shown = Inventory()
        for endpoint, served in zip(wanted, handshake.handshakes(asked), strict=True):
            endpoint.handshake_ns = time.time_ns()
            facts = self._certificates.facts(served.chain)
            chain = [facts[der] for der in served.chain if der in facts]
            for each in chain:
                shown.certificates[each.fingerprint] = Certificate(each, trusted=False)
            planning.judge(endpoint, served, [each.fingerprint for each in chain])
        return shown

    def _read(self, *, again: bool) -> tuple[Reading, Inventory]:
        with self._lock:
            kept = self._kept
        if again and kept and time.monotonic() - kept[0] < _KEPT_S:
            return kept[1], kept[2]
        reading = self._reader.inventory(files=True)
        facts = self._certificates.facts(der for file in reading.files for der in file.certificates)
        made = inventory.build(reading.files, reading.sites, facts, datetime.now(UTC))
        with self._lock:
            self._kept = (time.monotonic(), reading, made)
        return reading, made


def _asked(name: str) -> str:
    """The name to ask for: of a wildcard one that it stands for; of a pattern none."""
    if name.startswith("~"):
        return ""
    return f"hostler-probe{name[1:]}" if name.startswith("*.") else name.lstrip(".")
