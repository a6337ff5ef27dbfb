"""Dovecot: IMAP, POP3 and submission. Source: doc.dovecot.org, SSL configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hostlerd.ssl.model.site import Parsed, Reference, Role, Setting, Site
from hostlerd.ssl.plan.servers.files import MOST_SITES, Files, Source, folder_of, joined, listener

# What listens where unless a service says otherwise: port, whether in TLS from the start, protocol.
_LISTENERS = {
    ("imap-login", "imap"): (143, False, "imap"),
    ("imap-login", "imaps"): (993, True, "imap"),
    ("pop3-login", "pop3"): (110, False, "pop3"),
    ("pop3-login", "pop3s"): (995, True, "pop3"),
    ("submission-login", "submission"): (587, False, "smtp"),
    ("submission-login", "submissions"): (465, True, "smtp"),
}
_ROLES = {
    "ssl_cert": Role.CERTIFICATE,
    "ssl_key": Role.KEY,
    "ssl_alt_cert": Role.CERTIFICATE,
    "ssl_alt_key": Role.KEY,
    "ssl_ca": Role.AUTHORITY,
    "ssl_server_cert_file": Role.CERTIFICATE,
    "ssl_server_key_file": Role.KEY,
}
_SETTINGS = (
    *("ssl", "ssl_min_protocol", "ssl_cipher_list", "ssl_cipher_suites", "ssl_curve_list"),
    *("ssl_prefer_server_ciphers", "ssl_options", "ssl_dh", "ssl_verify_client_cert"),
)
_PROTOCOLS = {"imap-login": "imap", "pop3-login": "pop3", "submission-login": "submission"}


@dataclass(slots=True)
class Block:
    """A section with its words, its settings and its sections."""

    words: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    inner: list[Block] = field(default_factory=list)

    def value(self, name: str, default: str = "") -> str:
        """The value of a setting of its own."""
        return self.settings[name].value if name in self.settings else default


def parse(source: Source, path: str) -> Parsed:
    """Read dovecot.conf and all that it includes."""
    parsed = Parsed()
    root = Block()
    _read(Files(source, parsed), path, [root], 0)
    if root.value("ssl", "yes") == "no":
        return parsed
    addresses = re.split(r"[,\s]+", root.value("listen", "*, ::"))
    places: dict[str, list[str]] = {"": []}
    for port, tls, protocol in _listeners(root):
        kind = "" if tls else protocol
        places.setdefault(kind, []).extend(listener(each, port) for each in addresses)
    for starttls, listed in places.items():
        if listed:
            parsed.sites.extend(_sites(root, tuple(listed), starttls))
    return parsed


def _read(files: Files, path: str, stack: list[Block], depth: int) -> None:
    base = len(stack)
    for number, raw in enumerate(files.read(path, depth).split("\n"), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        if line.startswith("!include"):
            for name in files.glob(joined(folder_of(path), line.split(None, 1)[-1])):
                _read(files, name, stack, depth + 1)
            continue
        _line(path, number, line, stack, base)
    del stack[base:]


def _line(path: str, number: int, line: str, stack: list[Block], base: int) -> None:
    if line == "}":
        if len(stack) > base:
            stack.pop()
    elif line.endswith("{") and "=" not in line:
        block = Block(tuple(line[:-1].split()))
        stack[-1].inner.append(block)
        if len(stack) < 30:
            stack.append(block)
    elif (found := re.match(r"(\S+)\s+(\S+\s+)?\{\s*(.*?)\s*\}$", line)) and "=" in found[3]:
        block = Block(tuple(line.partition("{")[0].split()))
        stack[-1].inner.append(block)
        _line(path, number, found[3], [block], 1)
    else:
        name, equals, value = line.partition("=")
        if equals:
            text = value.strip().strip("\"'")
            stack[-1].settings[name.strip()] = Setting(name.strip(), text, path, number)


def _listeners(root: Block) -> Iterator[tuple[int, bool, str]]:
    wanted = root.value("protocols", "imap pop3 lmtp").split()
    found = dict(_LISTENERS)
    for service in (each for each in root.inner if each.words[:1] == ("service",)):
        for inet in (each for each in service.inner if each.words[:1] == ("inet_listener",)):
            key = (service.words[-1], inet.words[-1])
            if key[0] not in _PROTOCOLS:
                continue
            port, tls, protocol = found.get(key, (0, False, ""))
            text = inet.value("port", str(port))
            port = int(text) if text.isdigit() else port
            tls = inet.value("ssl", "yes" if tls else "no") == "yes"
            found[key] = (
                port,
                tls,
                protocol or {"submission": "smtp"}.get(_PROTOCOLS[key[0]], _PROTOCOLS[key[0]]),
            )
    for (service_name, _), (port, tls, protocol) in found.items():
        if port and _PROTOCOLS[service_name] in wanted:
            yield port, tls, protocol


def _sites(root: Block, places: tuple[str, ...], starttls: str) -> Iterator[Site]:
    yield _site(root, [root], (), places, starttls)
    for count, block in enumerate(root.inner):
        if block.words[:1] == ("local_name",) and count < MOST_SITES:
            names = tuple(word.strip("\"'") for word in block.words[1:])
            yield _site(root, [root, block], names, places, starttls)


def _site(
    root: Block, chain: list[Block], names: tuple[str, ...], places: tuple[str, ...], starttls: str
) -> Site:
    merged: dict[str, Setting] = {}
    for block in chain:
        merged.update(block.settings)
    references = tuple(
        Reference(
            role,
            merged[name].value.removeprefix("<").strip(),
            name,
            merged[name].path,
            merged[name].line,
        )
        for name, role in _ROLES.items()
        if name in merged and (merged[name].value.startswith("<") or name.endswith("_file"))
    )
    passphrase = merged["ssl_key_password"].value if "ssl_key_password" in merged else ""
    return Site(
        "dovecot",
        names,
        places,
        tuple(each for each in references if each.file.startswith("/")),
        tuple(merged[name] for name in _SETTINGS if name in merged),
        default=not names,
        starttls=starttls,
        passphrase="" if passphrase.startswith("<") else passphrase,
    )
