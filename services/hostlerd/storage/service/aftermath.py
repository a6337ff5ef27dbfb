"""What is there after a change: told beside what became of it, and never in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import DomainError


async def seen_after(
    runtime: Runtime, change: change_pb2.Change, get: Callable[..., Any], *words: str
) -> Any:
    """What `get` sees after a change that was made; None, with a warning, if nothing can be seen.

    The change stands: an error would say that it does not, and a retry would make it once more.
    """
    try:
        return await runtime.blocking(get, *words)
    except (DomainError, OSError) as e:
        why = e.message if isinstance(e, DomainError) else e.strerror or str(e)
        message = f"it was done; what is there now could not be looked at: {why}"
        change.warnings.add(code="RESULT_NOT_SEEN", message=message)
        return None
