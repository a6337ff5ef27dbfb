"""The entry point of a domain's processes: the daemon itself, and what units start beside it."""

from __future__ import annotations

import os
import sys

from hostlerd.runtime import config, log
from hostlerd.runtime.domain import Build, Domain, Runtime

_log = log.get_log("runtime.server")


def main(domain: str, build: Build) -> None:
    """Run the process that the first argument names, to its end.

    None is the daemon. `restore` brings back at boot what the domain saved.
    """
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if "HOSTLER_DEBUG_ALL" in os.environ or "--debug-all" in sys.argv[1:]:
        log.debug_all()
    paths = config.Paths.of(domain)
    try:
        configuration = config.read(paths.configuration / "hostler.toml", domain)
        runtime = Runtime(domain, paths, configuration)
        made = build(runtime)
    except config.ConfigurationInvalid as e:
        _log.error("configuration not usable", problem=e)
        sys.exit(78)
    match words:
        case []:
            _serve(runtime, made)
        case ["restore"]:
            _restore(runtime, made)
        case _:
            _log.error("no such process", words=words)
            sys.exit(2)


def _restore(runtime: Runtime, made: Domain) -> None:
    if made.restore is not None:
        made.restore()


def _serve(runtime: Runtime, made: Domain) -> None:
    import uvloop

    from hostlerd.runtime.daemon import serve

    uvloop.run(serve(runtime, made))
    # grpcio's threads may take seconds to notice; nothing is left for them to do.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
