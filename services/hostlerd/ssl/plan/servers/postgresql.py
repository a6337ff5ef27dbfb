"""PostgreSQL. Source: postgresql.org, Secure TCP/IP Connections with SSL; Setting Parameters."""

from __future__ import annotations

import re

from hostlerd.ssl.model.site import Parsed, Reference, Role, Setting, Site
from hostlerd.ssl.plan.servers.files import Files, Source, folder_of, is_on, joined, listener

_LINE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:=|\s)\s*('(?:[^'\\]|''|\\.)*'|[^\s#]+)")
_SETTINGS = (
    *("ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_ecdh_curve", "ssl_dh_params_file"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
)
_ROLES = {
    "ssl_cert_file": (Role.CERTIFICATE, "server.crt"),
    "ssl_key_file": (Role.KEY, "server.key"),
    "ssl_ca_file": (Role.AUTHORITY, ""),
}


def parse(source: Source, path: str, data: str = "") -> Parsed:
    """Read postgresql.conf, what it includes, and postgresql.auto.conf of the data directory."""
    parsed = Parsed()
    files = Files(source, parsed)
    found: dict[str, Setting] = {}
    _read(files, path, found, 0)
    folder = data or (
        found["data_directory"].value if "data_directory" in found else folder_of(path)
    )
    automatic = f"{folder}/postgresql.auto.conf"
    if files.glob(automatic):
        _read(files, automatic, found, 1)
    if "ssl" not in found or not is_on(found["ssl"].value):
        return parsed
    references = []
    for name, (role, default) in _ROLES.items():
        of = found.get(name, Setting(name, default, path, 0))
        if of.value:
            references.append(Reference(role, joined(folder, of.value), name, of.path, of.line))
    if "ssl_passphrase_command" in found:
        parsed.note("PASSPHRASE_PROGRAM", "a program answers passphrases, not run", path)
    port = found["port"].value if "port" in found else "5432"
    addresses = found["listen_addresses"].value if "listen_addresses" in found else "localhost"
    places = tuple(
        listener("127.0.0.1" if each == "localhost" else each, port)
        for each in re.split(r"[,\s]+", addresses)
        if each
    )
    settings = tuple(found[name] for name in _SETTINGS if name in found)
    if places:
        parsed.sites.append(
            Site("postgresql", (), places, tuple(references), settings, True, "postgres")
        )
    return parsed


def _read(files: Files, path: str, found: dict[str, Setting], depth: int) -> None:
    for number, line in enumerate(files.read(path, depth).split("\n"), 1):
        match = _LINE.match(line)
        if match is None:
            continue
        name, value = match[1].lower(), match[2]
        if value.startswith("'"):
            value = re.sub(r"''|\\(.)", lambda m: m[1] or "'", value[1:-1])
        if name == "include_dir":
            listed = files.glob(joined(folder_of(path), value))
        elif name in ("include", "include_if_exists"):
            listed = files.glob(joined(folder_of(path), value))
        else:
            found[name] = Setting(name, value, path, number)
            continue
        for each in listed:
            if name != "include_dir" or each.endswith(".conf"):
                _read(files, each, found, depth + 1)
