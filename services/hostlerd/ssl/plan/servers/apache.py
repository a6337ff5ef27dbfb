"""Apache: virtual hosts. Source: httpd.apache.org, mod_ssl, core (sections, Define, Include)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hostlerd.ssl.model.site import Parsed, Reference, Role, Setting, Site
from hostlerd.ssl.plan.servers.files import (
    MOST_SITES,
    Files,
    Source,
    folder_of,
    is_on,
    joined,
    listener,
    split_listener,
)

_ROLES = {
    "sslcertificatefile": Role.CERTIFICATE,
    "sslcertificatekeyfile": Role.KEY,
    "sslcertificatechainfile": Role.CHAIN,
    "sslcacertificatefile": Role.AUTHORITY,
}
_SETTINGS = frozenset(
    {
        *("sslprotocol", "sslciphersuite", "sslhonorcipherorder", "sslcompression"),
        *("sslsessiontickets", "sslusestapling", "sslopensslconfcmd", "sslverifyclient"),
        *("sslinsecurerenegotiation", "sslpolicy", "sslstrictsnivhostcheck"),
    }
)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|(\S+)')
_VARIABLE = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
_SECTION = re.compile(r"<\s*(/?)\s*(\w+)\s*([^>]*)>?")
_TRANSPARENT = frozenset(
    {"ifmodule", "ifdefine", "ifversion", "iffile", "ifdirective", "ifsection"}
)
# What is compiled in, and never loaded.
_BUILT_IN = frozenset(
    {"core_module", "so_module", "http_module", "unixd_module", "watchdog_module"}
)


@dataclass(slots=True)
class Directive:
    """A directive in lower case with its words, as written, and its place."""

    name: str
    words: list[str]
    path: str
    line: int
    spelled: str


@dataclass(slots=True)
class Scope:
    """The main server, or a virtual host: where it listens, and what stands in it."""

    addresses: tuple[str, ...]
    directives: list[Directive] = field(default_factory=list)

    def of(self, name: str) -> list[Directive]:
        """Its directives of a name, in order."""
        return [each for each in self.directives if each.name == name]

    def last(self, name: str, default: str) -> str:
        """The first word of the last directive of a name."""
        found = self.of(name)
        return found[-1].words[0] if found and found[-1].words else default


class _Reader:
    """Reads the files in order: what is defined or loaded above holds below."""

    def __init__(self, files: Files, parsed: Parsed, root: str, defined: dict[str, str]) -> None:
        self.files, self.parsed, self.root = files, parsed, root
        self.defined = dict(defined)
        self.modules: set[str] = set(_BUILT_IN)
        self.main = Scope(())
        self.hosts: list[Scope] = []
        self._scope = self.main

    def read(self, path: str, depth: int = 0) -> None:
        """Read a file and what it includes."""
        # For each open section, whether what is in it counts.
        open_: list[tuple[str, bool]] = []
        for line, text in _lines(self.files.read(path, depth)):
            section = _SECTION.match(text) if text.startswith("<") else None
            if section and section[1]:
                self._close(open_)
            elif section:
                self._open(section[2].lower(), section[3].strip(), open_)
            elif all(counts for _, counts in open_):
                self._directive(path, line, text, depth)
        for _ in range(len(open_)):
            self._close(open_)

    def _open(self, name: str, words: str, open_: list[tuple[str, bool]]) -> None:
        counts = name in _TRANSPARENT and self._holds(name, words)
        if name == "virtualhost" and all(counts for _, counts in open_):
            counts = True
            if len(self.hosts) < MOST_SITES:
                self._scope = Scope(tuple(self._expanded(w) for w in _words(words)))
                self.hosts.append(self._scope)
        open_.append((name, counts))

    def _close(self, open_: list[tuple[str, bool]]) -> None:
        if open_ and open_.pop()[0] == "virtualhost":
            self._scope = self.main

    def _holds(self, name: str, words: str) -> bool:
        is_not = words.startswith("!")
        what = words.lstrip("!").strip().strip('"')
        if name == "ifmodule":
            known = re.sub(r"^mod_(\w+)\.c$", r"\1_module", what)
            return (known in self.modules) is not is_not
        if name == "ifdefine":
            return (what in self.defined) is not is_not
        # A version or a file that nobody here knows: what is in it is more likely to hold.
        return not is_not

    def _expanded(self, word: str) -> str:
        return _VARIABLE.sub(lambda m: self.defined.get(m[1], m[0]), word)

    def _directive(self, path: str, line: int, text: str, depth: int) -> None:
        spelled, *words = _words(text)
        name, words = spelled.lower(), [self._expanded(w) for w in words]
        if name in ("include", "includeoptional") and words:
            for each in self.files.glob(joined(self.root, words[0])):
                self.read(each, depth + 1)
        elif name == "define" and words:
            self.defined[words[0]] = words[1] if len(words) > 1 else ""
        elif name == "undefine" and words:
            self.defined.pop(words[0], None)
        elif name == "loadmodule" and words:
            self.modules.add(words[0])
        elif name == "serverroot" and words:
            self.root = words[0]
        else:
            self._scope.directives.append(Directive(name, words, path, line, spelled))


def parse(
    source: Source, path: str, root: str = "", defined: dict[str, str] | None = None
) -> Parsed:
    """Read the main configuration and all that it includes.

    `root` is the ServerRoot compiled in, `defined` what -D and the environment define.
    """
    parsed = Parsed()
    files = Files(source, parsed)
    reader = _Reader(files, parsed, root or folder_of(path), defined or {})
    reader.read(path)
    if "ssl_module" not in reader.modules:
        return parsed
    listening = [
        listener(*split_listener(d.words[0], 80)) for d in reader.main.of("listen") if d.words
    ]
    seen: set[str] = set()
    for host in reader.hosts:
        places = tuple(dict.fromkeys(_places(host.addresses, listening)))
        if is_on(_inherited(host, reader.main, "sslengine", "off")) and places:
            is_first = any(place not in seen for place in places)
            seen.update(places)
            parsed.sites.append(_site(host, reader.main, reader.root, places, default=is_first))
    if is_on(reader.main.last("sslengine", "off")):
        rest = tuple(place for place in listening if place not in seen)
        if rest:
            parsed.sites.append(_site(reader.main, reader.main, reader.root, rest, default=True))
    for dialog in reader.main.of("sslpassphrasedialog"):
        if dialog.words and dialog.words[0] != "builtin":
            parsed.note("PASSPHRASE_PROGRAM", "a program answers passphrases, not run", dialog.path)
    return parsed


def _inherited(host: Scope, main: Scope, name: str, default: str) -> str:
    return host.last(name, main.last(name, default))


def _places(addresses: tuple[str, ...], listening: list[str]) -> Iterator[str]:
    """Where a virtual host is reached: at each of its addresses that the server listens at."""
    for text in addresses:
        address, port = split_listener(text, 0)
        for place in listening:
            if port not in ("0", "*") and not place.endswith(f":{port}"):
                continue
            wanted = listener(address, place.rpartition(":")[2])
            if wanted.startswith("*:") or place in (wanted, f"*:{port}", f"[::]:{port}"):
                yield place


def _site(host: Scope, main: Scope, root: str, places: tuple[str, ...], *, default: bool) -> Site:
    names = [split_listener(host.last("servername", ""), 0)[0].rpartition("//")[2]]
    names += [word for each in host.of("serveralias") for word in each.words]
    references = []
    for name, role in _ROLES.items():
        for each in host.of(name) or main.of(name):
            if each.words and not each.words[0].startswith("pkcs11:"):
                file = joined(root, each.words[0])
                references.append(Reference(role, file, each.spelled, each.path, each.line))
    settings = [
        Setting(each.spelled, " ".join(each.words), each.path, each.line)
        for name in sorted(_SETTINGS)
        for each in host.of(name) or main.of(name)
    ]
    return Site(
        "apache",
        tuple(dict.fromkeys(name for name in names if name)),
        places,
        tuple(_with_keys(references)),
        tuple(settings),
        default=default,
    )


def _with_keys(references: list[Reference]) -> Iterator[Reference]:
    """Without a file of its own the key is in that of the certificate."""
    has_key = any(each.role is Role.KEY for each in references)
    for each in references:
        if each.role is Role.CERTIFICATE and not has_key:
            yield Reference(Role.BOTH, each.file, each.setting, each.path, each.line)
        else:
            yield each


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers: continued ones joined, comments and empty ones left out."""
    held, begun = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        begun = begun or number
        if raw.endswith("\\"):
            held += raw[:-1]
            continue
        line = (held + raw).strip()
        if line and not line.startswith("#"):
            yield begun, line
        held, begun = "", 0


def _words(text: str) -> list[str]:
    return [a or b or c for a, b, c in _WORD.findall(text)] or [""]
