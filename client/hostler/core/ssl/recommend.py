"""Which TLS settings a server should have, in the server's own words. Pure.

The profiles are Mozilla's, version 5.7 of "Security/Server Side TLS": modern speaks TLS 1.3 alone,
intermediate 1.2 and 1.3 with forward secrecy and AEAD, old everything that is still about. Where a
server cannot say a part of a profile, the nearest that it can say is written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SERVERS = ("nginx", "apache", "lighttpd", "haproxy", "postfix")
PROFILES = ("modern", "intermediate", "old")
SOURCE = "https://wiki.mozilla.org/Security/Server_Side_TLS, guideline 5.7"
GRADES = {"modern": "A", "intermediate": "A", "old": "B"}
"""The grade that a scan gives each profile at least, trust aside; A+ where HSTS comes with it."""
TWO_YEARS_S = 63072000

_TLS13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_INTERMEDIATE = (
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    *("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    *("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
    *("DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-CHACHA20-POLY1305"),
)
_OLD = (
    *_INTERMEDIATE,
    *("ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA256"),
    *("ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA"),
    *("ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA384"),
    *("ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA"),
    *("DHE-RSA-AES128-SHA256", "DHE-RSA-AES256-SHA256"),
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA256", "AES256-SHA256"),
    *("AES128-SHA", "AES256-SHA", "DES-CBC3-SHA"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is spoken: versions oldest first, suites up to TLS 1.2 in order, whose order counts.

    `level` is OpenSSL's security level that the profile needs, if the usual one forbids it.
    """

    name: str
    versions: tuple[str, ...]
    suites: tuple[str, ...]
    server_order: bool
    level: int | None = None

    @property
    def ciphers(self) -> str:
        """The suites up to TLS 1.2, in OpenSSL's notation."""
        level = [] if self.level is None else [f"@SECLEVEL={self.level}"]
        return ":".join([*self.suites, *level])

    @property
    def oldest(self) -> str:
        """The oldest version that is spoken."""
        return self.versions[0]


