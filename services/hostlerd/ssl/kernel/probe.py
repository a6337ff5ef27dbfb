"""What this host lets the daemon see, tried for real."""

from __future__ import annotations

from hostlerd.runtime.host import Capability
from hostlerd.ssl.errors import ReaderUnavailable
from hostlerd.ssl.kernel.reading import Reader


def probe_libraries() -> Capability:
    """Whether the reader answers, and sees what processes have mapped."""
    try:
        _, unseen = Reader().libraries(static=False)
    except ReaderUnavailable as e:
        return Capability("libraries", False, e.message)
    reasons = "; ".join(each.message for each in unseen)
    return Capability("libraries", not reasons, reasons)


PROBES = (probe_libraries,)
