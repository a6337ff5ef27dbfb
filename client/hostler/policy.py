"""The editable source of the bundle: `policy.toml` and the Cedar files beside it.

`policy.toml` says who is in which group and what is revoked; comments and order of a file edited
by hand are kept. The Cedar policies are Hostler's own and those of `policies/*.cedar`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Array, Table

from hostler.config import HostlerError
from hostler.core.bundle import MAX_BUNDLE_BYTES, MAX_POLICIES, Bundle, Policy
from hostler.core.files import read_bounded
from hostler.core.names import Identity, InvalidSerial, check_group, parse_serial

SOURCE_NAME = "policy.toml"
POLICIES_FOLDER = "policies"

_HEADER = """\
# Who is in which group, and which certificates are revoked.
# `hostler policy grant | ungrant | revoke` edit this file and sign a new bundle.
# After editing it by hand: `hostler policy sign`, then `hostler policy push`.
"""
_FIELDS = {"version", "default_policies", "members", "revoked"}
# The pieces of Cedar's grammar that can hide a semicolon: texts and comments.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|;|[^";/]+|/|"', re.DOTALL)
_HEAD = re.compile(
    r'\s*((?:@[A-Za-z_]\w*\s*(?:\(\s*"(?:[^"\\]|\\.)*"\s*\))?\s*)*)(?:permit|forbid)\b', re.DOTALL
)
_ID = re.compile(r'@id\s*\(\s*"((?:[^"\\]|\\.)*)"\s*\)', re.DOTALL)
_GROUP = re.compile(r'\bGroup\s*::\s*"([^"\\]*)"')


class PolicyError(HostlerError):
    """The source of the bundle is not as it should be. The message names file and fault."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revoked certificate: its serial number and, for people, whose it was and since when."""

    serial: str
    identity: str = ""
    time: str = ""


