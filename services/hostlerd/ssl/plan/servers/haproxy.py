"""HAProxy: frontends that speak TLS. Source: docs.haproxy.org, configuration manual, 5.1 (bind)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hostlerd.ssl.model.site import Parsed, Reference, Role, Setting, Site
from hostlerd.ssl.plan.servers.files import (
    MOST_SITES,
    Files,
    Source,
    joined,
    listener,
    split_listener,
)

_SECTIONS = frozenset(
    {
        *("global", "defaults", "frontend", "backend", "listen", "peers", "userlist", "resolvers"),
        *("mailers", "program", "http-errors", "ring", "cache", "fcgi-app", "crt-store"),
    }
)
_WORD = re.compile(r'(?:[^\s"\'\\#]|\\.|"(?:[^"\\]|\\.)*"|\'[^\']*\')+')
_BIND_VALUES = frozenset({"crt", "crt-list", "ca-file"})
_SETTINGS = re.compile(r"ssl-default-bind-(ciphers|ciphersuites|options|curves)|tune\.ssl\.\S+")
_BIND_SETTINGS = frozenset(
    {
        *("alpn", "ciphers", "ciphersuites", "curves", "ecdhe", "ssl-min-ver", "ssl-max-ver"),
        *("no-sslv3", "no-tlsv10", "no-tlsv11", "no-tlsv12", "no-tlsv13", "no-tls-tickets"),
        *("verify", "strict-sni", "prefer-client-ciphers", "allow-0rtt"),
    }
)
_FLAGS = frozenset(name for name in _BIND_SETTINGS if name.startswith("no-")) | {
    *("strict-sni", "prefer-client-ciphers", "allow-0rtt"),
}
# Beside a certificate lie what belongs to it, and bundles by the kind of their key.
_BESIDE = (".key", ".ocsp", ".sctl", ".issuer")


@dataclass(slots=True)
class _State:
    files: Files
    parsed: Parsed
    crt_base: str = ""
    ca_base: str = ""
    settings: list[Setting] = field(default_factory=list)
    binds: list[tuple[str, int, list[str]]] = field(default_factory=list)


def parse(source: Source, paths: Sequence[str]) -> Parsed:
    """Read the configuration, of however many files and folders it is."""
    parsed = Parsed()
    state = _State(Files(source, parsed), parsed)
    for path in paths:
        names = [path] if path.endswith(".cfg") else list(state.files.glob(path)) or [path]
        for name in names:
            _read(state, name)
    for path, line, words in state.binds:
        if "ssl" in words and len(parsed.sites) < MOST_SITES:
            parsed.sites.extend(_bind(state, path, line, words))
    return parsed


def _read(state: _State, path: str) -> None:
    section = ""
    for number, text in enumerate(state.files.read(path).split("\n"), 1):
        words = [_plain(word) for word in _WORD.findall(text.partition(" #")[0])]
        if not words or text.lstrip().startswith("#"):
            continue
        if words[0] in _SECTIONS:
            section = words[0]
        elif section == "global":
            _global(state, path, number, words)
        elif section in ("frontend", "listen") and words[0] == "bind" and len(words) > 1:
            state.binds.append((path, number, words[1:]))


def _global(state: _State, path: str, number: int, words: list[str]) -> None:
    if words[0] == "crt-base" and len(words) > 1:
        state.crt_base = words[1]
    elif words[0] == "ca-base" and len(words) > 1:
        state.ca_base = words[1]
    elif _SETTINGS.fullmatch(words[0]):
        state.settings.append(Setting(words[0], " ".join(words[1:]), path, number))


def _bind(state: _State, path: str, line: int, words: list[str]) -> Iterator[Site]:
    """One site for each certificate of a bind line: its names are those it is for."""
    places = []
    for each in words[0].split(","):
        bare = re.sub(r"^(ipv4|ipv6|tcp)?@", "", each)
        if not re.match(r"(unix|abns|fd|/|\$)", bare):
            address, port = split_listener(bare, 0)
            places.append(listener(address, port))
    settings = tuple([*state.settings, *_bind_settings(path, line, words[1:])])
    named = list(_named(state, path, line, words[1:]))
    roots = tuple(r for _, r in named if r.role is Role.AUTHORITY)
    first = True
    for names, reference in named:
        if reference.role is Role.AUTHORITY or not places:
            continue
        yield Site(
            "haproxy",
            names,
            tuple(places),
            (reference, *roots),
            settings,
            default=first,
            by_certificate=not names,
        )
        first = False


def _named(
    state: _State, path: str, line: int, words: list[str]
) -> Iterator[tuple[tuple[str, ...], Reference]]:
    for name, value in itertools.pairwise(words):
        if name not in _BIND_VALUES:
            continue
        if name == "ca-file":
            file = joined(state.ca_base, value)
            yield (), Reference(Role.AUTHORITY, file, name, path, line)
        elif name == "crt-list":
            yield from _listed(state, joined(state.crt_base, value))
        else:
            for file in _certificates(state, joined(state.crt_base, value)):
                yield (), Reference(Role.BOTH, file, name, path, line)


def _certificates(state: _State, path: str) -> Sequence[str]:
    """The file itself, or the certificates of the folder that it is."""
    return [f for f in state.files.glob(path) if not f.endswith(_BESIDE)] or [path]


def _listed(state: _State, path: str) -> Iterator[tuple[tuple[str, ...], Reference]]:
    """The lines of a crt-list: a file, settings in brackets, names; "!" takes a name out."""
    for number, text in enumerate(state.files.read(path, 1).split("\n"), 1):
        line = re.sub(r"\[[^\]]*\]", " ", text).strip()
        if line and not line.startswith("#"):
            file, *names = line.split()
            wanted = tuple(name for name in names if not name.startswith("!"))
            for each in _certificates(state, joined(state.crt_base, file)):
                yield wanted, Reference(Role.BOTH, each, "crt-list", path, number)


def _bind_settings(path: str, line: int, words: list[str]) -> Iterator[Setting]:
    for at, name in enumerate(words):
        if name in _FLAGS:
            yield Setting(name, "", path, line)
        elif name in _BIND_SETTINGS and at + 1 < len(words):
            yield Setting(name, words[at + 1], path, line)


def _plain(word: str) -> str:
    """A word without its quotes."""
    return re.sub(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'', lambda m: m[1] or m[2] or "", word)
