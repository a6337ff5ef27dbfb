"""What the worker answers when it does not do what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.privileged import refused
from hostlerd.privileged.refused import Fault


class Refused(refused.Refused):
    """A refusal that names the device by its id and what stands in the way."""

    def __init__(
        self, reason: str, message: str, faults: Sequence[Fault] = (), **metadata: str
    ) -> None:
        super().__init__(reason, message, faults)
        self.metadata = metadata

    def answer(self) -> dict[str, object]:
        """The refusal as it goes over the socket."""
        return {**super().answer(), "metadata": self.metadata}