class PolicySource:
    """The content of `policy.toml`, in memory. The caller reads and writes it under the lock."""

    def __init__(self, text: str, trust_domain: str, where: str = SOURCE_NAME) -> None:
        """Parse the text. Raises PolicyError."""
        self.trust_domain = trust_domain
        self._where = where
        try:
            self._document = tomlkit.parse(text)
        except TOMLKitError as e:
            raise PolicyError(f"{where}: {e}") from e
        if odd := sorted(self._document.keys() - _FIELDS):
            raise self._error(f"{odd[0]!r} is not one of {', '.join(sorted(_FIELDS))}")
        if not isinstance(self.default_policies, bool):
            raise self._error("default_policies must be true or false")
        # Faults are to come up now, not at the first use.
        _ = self.version, self.members(), self.revocations()

    @classmethod
    def load(cls, folder: Path, trust_domain: str) -> PolicySource:
        """Read the source of a CA's folder; an absent one is empty. Raises PolicyError, OSError."""
        path = folder / SOURCE_NAME
        try:
            text = read_bounded(path, MAX_BUNDLE_BYTES).decode()
        except FileNotFoundError:
            text = _HEADER
        except ValueError as e:
            raise PolicyError(f"{path}: {e}") from e
        return cls(text, trust_domain, str(path))

    @property
    def version(self) -> int:
        """The version of the bundle last signed from it, 0 if there is none."""
        value = self._document.unwrap().get("version", 0)
        if type(value) is not int or value < 0:
            raise self._error("version must be a whole number")
        return value

    @version.setter
    def version(self, value: int) -> None:
        self._document["version"] = value

    @property
    def default_policies(self) -> bool:
        """Whether Hostler's own policies are in the bundle."""
        value: bool = self._document.unwrap().get("default_policies", True)
        return value

    def members(self) -> dict[str, tuple[str, ...]]:
        """Answer the groups of each identity."""
        table = self._document.unwrap().get("members", {})
        if not isinstance(table, dict):
            raise self._error("members must be a table")
        for identity, groups in table.items():
            if not isinstance(groups, list) or not all(isinstance(g, str) for g in groups):
                raise self._error(f"members.{identity!r} must be a list of groups")
        return {identity: tuple(groups) for identity, groups in table.items() if groups}

    def revocations(self) -> tuple[Revocation, ...]:
        """Answer what is revoked, in the order of the file."""
        entries = self._document.unwrap().get("revoked", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise self._error("revoked must be [[revoked]] tables")
        found = []
        for entry in entries:
            if not isinstance(entry.get("serial"), str):
                raise self._error("each [[revoked]] needs a serial in quotes")
            try:
                serial = parse_serial(entry["serial"])
            except InvalidSerial as e:
                raise self._error(f"revoked: {e.reason}") from e
            about = (str(entry.get(field, "")) for field in ("identity", "time"))
            found.append(Revocation(serial, *about))
        return tuple(found)

    def grant(self, identity: Identity, group: str) -> bool:
        """Put an identity into a group; False if it is in it. Raises InvalidName."""
        check_group(group)
        members = self._members_table()
        groups = members.get(str(identity))
        if groups is None:
            members[str(identity)] = [group]
            return True
        if group in groups:
            return False
        groups.append(group)
        return True

    def ungrant(self, identity: Identity, group: str) -> bool:
        """Take an identity off a group; False if it is not in it."""
        members = self._members_table()
        groups = members.get(str(identity))
        if not isinstance(groups, Array) or group not in groups:
            return False
        groups.remove(group)
        if not groups:
            del members[str(identity)]
        return True

    def revoke(self, serial: str, identity: str, time: datetime) -> bool:
        """Revoke a certificate for good; False if it is revoked. Raises InvalidSerial."""
        serial = parse_serial(serial)
        if serial in {revocation.serial for revocation in self.revocations()}:
            return False
        entries = self._document.setdefault("revoked", tomlkit.aot())
        entry = tomlkit.table()
        entry["serial"] = serial
        if identity:
            entry["identity"] = identity
        entry["time"] = time.astimezone(UTC).replace(microsecond=0)
        if not isinstance(entries, AoT):
            raise self._error("revoked must be [[revoked]] tables")
        entries.append(entry)
        return True

    def bundle(self, policies: Iterable[Policy], created: datetime) -> Bundle:
        """Make the unsigned bundle of this source and these policies."""
        return Bundle(
            version=self.version,
            trust_domain=self.trust_domain,
            created=created,
            members=self.members(),
            policies=tuple(policies),
            revoked=frozenset(revocation.serial for revocation in self.revocations()),
        )

    def to_bytes(self) -> bytes:
        """Write the source as it goes into the file."""
        return tomlkit.dumps(self._document).encode()

    def _members_table(self) -> Table:
        table = self._document.setdefault("members", tomlkit.table())
        if not isinstance(table, Table):
            raise self._error("members must be a [members] table")
        return table

    def _error(self, description: str) -> PolicyError:
        return PolicyError(f"{self._where}: {description}")


def default_policies() -> tuple[Policy, ...]:
    """Answer Hostler's own policies."""
    text = resources.files("hostler").joinpath("policies/default.cedar").read_text("utf-8")
    return split_policies(text, "default.cedar")


def starters() -> dict[str, str]:
    """Answer policies to begin with, by name: Cedar texts for common teams."""
    folder = resources.files("hostler").joinpath("policies/starters")
    found = {entry.name: entry.read_text("utf-8") for entry in folder.iterdir()}
    return {name.removesuffix(".cedar"): found[name] for name in sorted(found)}


def read_policies(folder: Path) -> tuple[Policy, ...]:
    """Read the Cedar files of a CA's folder, by name. Raises PolicyError, OSError."""
    found: list[Policy] = []
    for path in sorted((folder / POLICIES_FOLDER).glob("*.cedar")):
        try:
            text = read_bounded(path, MAX_BUNDLE_BYTES).decode()
        except ValueError as e:
            raise PolicyError(f"{path}: {e}") from e
        found.extend(split_policies(text, str(path)))
        if len(found) > MAX_POLICIES:
            raise PolicyError(f"{path}: more than {MAX_POLICIES} policies in all")
    return tuple(found)


def collect_policies(source: PolicySource, folder: Path) -> tuple[Policy, ...]:
    """Answer all policies that go into the bundle. Raises PolicyError for a repeated id."""
    own = default_policies() if source.default_policies else ()
    policies = (*own, *read_policies(folder))
    seen: set[str] = set()
    for policy in policies:
        if policy.id in seen:
            raise PolicyError(f'@id("{policy.id}") is there twice')
        seen.add(policy.id)
    return policies


def split_policies(text: str, where: str) -> tuple[Policy, ...]:
    """Take a Cedar text apart into its policies, each with the id of its `@id` annotation.

    Checks no more of the grammar than that takes. Raises PolicyError. Source: the Cedar policy
    language's grammar, where only texts and comments can hold a semicolon.
    """
    policies: list[Policy] = []
    chunk, code = "", ""
    for piece in _PIECE.findall(text):
        chunk += piece
        if piece.startswith("//"):
            continue
        code += piece
        if piece == ";":
            policies.append(Policy(_policy_id(code, where), chunk.strip()))
            chunk, code = "", ""
    if code.strip():
        raise PolicyError(f"{where}: no semicolon ends {code.strip()[:60]!r}")
    return tuple(policies)


def mentioned_groups(policies: Iterable[Policy]) -> frozenset[str]:
    """Answer the groups that some policy names."""
    return frozenset(g for policy in policies for g in _GROUP.findall(_without_comments(policy)))


def unknown_groups(
    members: Mapping[str, tuple[str, ...]], policies: Iterable[Policy]
) -> frozenset[str]:
    """Answer the groups that have members and that no policy names: they permit nothing."""
    return frozenset(g for groups in members.values() for g in groups) - mentioned_groups(policies)


def _without_comments(policy: Policy) -> str:
    pieces = _PIECE.findall(policy.cedar)
    return "".join(piece for piece in pieces if not piece.startswith("//"))


def _policy_id(code: str, where: str) -> str:
    head = _HEAD.match(code)
    if not head:
        raise PolicyError(f"{where}: {code.strip()[:60]!r} is not a permit or forbid policy")
    ids = _ID.findall(head[1])
    if len(ids) != 1:
        raise PolicyError(f'{where}: a policy has no @id("…"): {code.strip()[:60]!r}')
    found: str = ids[0]
    return found
