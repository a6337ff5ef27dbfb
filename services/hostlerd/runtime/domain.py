"""A domain and the runtime it stands on: what each gives the other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from hostlerd.runtime import config
from hostlerd.runtime.changes import Changes, Kernel
from hostlerd.runtime.host import Probe


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service: its descriptor, the generated function that adds it, its servicer."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, Any], None]
    servicer: Any


@dataclass(frozen=True, slots=True)
class Domain:
    """What a domain brings: services, probes of the host, and what a boot has to bring back."""

    services: Sequence[Service]
    probes: Sequence[Probe] = ()
    restore: Callable[[], None] | None = None


class Runtime:
    """What the runtime gives a domain."""

    def __init__(self, domain: str, paths: config.Paths, configuration: config.Configuration):
        self.domain = domain
        self.paths = paths
        self.configuration = configuration
        self._pool = ThreadPoolExecutor(
            configuration.bounds.worker_threads, thread_name_prefix=domain
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The domain's own table of hostler.toml."""
        return self.configuration.domain

    @property
    def state_dir(self) -> Path:
        """What must survive a boot."""
        return self.paths.state

    @property
    def run_dir(self) -> Path:
        """What must survive the daemon, but not a boot."""
        return self.paths.run

    def blocking(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Run blocking work in the bounded pool, in the caller's context."""
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(
            self._pool, partial(context.run, work, *args)
        )

    def changes(self, kernel: Kernel) -> Changes:
        """Answer the one place that carries out the changes of a kernel."""
        return Changes(kernel, self.blocking)


Build = Callable[[Runtime], Domain]
