"""What a disk says of itself, asked by smartctl(8): nothing is changed, no test is begun.

NVMe disks answer whoever has CAP_SYS_ADMIN; those behind SCSI and ATA want CAP_SYS_RAWIO, which the
worker has not, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostlerd.storage.worker.grammar import target
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.tools import Tools

_SMARTCTL = "/usr/sbin/smartctl"
_TIMEOUT_S = 60.0
# Each bit of its status says something of the disk. Source: smartctl(8), EXIT STATUS.
_ANY = tuple(range(256))
_SAID_MOST = 256 << 10


def look(request: Request, tools: Tools) -> dict[str, Any]:
    """Ask a disk. Raises Refused if smartctl is not installed, or takes too long."""
    argv = (_SMARTCTL, "--json=c", "--info", "--health", "--attributes")
    said = tools.run((*argv, request.device("disk").path), timeout_s=_TIMEOUT_S, good=_ANY)
    return {"said": said.output[:_SAID_MOST]}


OPERATIONS: Mapping[str, Operation] = {
    "LookSmart": Operation({"disk": target}, look, uses=("disk",)),
}
