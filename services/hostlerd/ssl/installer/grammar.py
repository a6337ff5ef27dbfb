"""The closed grammar of requests: every key and every value that the installer understands.

A key that is not listed, a value of another type or out of its bounds: the request is refused, with
all its faults at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from zoneinfo import ZoneInfo

from hostlerd.privileged.grammar import (
    ACCOUNT,
    Check,
    array,
    flag,
    one_of,
    record,
    text,
    whole,
)
from hostlerd.privileged.refused import Fault, Refused
from hostlerd.ssl.installer.starttls import DIALOGUES

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PATH = re.compile(r"(/[^/\0\n]{1,255}){1,32}")
UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,200}\.service")
LISTENER = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15}):([1-9][0-9]{0,4})")
DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}")
KEY_AUTHORIZATION = re.compile(r"[A-Za-z0-9_-]{16,256}\.[A-Za-z0-9_-]{43}")

KEY_KINDS = ("ec256", "ec384", "rsa2048", "rsa3072", "rsa4096", "ed25519")
KINDS = ("nginx", "apache", "lighttpd", "haproxy", "postfix", "dovecot", "postgresql")
MAX_PEM = 1 << 20
MAX_SUBJECT_NAMES = 100
MAX_SERVERS = 8
MAX_LISTENERS = 8
MAX_ITEMS = 500
DAY_S = 24 * 3600


def path_name(value: Any, path: str, faults: list[Fault]) -> None:
    """An absolute path without `.` and `..`."""
    text(PATH)(value, path, faults)
    if isinstance(value, str) and {".", ".."} & set(value.split("/")):
        faults.append((path, "must not have . or .. in it"))


def subject_name(value: Any, path: str, faults: list[Fault]) -> None:
    """A DNS name, with a * as its first label perhaps, or an address."""
    if isinstance(value, str) and DNS_NAME.fullmatch(value):
        return
    try:
        ip_address(value if isinstance(value, str) else "")
    except ValueError:
        faults.append((path, "must be a DNS name or an IP address"))


def listener(value: Any, path: str, faults: list[Fault]) -> None:
    """ADDRESS:PORT, an IPv6 address in brackets."""
    found = LISTENER.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None or int(found[2]) > 65535:
            raise ValueError
        ip_address(found[1].strip("[]"))
    except ValueError:
        faults.append((path, "must be ADDRESS:PORT, with an IPv6 address in brackets"))


def time_zone(value: Any, path: str, faults: list[Fault]) -> None:
    """The name of a time zone that this host knows."""
    try:
        ZoneInfo(value)
    except (ValueError, TypeError, OSError, LookupError):
        faults.append((path, "is no time zone that this host knows"))


def _file(secret: bool) -> Check:
    """A file that is put in place; one that holds a key is not for everybody."""
    shape = record(
        {
            "path": path_name,
            "owner": text(ACCOUNT),
            "group": text(ACCOUNT),
            "mode": whole(0o400, 0o777),
        },
        required=("path", "owner", "group", "mode"),
    )

    def check(value: Any, path: str, faults: list[Fault]) -> None:
        before = len(faults)
        shape(value, path, faults)
        if len(faults) > before:
            return
        mode = value["mode"]
        if mode & 0o022 or mode & 0o111:
            faults.append((f"{path}.mode", "must not let others than the owner write, nor execute"))
        if secret and mode & 0o007:
            faults.append((f"{path}.mode", "must not let everybody read a key"))

    return check


WINDOW = record(
    {"start": text(CLOCK), "duration_s": whole(60, DAY_S), "time_zone": time_zone},
    required=("start", "duration_s", "time_zone"),
)
SERVER = record(
    {
        "kind": one_of(*KINDS),
        "unit": text(UNIT),
        "listeners": array(listener, 1, MAX_LISTENERS),
        "starttls": one_of("", *DIALOGUES),
        "window": WINDOW,
    },
    required=("kind", "unit", "listeners", "starttls"),
)
DEPLOYMENT = record(
    {
        "name": text(NAME),
        "subject_names": array(subject_name, 1, MAX_SUBJECT_NAMES),
        "key": _file(secret=True),
        "certificate": _file(secret=False),
        "chain": _file(secret=False),
        "full_chain": _file(secret=False),
        "bundle": _file(secret=True),
        "servers": array(SERVER, 0, MAX_SERVERS),
        "key_kind": one_of(*KEY_KINDS),
    },
    required=("name", "subject_names", "servers", "key_kind"),
)
FILES = ("key", "certificate", "chain", "full_chain", "bundle")

_PEM = text(re.compile(r"[\x09\x0a\x0d\x20-\x7e]+"), MAX_PEM)
_ITEM = record({"deployment": DEPLOYMENT, "pem": _PEM}, ("deployment", "pem"))
_OPS: Mapping[str, Check] = {
    "make_key": record({"op": text(NAME, 32), "deployment": DEPLOYMENT}, ("deployment",)),
    "check": record({"op": text(NAME, 32), "deployment": DEPLOYMENT}, ("deployment",)),
    "request": record(
        {"op": text(NAME, 32), "deployment": DEPLOYMENT, "waiting": flag},
        ("deployment", "waiting"),
    ),
    "install": record({"op": text(NAME, 32), "items": array(_ITEM, 1, MAX_ITEMS)}, ("items",)),
    "status": record(
        {"op": text(NAME, 32), "deployment": DEPLOYMENT, "handshake": flag}, ("deployment",)
    ),
    "read_chain": record({"op": text(NAME, 32), "path": path_name}, ("path",)),
    "write_chain": record({"op": text(NAME, 32), "path": path_name, "pem": _PEM}, ("path", "pem")),
    "reload_due": record({"op": text(NAME, 32)}),
    "reload_time": record({"op": text(NAME, 32)}),
    "forget": record({"op": text(NAME, 32), "name": text(NAME)}, ("name",)),
    "publish": record(
        {
            "op": text(NAME, 32),
            "webroot": path_name,
            "token": text(TOKEN),
            "content": text(KEY_AUTHORIZATION),
        },
        ("webroot", "token", "content"),
    ),
    "withdraw": record(
        {"op": text(NAME, 32), "webroot": path_name, "token": text(TOKEN)}, ("webroot", "token")
    ),
}


def check_request(request: Any) -> dict[str, Any]:
    """Answer a request that has passed the grammar. Raises Refused with all faults."""
    if not isinstance(request, dict) or request.get("op") not in _OPS:
        raise Refused("MALFORMED", "the request names no operation that there is")
    faults: list[Fault] = []
    _OPS[request["op"]](request, "", faults)
    if not faults:
        asked = [request] if "deployment" in request else request.get("items", ())
        for each in asked:
            _whole_deployment(each["deployment"], faults)
        _apart([each["deployment"] for each in asked], faults)
    if faults:
        told = "; ".join(f"{f}: {d}" for f, d in faults[:5])
        raise Refused("INVALID", told, faults[:100])
    return request


def _apart(asked: list[Mapping[str, Any]], faults: list[Fault]) -> None:
    """No two deployments of one run have a name or a file in common."""
    names = [one["name"] for one in asked]
    paths = [one[f]["path"] for one in asked for f in FILES if f in one]
    if len(set(names)) < len(names) or len(set(paths)) < len(paths):
        faults.append(("items", "have a name or a file in common"))


def _whole_deployment(one: Mapping[str, Any], faults: list[Fault]) -> None:
    """What no single field tells."""
    if not {"key", "bundle"} & one.keys():
        faults.append(("deployment.key", "there must be a file for the key, or a bundle"))
    if not {"certificate", "full_chain", "bundle"} & one.keys():
        faults.append(("deployment.full_chain", "there must be a file for the certificate"))