_PROFILES = {
    "modern": Profile("modern", ("1.3",), (), server_order=False),
    "intermediate": Profile("intermediate", ("1.2", "1.3"), _INTERMEDIATE, server_order=False),
    # OpenSSL 3 speaks TLS before 1.2 on level 0 alone.
    "old": Profile("old", ("1.0", "1.1", "1.2", "1.3"), _OLD, server_order=True, level=0),
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """Settings of a server: lines, and where they belong. `names` are what they set."""

    server: str
    profile: str
    place: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines with a heading that says where they go and where they come from."""
        heading = (
            f"# TLS profile {self.profile!r} for {self.server}: {self.place}",
            f"# {SOURCE}",
            *(f"# {note}" for note in _NOTES.get(self.server, ())),
        )
        return "\n".join((*heading, *self.lines)) + "\n"


def recommend(server: str, profile: str) -> Snippet:
    """Answer the settings of a profile for a server. Raises KeyError for one there is not."""
    chosen = _PROFILES[profile]
    place, write = _WRITERS[server]
    return Snippet(server, profile, place, tuple(write(chosen)))


def _nginx(p: Profile) -> list[str]:
    lines = [f"ssl_protocols {' '.join(_tls(v) for v in p.versions)};"]
    if p.suites:
        lines.append(f"ssl_ciphers {p.ciphers};")
    return [
        *lines,
        f"ssl_prefer_server_ciphers {_on(p.server_order)};",
        "ssl_ecdh_curve X25519:prime256v1:secp384r1;",
        "ssl_session_timeout 1d;",
        "ssl_session_cache shared:HostlerTLS:10m;",
        "ssl_session_tickets off;",
        f'add_header Strict-Transport-Security "max-age={TWO_YEARS_S}" always;',
    ]


def _apache(p: Profile) -> list[str]:
    spoken = " ".join(f"+{_tls(v)}" for v in p.versions)
    lines = [f"SSLProtocol -all {spoken}"]
    if p.suites:
        lines.append(f"SSLCipherSuite {p.ciphers}")
    return [
        *lines,
        f"SSLCipherSuite TLSv1.3 {':'.join(_TLS13)}",
        f"SSLHonorCipherOrder {_on(p.server_order)}",
        "SSLOpenSSLConfCmd Curves X25519:prime256v1:secp384r1",
        "SSLSessionTickets off",
        "SSLCompression off",
    ]


def _lighttpd(p: Profile) -> list[str]:
    settings = [f'"MinProtocol" => "{_tls(p.oldest)}"']
    if p.suites:
        settings.append(f'"CipherString" => "{p.ciphers}"')
    options = "ServerPreference" if p.server_order else "-ServerPreference"
    settings += [
        f'"Options" => "{options},-SessionTicket"',
        '"Curves" => "X25519:prime256v1:secp384r1"',
    ]
    return [f"ssl.openssl.ssl-conf-cmd = ({', '.join(settings)})"]


def _haproxy(p: Profile) -> list[str]:
    options = [f"ssl-min-ver {_tls(p.oldest, whole=True)}", "no-tls-tickets"]
    if not p.server_order:
        options.insert(0, "prefer-client-ciphers")
    lines = []
    if p.suites:
        lines.append(f"ssl-default-bind-ciphers {p.ciphers}")
    return [
        *lines,
        f"ssl-default-bind-ciphersuites {':'.join(_TLS13)}",
        "ssl-default-bind-curves X25519:prime256v1:secp384r1",
        f"ssl-default-bind-options {' '.join(options)}",
        *(["tune.ssl.default-dh-param 2048"] if p.suites else []),
    ]


def _postfix(p: Profile) -> list[str]:
    spoken = f">={_tls(p.oldest, whole=True)}"
    # A grade names a list of its own; of the five, the medium one is ours to write.
    suites = p.ciphers if p.suites else ":".join(_INTERMEDIATE)
    return [
        "smtpd_tls_security_level = may",
        "smtpd_tls_auth_only = yes",
        f"smtpd_tls_protocols = {spoken}",
        f"smtpd_tls_mandatory_protocols = {spoken}",
        "smtpd_tls_ciphers = medium",
        "smtpd_tls_mandatory_ciphers = medium",
        f"tls_medium_cipherlist = {suites}",
        f"tls_preempt_cipherlist = {'yes' if p.server_order else 'no'}",
        "tls_ssl_options = NO_COMPRESSION, NO_TICKET, NO_RENEGOTIATION",
        "smtpd_tls_eecdh_grade = auto",
        "tls_eecdh_auto_curves = X25519 prime256v1 secp384r1",
    ]


_HSTS = f'Strict-Transport-Security "max-age={TWO_YEARS_S}"'
#: What takes more than a setting.
_NOTES = {
    "apache": (f"Where mod_headers is loaded, also: Header always set {_HSTS}",),
    "haproxy": (f"In each frontend, also: http-response set-header {_HSTS[:25]} {_HSTS[26:]}",),
}
_WRITERS: Mapping[str, tuple[str, Callable[[Profile], list[str]]]] = {
    "nginx": ("inside of http { } or server { }", _nginx),
    "apache": ("outside of or inside of <VirtualHost>", _apache),
    "lighttpd": ("beside ssl.pemfile", _lighttpd),
    "haproxy": ("in the section global", _haproxy),
    "postfix": ("in main.cf", _postfix),
}


def _tls(version: str, *, whole: bool = False) -> str:
    """Write a version as servers do: TLSv1 stands for 1.0, unless it is wanted in full."""
    return "TLSv1" if version == "1.0" and not whole else f"TLSv{version}"


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def changed(text: str, snippet: Snippet) -> str:
    """Answer a configuration with the settings of a snippet in the place of its own.

    A setting that it has is replaced where it stands, each time that it stands there; those that it
    has not follow after the last of these, or at the end. Files that are included are not looked
    into.
    """
    wanted = _by_name(snippet)
    found: list[str] = []
    last, done = -1, set[str]()
    open_parentheses = 0
    for line in text.splitlines():
        if open_parentheses > 0:
            # What follows belongs to a setting that was replaced as a whole.
            open_parentheses += _depth(line)
            continue
        name = _name(line, snippet.server)
        if name not in wanted:
            found.append(line)
            continue
        found += [_indent(line) + each for each in wanted[name]]
        done.add(name)
        last = len(found) - 1
        open_parentheses = _depth(line) if snippet.server == "lighttpd" else 0
    missing = [each for name, many in wanted.items() if name not in done for each in many]
    if done:
        found[last + 1 : last + 1] = [_indent(found[last]) + each for each in missing]
    else:
        found += [f"# {snippet.place}:", *missing]
    return "\n".join(found) + "\n"


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _depth(line: str) -> int:
    return line.count("(") - line.count(")")


def diff(text: str, snippet: Snippet, path: str) -> str:
    """Answer how a configuration would have to change, as a unified diff; empty for not at all."""
    before, after = text.splitlines(keepends=True), changed(text, snippet)
    return "".join(
        difflib.unified_diff(before, after.splitlines(keepends=True), path, f"{path} (recommended)")
    )


_SEPARATORS = {"postfix": "=", "lighttpd": "="}


def _name(line: str, server: str) -> str:
    """Name what a line sets; empty for none. A second word counts where it makes another one."""
    bare = line.strip()
    if not bare or bare.startswith("#"):
        return ""
    if server in _SEPARATORS:
        name, separator, _ = bare.partition(_SEPARATORS[server])
        return name.strip() if separator else ""
    words = re.split(r"\s+", bare)
    if server == "apache" and [w.lower() for w in words[:2]] == ["sslciphersuite", "tlsv1.3"]:
        return "SSLCipherSuite TLSv1.3"
    return " ".join(words[:2]) if words[0] in ("add_header", "SSLOpenSSLConfCmd") else words[0]


def _by_name(snippet: Snippet) -> dict[str, list[str]]:
    """The lines of a snippet by what they set."""
    groups: dict[str, list[str]] = {}
    for line in snippet.lines:
        groups.setdefault(_name(line, snippet.server), []).append(line)
    return groups
