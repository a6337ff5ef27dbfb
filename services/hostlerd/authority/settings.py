"""What the host's administrator lets the authority issue: table [authority] of hostler.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hostler.core import files
from hostler.core.names import InvalidField
from hostler.core.ssl.authority.issue import Published
from hostler.core.ssl.authority.profile import Profile, read_profiles

PATH = Path("/etc/hostler/hostler.toml")
MAX_BYTES = 1 << 20
_URL = re.compile(r"http://[A-Za-z0-9.\-\[\]:]{1,255}(?:/[A-Za-z0-9._~/-]{0,200})?", re.ASCII)
_IDENTITY = re.compile(r"(?:user|host)/[a-z0-9._-]{0,63}\*?", re.ASCII)
_KEYS = {"publish_url", "crl_hours", "profiles", "identities"}


class SettingsInvalid(Exception):
    """hostler.toml cannot be used; the message names the key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Table [authority]. Without one, nothing is issued.

    `identities` are those of Hostler that may be issued, such as "host/web1" or "host/*"; their
    names beside their own are those that `identity_names` allows. `publish_url` is where callers
    reach the responder; empty: certificates do not say.
    """

    publish_url: str = ""
    crl_lifetime: timedelta = timedelta(hours=24)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    identities: tuple[str, ...] = ()
    identity_names: Profile = field(default_factory=lambda: Profile("identities"))

    def published(self, issuer: str) -> Published:
        """Where one of the authority's issuers publishes."""
        url = self.publish_url.rstrip("/")
        if not url:
            return Published()
        return Published(f"{url}/{issuer}.cer", f"{url}/{issuer}.crl", f"{url}/ocsp")

    def may_be(self, identity: str) -> bool:
        """Whether an identity, "user/NAME" or "host/NAME", may be issued."""
        return any(
            identity.startswith(pattern[:-1]) if pattern.endswith("*") else identity == pattern
            for pattern in self.identities
        )


def read(path: Path = PATH) -> Settings:
    """Read the table. Raises SettingsInvalid."""
    try:
        text = files.read_bounded(path, MAX_BYTES).decode()
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as e:
        raise SettingsInvalid(f"{path}: {e}") from e
    try:
        table = tomllib.loads(text).get("authority", {})
        return _settings(_table(table, "authority"))
    except tomllib.TOMLDecodeError as e:
        raise SettingsInvalid(f"{path}: {e}") from e
    except InvalidField as e:
        raise SettingsInvalid(f"{path}: authority.{e.field}: {e.reason}") from e


def _settings(table: Mapping[str, Any]) -> Settings:
    for key in table:
        if key not in _KEYS:
            raise InvalidField(key, "is not known")
    url = table.get("publish_url", "")
    if url and (not isinstance(url, str) or not _URL.fullmatch(url)):
        raise InvalidField("publish_url", "must be http://HOST[:PORT][/PATH]")
    hours = table.get("crl_hours", 24)
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 1 <= hours <= 2400:
        raise InvalidField("crl_hours", "must be 1 to 2400")
    identities = dict(_table(table.get("identities", {}), "identities"))
    allowed = identities.pop("allowed", [])
    if not isinstance(allowed, list) or not all(
        isinstance(word, str) and _IDENTITY.fullmatch(word) for word in allowed
    ):
        raise InvalidField("identities.allowed", "must be a list of such as 'host/*', 'user/ann'")
    odd = sorted(set(identities) - {"dns_names", "networks"})
    if odd:
        raise InvalidField(f"identities.{odd[0]}", "is not known")
    return Settings(
        url,
        timedelta(hours=hours),
        read_profiles(_table(table.get("profiles", {}), "profiles")),
        tuple(allowed),
        read_profiles({"identities": identities})["identities"],
    )


def _table(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidField(at, "must be a table")
    return value
