"""lighttpd: sockets and hosts that speak TLS. Source: its wiki, mod_openssl, Configuration."""

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
    r"\s+|\#[^\n]*"
    r'|(?P<condition>\$\w+\s*\[\s*"[^"]*"\s*\]\s*(?:==|!=|=~|!~|=\^|=\$)\s*"(?:[^"\\]|\\.)*")'
    r'|"(?P<string>(?:[^"\\]|\\.)*)"|(?P<name>[A-Za-z_][\w.\-/]*|\d+)|(?P<mark>\+=|=>|[-+=(){},:])'
    r"|(?P<other>.)"
)
_CONDITION = re.compile(r'\$(\w+)\s*\[\s*"([^"]*)"\s*\]\s*(\S\S)\s*"((?:[^"\\]|\\.)*)"')
_ROLES = {
    "ssl.pemfile": Role.CERTIFICATE,
    "ssl.privkey": Role.KEY,
    "ssl.ca-file": Role.CHAIN,
    "ssl.verifyclient.ca-file": Role.AUTHORITY,
}
_SETTINGS = frozenset(
    {
        *("ssl.openssl.ssl-conf-cmd", "ssl.cipher-list", "ssl.honor-cipher-order"),
        *("ssl.use-sslv2", "ssl.use-sslv3", "ssl.dh-file", "ssl.ec-curve", "ssl.stapling-file"),
        *("ssl.disable-client-renegotiation", "ssl.verifyclient.activate"),
    }
)


@dataclass(slots=True)
class Scope:
    """The whole configuration or a condition in it, and what is set there."""

    key: str = ""
    operator: str = ""
    value: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)
    inner: list[Scope] = field(default_factory=list)


@dataclass(slots=True)
class _State:
    files: Files
    parsed: Parsed
    folder: str
    variables: dict[str, str] = field(default_factory=dict)


Token = tuple[str, str, int]


def parse(source: Source, path: str) -> Parsed:
    """Read lighttpd.conf and all that it includes."""
    parsed = Parsed()
    state = _State(Files(source, parsed), parsed, folder_of(path))
    root = Scope()
    _read(state, path, root, 0)
    port = root.settings["server.port"].value if "server.port" in root.settings else "80"
    bind = root.settings["server.bind"].value if "server.bind" in root.settings else "*"
    parsed.sites.extend(_sites(root, [root], listener(bind, port)))
    return parsed


def _read(state: _State, path: str, scope: Scope, depth: int) -> None:
    tokens = list(_tokens(state.files.read(path, depth)))
    _statements(state, path, tokens, 0, scope, depth)


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for found in _TOKEN.finditer(text):
        if found.lastgroup:
            yield found.lastgroup, found[found.lastgroup], line
        line += found[0].count("\n")


def _statements(
    state: _State, path: str, tokens: list[Token], at: int, scope: Scope, depth: int
) -> int:
    """Take statements up to a closing brace; answers where to go on."""
    while at < len(tokens):
        kind, word, line = tokens[at]
        if kind == "mark" and word == "}":
            return at + 1
        if kind == "condition":
            at = _condition(state, path, tokens, at, scope, depth)
        elif kind == "name" and word in ("include", "include_shell"):
            text, at = _value(state, tokens, at + 1)
            if word == "include":
                for name in state.files.glob(joined(state.folder, text)):
                    _read(state, name, scope, depth + 1)
            else:
                state.parsed.note(
                    "INCLUDE_PROGRAM", "a program's words are included, not run", path
                )
        elif kind == "name" and at + 1 < len(tokens) and tokens[at + 1][1] in ("=", "+="):
            value, at = _value(state, tokens, at + 2)
            if word.startswith("var."):
                state.variables[word] = value
            scope.settings[word] = Setting(word, value, path, line)
        else:
            at += 1
    return at


def _condition(
    state: _State, path: str, tokens: list[Token], at: int, scope: Scope, depth: int
) -> int:
    found = _CONDITION.match(tokens[at][1])
    at += 1
    if found is None or at >= len(tokens) or tokens[at][1] != "{" or depth > 30:
        return at
    inner = Scope(f"{found[1]}.{found[2]}", found[3], found[4])
    scope.inner.append(inner)
    return _statements(state, path, tokens, at + 1, inner, depth + 1)


def _value(state: _State, tokens: list[Token], at: int) -> tuple[str, int]:
    """A value: strings joined by "+", variables, or all the words of a list."""
    parts: list[str] = []
    nesting = 0
    while at < len(tokens):
        kind, word, _ = tokens[at]
        if kind == "mark" and word in "()":
            nesting += 1 if word == "(" else -1
        elif kind == "mark" and nesting > 0:
            parts.append(" ")
        elif kind == "string":
            parts.append(word)
        elif kind == "name":
            parts.append(state.variables.get(word, "" if word.startswith("var.") else word))
        at += 1
        is_more = at < len(tokens) and tokens[at][0] == "mark" and tokens[at][1] == "+"
        if nesting > 0:
            continue
        if not is_more:
            break
        at += 1
    return " ".join("".join(parts).split()) if nesting or " " in parts else "".join(parts), at


def _sites(scope: Scope, chain: list[Scope], place: str) -> Iterator[Site]:
    """A site for each socket, and one for each host in it that has a certificate of its own."""
    if scope.key == "SERVER.socket" and scope.operator == "==":
        place = listener(*split_listener(scope.value, 80))
    own = {each for each in scope.settings if each in _ROLES}
    engine = next(
        (s.settings["ssl.engine"].value for s in reversed(chain) if "ssl.engine" in s.settings), ""
    )
    names = [s.value for s in chain if s.key == "HTTP.host" and s.operator == "=="]
    opens = "ssl.engine" in scope.settings or scope.key == "SERVER.socket"
    if is_on(engine) and (opens or own):
        yield _site(chain, tuple(names[-1:]), place)
    for count, inner in enumerate(scope.inner):
        if count >= MOST_SITES:
            return
        yield from _sites(inner, [*chain, inner], place)


def _site(chain: list[Scope], names: tuple[str, ...], place: str) -> Site:
    merged: dict[str, Setting] = {}
    for scope in chain:
        merged.update(scope.settings)
    has_key = "ssl.privkey" in merged
    references = []
    for name, role in _ROLES.items():
        if name in merged:
            of = merged[name]
            kind = Role.BOTH if role is Role.CERTIFICATE and not has_key else role
            references.append(Reference(kind, of.value, name, of.path, of.line))
    settings = tuple(merged[name] for name in sorted(_SETTINGS & merged.keys()))
    return Site("lighttpd", names, (place,), tuple(references), settings, default=not names)
