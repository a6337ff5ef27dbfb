"""Chains of certificates: which one is asked for, and the step that writes one. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Step

PEM_MOST_BYTES = 1 << 20
DEFAULT_S, MOST_S = 20.0, 30.0
USAGES = ("server", "client", "any")
RULES = ("private", "web", "strict")
_PEMS = ("pem", "roots_pem", "intermediates_pem")
_NAME_MOST, _PATH_MOST = 253, 4096


@dataclass(frozen=True, slots=True)
class Query:
    """Which chain is built, and by what it is judged, defaults filled in.

    At most one of `pem`, `path` and `deployment` is set. An empty `roots_pem` is the host's store.
    """

    pem: str = field(default="", repr=False)
    path: str = ""
    deployment: str = ""
    name: str = ""
    usage: str = "server"
    rules: str = "web"
    roots_pem: str = field(default="", repr=False)
    intermediates_pem: str = field(default="", repr=False)
    fetch: bool = False
    within_s: float = DEFAULT_S


def check(query: Query, path: str = "query") -> None:
    """Raise InvalidRequest for what can be seen of the query alone, all faults together."""
    whole = not query.path or (query.path.startswith("/") and len(query.path) <= _PATH_MOST)
    told = [
        *((name, _pem_fault(getattr(query, name))) for name in _PEMS),
        ("path", "" if whole else "must be a whole path"),
        ("usage", "" if query.usage in USAGES else f"must be one of {', '.join(USAGES)}"),
        ("rules", "" if query.rules in RULES else f"must be one of {', '.join(RULES)}"),
        ("name", "" if len(query.name) <= _NAME_MOST else f"is longer than {_NAME_MOST}"),
        ("within", "" if 0 < query.within_s <= MOST_S else f"must be above 0, up to {MOST_S:g} s"),
    ]
    if faults := [Violation(f"{path}.{name}", words) for name, words in told if words]:
        raise InvalidRequest.of(faults)


def _pem_fault(text: str) -> str:
    if len(text.encode()) > PEM_MOST_BYTES:
        return f"must be at most {PEM_MOST_BYTES} bytes"
    return "must not have a private key in it" if "PRIVATE KEY-----" in text else ""


@dataclass(frozen=True, slots=True)
class Built:
    """A chain that is to be served, the leaf first and without its root.

    `certificates` are (fingerprint, subject) in order; `before` the same of what was there.
    """

    pem: str = field(repr=False)
    certificates: tuple[tuple[str, str], ...]
    before: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each, in hex."""
        return tuple(fingerprint for fingerprint, _ in self.certificates)


@dataclass(frozen=True, slots=True)
class WriteChainFile:
    """Write a chain to a file, the leaf first, or leave the file as it is."""

    path: str
    pem: str = field(repr=False)
    subjects: tuple[str, ...] = ()
    survives_boot = True

    @property
    def hashed(self) -> tuple[str, str]:
        """What a plan's hash is made of."""
        return self.path, self.pem

    def describe(self) -> str:
        """Say what it does."""
        return f"write the chain {' < '.join(self.subjects)} to {self.path}"

    def inverse(self) -> Step | None:
        """The installer has its own way back, and no more once the file has been read again."""
        return None
