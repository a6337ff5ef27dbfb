"""nginx: server blocks of http, stream and mail. Source: nginx.org, ngx_http_ssl_module."""

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

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<mark>[{};])|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'"""
    r"""|(?P<word>(?:\$\{[^}]*\}|\\.|[^\s;{}"'\\])(?:\$\{[^}]*\}|\\.|[^\s;{}\\])*)|(?P<other>.)""",
    re.DOTALL,
)
_ROLES = {
    "ssl_certificate": Role.CERTIFICATE,
    "ssl_certificate_key": Role.KEY,
    "ssl_password_file": Role.PASSPHRASE,
    "ssl_client_certificate": Role.AUTHORITY,
    "ssl_trusted_certificate": Role.CHAIN,
}
_SETTINGS = frozenset(
    {
        *("ssl_protocols", "ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_ecdh_curve"),
        *("ssl_session_cache", "ssl_session_tickets", "ssl_stapling", "ssl_dhparam"),
        *("ssl_verify_client", "ssl_early_data", "ssl_conf_command", "ssl_session_timeout"),
    }
)
_MOST_NESTING = 30
Token = tuple[str, int, bool]
_STARTTLS = {"smtp": "smtp", "imap": "imap", "pop3": "pop3"}


@dataclass(slots=True)
class Directive:
    """A directive with its words, its place, and what is in its block."""

    name: str
    words: list[str]
    path: str
    line: int
    block: list[Directive] = field(default_factory=list)


def parse(source: Source, path: str, prefix: str = "") -> Parsed:
    """Read nginx.conf and all that it includes. `prefix` is what other paths are relative to."""
    parsed = Parsed()
    files = Files(source, parsed)
    # Includes and certificates are relative to the folder of nginx.conf.
    folder = folder_of(path) if not prefix else prefix
    root = _Reader(files, parsed, folder).read(path)
    for context in (each for each in root if each.name in ("http", "stream", "mail")):
        inherited = [each for each in context.block if each.name != "server"]
        seen: set[str] = set()
        for server in (each for each in context.block if each.name == "server"):
            if len(parsed.sites) >= MOST_SITES:
                parsed.note("TOO_MANY_SITES", f"more than {MOST_SITES} servers", path)
                break
            parsed.sites.extend(_sites(server, inherited, folder, context.name, seen))
    return parsed


class _Reader:
    """Reads files into directives, what they include in place."""

    def __init__(self, files: Files, parsed: Parsed, folder: str) -> None:
        self._files, self._parsed, self._folder = files, parsed, folder

    def read(self, path: str, depth: int = 0) -> list[Directive]:
        """The directives of a file."""
        tokens = _tokens(self._files.read(path, depth))
        found, whole = self._block(path, depth, tokens, 0)
        if not whole:
            words = "ends within a block or a directive"
            self._parsed.note("CONFIGURATION_MALFORMED", words, path)
        return found

    def _block(
        self, path: str, depth: int, tokens: Iterator[Token], nesting: int
    ) -> tuple[list[Directive], bool]:
        """The directives up to the end of a block; False if the file ends before it does."""
        found: list[Directive] = []
        words: list[str] = []
        first = 0
        for word, line, mark in tokens:
            if not mark:
                first = first if words else line
                words.append(word)
                continue
            if word == "}":
                return found, nesting > 0 and not words
            if not words:
                continue
            one = Directive(words[0], words[1:], path, first)
            words = []
            if word == "{":
                one.block, whole = self._inner(path, depth, tokens, nesting)
                if not whole:
                    return [*found, one], False
            found.extend(self._with_included(one, depth))
        return found, nesting == 0 and not words

    def _inner(
        self, path: str, depth: int, tokens: Iterator[Token], nesting: int
    ) -> tuple[list[Directive], bool]:
        if nesting > _MOST_NESTING:
            return [], False
        return self._block(path, depth, tokens, nesting + 1)

    def _with_included(self, one: Directive, depth: int) -> Iterator[Directive]:
        if one.name != "include" or not one.words:
            yield one
            return
        pattern = joined(self._folder, one.words[0])
        for name in self._files.glob(pattern) if re.search(r"[*?\[]", pattern) else [pattern]:
            yield from self.read(name, depth + 1)


def _tokens(text: str) -> Iterator[Token]:
    """Words and marks with their lines; True for a mark."""
    line = 1
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind == "mark":
            yield found[0], line, True
        elif kind is not None:
            yield re.sub(r"\\(.)", r"\1", found[kind]), line, False
        line += found[0].count("\n")


def _sites(
    server: Directive, inherited: list[Directive], folder: str, kind: str, seen: set[str]
) -> Iterator[Site]:
    own = server.block
    tls, first = [], False
    every = is_on(_word(own, inherited, "ssl", "off"))
    starttls = ""
    if kind == "mail" and _word(own, inherited, "starttls", "off") in ("on", "only"):
        starttls = _STARTTLS.get(_word(own, inherited, "protocol", ""), "")
    for each in (d for d in own if d.name == "listen" and d.words):
        if each.words[0].startswith("unix:"):
            continue
        place = listener(*split_listener(each.words[0], 80))
        if every or starttls or {"ssl", "quic"} & set(each.words):
            tls.append(place)
            first |= place not in seen or "default_server" in each.words
            seen.add(place)
    if not tls:
        return
    names = [w for d in own if d.name == "server_name" for w in d.words if w not in ("_", "")]
    yield Site(
        "nginx",
        tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(tls)),
        tuple(_references(own, inherited, folder)),
        tuple(_settings(own, inherited)),
        default=first,
        starttls=starttls,
    )


def _of(own: list[Directive], inherited: list[Directive], name: str) -> list[Directive]:
    """The directives of a name that hold for a server: its own, or else those around it."""
    mine = [each for each in own if each.name == name]
    return mine or [each for each in inherited if each.name == name]


def _word(own: list[Directive], inherited: list[Directive], name: str, default: str) -> str:
    found = _of(own, inherited, name)
    return found[-1].words[0] if found and found[-1].words else default


def _references(
    own: list[Directive], inherited: list[Directive], folder: str
) -> Iterator[Reference]:
    for name, role in _ROLES.items():
        for each in _of(own, inherited, name):
            # A variable is a name of each request; "data:" and "engine:" are no files.
            if each.words and not re.search(r"\$|^(data|engine|store):", each.words[0]):
                file = joined(folder, each.words[0])
                yield Reference(role, file, name, each.path, each.line)


def _settings(own: list[Directive], inherited: list[Directive]) -> Iterator[Setting]:
    for name in sorted(_SETTINGS):
        for each in _of(own, inherited, name):
            yield Setting(name, " ".join(each.words), each.path, each.line)
