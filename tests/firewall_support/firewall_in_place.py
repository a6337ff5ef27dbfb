"""A runtime for services whose work has to stay in the thread that is in a namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class InPlace:
    """A runtime that blocks."""

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        """Do the work here and now."""
        return work(*args)
