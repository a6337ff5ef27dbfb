"""What is recorded of a trace: calls in a ring of their own, and what tasks become in another.

So a storm of calls takes no room from what tells whose they are, and what is lost is calls alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.tracefs.formats import page_format
from hostlerd.tracing.kernel.tracefs.instance import Instance
from hostlerd.tracing.kernel.tracefs.owner import Folders
from hostlerd.tracing.kernel.tracefs.records import CALLS, TASKS, Reader
from hostlerd.tracing.kernel.tracefs.ring import Rings

_TASKS_PART = 16


class Recording:
    """Set up, and recording nothing yet. `reader` takes records out of what `rings` has."""

    def __init__(self, ring_bytes: int) -> None:
        """Make it. Raises OSError with the file that cannot be had, FormatUnknown."""
        self._folders = folders = Folders()
        self._both: list[Instance] = []
        try:
            tasks_bytes = ring_bytes // _TASKS_PART
            self._calls = Instance(folders.calls, ring_bytes - tasks_bytes)
            self._both.append(self._calls)
            self._tasks = Instance(folders.tasks, tasks_bytes)
            self._both.append(self._tasks)
            page = page_format(proc.text(str(folders.root / "events" / "header_page")))
            formats = self._calls.formats(CALLS) | self._tasks.formats(TASKS)
            self.reader = Reader(page, formats)
            pipes = [pipe for each in self._both for pipe in each.pipes]
            self.rings = Rings(pipes, [*self._calls.cpus, *self._tasks.cpus], page)
        except BaseException:
            self.remove()
            raise

    def follow(self, tids: Iterable[int]) -> None:
        """Record these threads alone, and what they start. Raises OSError."""
        # Who is made is known before it is recorded.
        for each in reversed(self._both):
            each.follow(tids)

    def leave_out(self, tids: Iterable[int]) -> None:
        """Do not record these threads; it is still told what they start. Raises OSError."""
        self._calls.leave_out(tids)

    def begin(self, enter: str, left: str) -> None:
        """Record, with filters of the entries and the exits; empty for all. Raises OSError."""
        for name in TASKS.values():
            self._tasks.record(name)
        for key, wanted in (("exit", left), ("enter", enter)):
            self._calls.record(CALLS[key], wanted)

    def followed(self) -> list[int]:
        """The threads that `follow` is about now."""
        return self._calls.followed()

    def counts(self) -> tuple[int, int]:
        """How many entries and exits were made, and how many of them could not be kept."""
        return self._calls.counts()

    def stop(self) -> None:
        """Detach from the kernel; what there is can still be read."""
        for each in self._both:
            each.stop()

    def remove(self) -> None:
        """Give all back."""
        for each in self._both:
            each.close()
        self._folders.remove()
