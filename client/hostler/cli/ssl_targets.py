"""Endpoints as people write them: HOST, HOST:PORT, [IPv6]:PORT."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hostler.core.ssl.scan.connect import Endpoint

_WRITTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s/]+))(?::(\d{1,5}))?")
_HTTPS = 443
_MOST_BYTES = 16 * 1024 * 1024


class Target(click.ParamType[Any]):
    """An endpoint; a name is told from an address, and a port that is missing stays 0."""

    name = "HOST[:PORT]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Read it; a usage error if it is none."""
        if isinstance(value, tuple):
            return str(value[0]), int(value[1])
        text = str(value)
        try:
            if ip_address(text).version == 6:
                return text, 0
        except ValueError:
            pass
        found = _WRITTEN.fullmatch(text)
        if found is None or (found[3] and not 0 < int(found[3]) < 65536):
            self.fail(f"{value!r} is not HOST, HOST:PORT or [IPv6]:PORT", param, ctx)
        return found[1] or found[2], int(found[3] or 0)


def endpoints(
    written: Iterable[tuple[str, int]], name: str | None, starttls: str
) -> list[Endpoint]:
    """The endpoints, each once. Without `name` a host that is a name is its own."""
    from hostler.core.ssl.scan.connect import Endpoint
    from hostler.core.ssl.scan.starttls import PORTS

    usual = PORTS.get(starttls, _HTTPS)
    found = [
        Endpoint(host, port or usual, _own_name(host) if name is None else name, starttls)
        for host, port in written
    ]
    return list(dict.fromkeys(found))


def read_targets(path: Path) -> list[tuple[str, int]]:
    """The endpoints of a file, one a line, `#` begins a comment. Raises a usage error."""
    kind = Target()
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise click.UsageError(f"{path}: more than {_MOST_BYTES} bytes")
    found: list[tuple[str, int]] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            found.append(kind.convert(text, None, None))
        except click.BadParameter as error:
            raise click.UsageError(f"{path}:{number}: {error.message}") from error
    return found


def _own_name(host: str) -> str:
    try:
        ip_address(host)
    except ValueError:
        return host
    return ""
