"""The entry point of a domain's processes: the daemon itself, and what units start beside it."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from hostlerd.runtime import config, events, log
from hostlerd.runtime.domain import BUNDLE, Build, Domain, Runtime
from hostlerd.runtime.pushing import BundleFile, BundleKernel

_log = log.get_log("runtime.server")

_NOWHERE = Path("/nonexistent")


def main(domain: str, build: Build) -> None:
    """Run the process that the first argument names, to its end.

    None is the daemon. `restore` brings back at boot what the domain saved, `revert` takes back the
    domain's part of a pending group, `job` does the jobs that are waiting.
    """
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if "HOSTLER_DEBUG_ALL" in os.environ or "--debug-all" in sys.argv[1:]:
        log.debug_all()
    paths = config.Paths.of(domain)
    try:
        runtime, made = _make(domain, build, paths)
    except config.ConfigurationInvalid as e:
        _log.error("configuration not usable", event=events.CONFIGURATION_INVALID, problem=e)
        if words != ["revert"]:
            sys.exit(78)
        # What was pending is taken back whatever the file says by now.
        runtime, made = _make(domain, build, dataclasses.replace(paths, configuration=_NOWHERE))
    match words:
        case []:
            _serve(runtime, made)
        case ["restore"]:
            _restore(runtime, made)
        case ["revert"]:
            from hostlerd.runtime.reverting import revert

            sys.exit(revert(runtime, made))
        case ["job"]:
            from hostlerd.runtime.job_runner import run_jobs

            sys.exit(run_jobs(runtime, made))
        case _:
            _log.error("no such process", words=words)
            sys.exit(2)


def _make(domain: str, build: Build, paths: config.Paths) -> tuple[Runtime, Domain]:
    """Make what every process of a domain has, all edges included. Raises ConfigurationInvalid."""
    configuration = config.read(paths.configuration / "hostler.toml", domain)
    log.use(configuration.log)
    runtime = Runtime(domain, paths, configuration)
    # The daemon makes this edge again, with the store that it authorizes by.
    runtime.changes(BundleKernel(BundleFile(paths.state / "bundle.json")), BUNDLE)
    return runtime, build(runtime)


def _restore(runtime: Runtime, made: Domain) -> None:
    from hostlerd.runtime.audit import AuditLog

    if made.restore is None:
        return
    audit = AuditLog.of(runtime.paths, runtime.configuration)
    try:
        runtime.recovery.record_in(audit)
        with runtime.lock.held_here():
            runtime.recovery.look()
            # What comes back is what was there before anything pending was done.
            runtime.taking_back.after_boot(audit)
            made.restore()
    finally:
        audit.close()


def _serve(runtime: Runtime, made: Domain) -> None:
    import uvloop

    from hostlerd.runtime.daemon import serve

    uvloop.run(serve(runtime, made))
    # grpcio's threads may take seconds to notice; nothing is left for them to do.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
