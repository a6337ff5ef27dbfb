"""Which engine serves a trace: the one that is asked for, or the best that this host has."""

from __future__ import annotations

from hostlerd.tracing.kernel.capture.engine import Engine
from hostlerd.tracing.kernel.strace.engine import StraceEngine
from hostlerd.tracing.kernel.tracefs.engine import TracefsEngine
from hostlerd.tracing.model.capture import Capture
from hostlerd.tracing.model.trace import Spec

AnyEngine = Engine | StraceEngine | TracefsEngine
ENGINES: dict[str, type[AnyEngine]] = {
    "bpf": Engine,
    "strace": StraceEngine,
    "tracefs": TracefsEngine,
}
_SERVES = {
    "strace": "strace serves this trace, and slows what it traces",
    "tracefs": "tracefs serves this trace",
}
_LACKS = {
    "tracefs": "tracefs tells calls by their numbers and results: no paths, and no names of files",
}
_PAYLOADS = {
    "strace": "strace tells no command lines and no environments",
    "tracefs": "tracefs tells no payloads, command lines or environments",
}


def start(spec: Spec, capture: Capture) -> tuple[AnyEngine, str, list[str]]:
    """Start it; answers the engine, its name, and warnings. Raises OSError, of all that failed."""
    tried = [spec.engine] if spec.engine else ["bpf", *(["strace"] if spec.pids else []), "tracefs"]
    problems: list[str] = []
    for name in tried:
        engine = ENGINES[name](capture)
        try:
            engine.start()
        except OSError as e:
            if spec.engine:
                raise
            problems.append(words(e, name))
            continue
        return engine, name, _warnings(name, problems, capture)
    raise OSError(0, "; ".join(problems), ", ".join(tried))


def words(error: OSError, what: str = "bpf") -> str:
    """What went wrong, and where."""
    return f"{error.filename or what}: {error.strerror or error}"


def _warnings(name: str, problems: list[str], capture: Capture) -> list[str]:
    found = [f"{_SERVES[name]}: {'; '.join(problems)}"] if problems else []
    if name in _LACKS:
        found.append(_LACKS[name])
    withheld = capture.cmdlines or capture.environs
    if name == "tracefs":
        withheld = withheld or bool(capture.payload_bytes)
    if withheld and name in _PAYLOADS:
        found.append(_PAYLOADS[name])
    return found
