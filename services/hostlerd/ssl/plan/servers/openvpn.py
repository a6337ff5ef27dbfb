"""OpenVPN. Source: openvpn(8)."""

from __future__ import annotations

import re

from hostlerd.ssl.model.site import Parsed, Reference, Role, Setting, Site
from hostlerd.ssl.plan.servers.files import Files, Source, folder_of, joined, listener

_ROLES = {
    "cert": Role.CERTIFICATE,
    "key": Role.KEY,
    "pkcs12": Role.BOTH,
    "ca": Role.AUTHORITY,
    "extra-certs": Role.CHAIN,
    "askpass": Role.PASSPHRASE,
}
_SETTINGS = ("tls-version-min", "tls-cipher", "tls-ciphersuites", "cipher", "data-ciphers", "proto")


def parse(source: Source, path: str, folder: str = "") -> Parsed:
    """Read one configuration. Certificates that stand in it itself are found in its own file."""
    parsed = Parsed()
    files = Files(source, parsed)
    found: dict[str, Setting] = {}
    references: list[Reference] = []
    inline = ""
    for number, raw in enumerate(files.read(path).split("\n"), 1):
        line = raw.strip()
        if inline:
            inline = "" if line == f"</{inline}>" else inline
        elif tag := re.fullmatch(r"<([a-z0-9-]+)>", line):
            inline = tag[1]
            if inline in _ROLES:
                references.append(Reference(_ROLES[inline], path, inline, path, number))
        elif line and line[0] not in "#;":
            name, *words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', line)]
            found[name] = Setting(name, " ".join(words), path, number)
            if name in _ROLES and words and not words[0].startswith("["):
                file = joined(folder or folder_of(path), words[0])
                references.append(Reference(_ROLES[name], file, name, path, number))
    is_server = "server" in found or "tls-server" in found or "server-bridge" in found
    port = (
        found["port"].value
        if "port" in found
        else found["lport"].value
        if "lport" in found
        else "1194"
    )
    address = found["local"].value if "local" in found else "*"
    places = (listener(address, port),) if is_server else ()
    settings = tuple(found[name] for name in _SETTINGS if name in found)
    if references:
        parsed.sites.append(
            Site("openvpn", (), places, tuple(references), settings, True, "openvpn")
        )
    return parsed
