"""From a flaw of a library to the keys that processes with it serve, and to no others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hostler.core.ssl.compromise import Found, Use
from hostler.core.ssl.flaws import KNOWN, Door, Flaw, User, exposed, has

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEARTBLEED = KNOWN["CVE-2014-0160"]


def user(comm: str = "nginx", version: str = "1.0.1e", **more: object) -> User:
    values = {"host": "h1", "pid": 7, "unit": f"{comm}.service", "container": "", **more}
    return User(comm=comm, versions=(version,), **values)  # type: ignore[arg-type]


def found(number: int, *servers: str, host: str = "h1") -> Found:
    uses = tuple(Use(host, server, ("*:443",)) for server in servers)
    return Found(host, f"f{number}", f"k{number}", f"{number:x}", "CN=CA", (), NOW, NOW, True, uses)


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        *((f"1.0.1{letter}", True) for letter in ("", *"abcdef")),
        # Source: the advisory. 1.0.1g has the fix; the branches before never had the flaw.
        *((version, False) for version in ("1.0.1g", "1.0.0l", "0.9.8y", "1.0.2", "3.0.0")),
        ("", True),
    ],
)
def test_heartbleed_is_in_the_versions_of_its_advisory(version: str, bad: bool) -> None:
    assert has(HEARTBLEED, user(version=version)) is bad


def test_what_the_operator_names_is_the_daemons_to_compare() -> None:
    assert has(Flaw("CVE-2030-1", "libssl", "3.0.17-1~deb12u3"), user(version="1.0.1g"))


def test_all_that_a_server_is_configured_with_is_exposed_and_nothing_else() -> None:
    doors = [
        Door("h1", 7, "nginx", "nginx.service", "nginx", ("f1",)),
        Door("h1", 9, "app", "app.service", "", ("f4",)),
        Door("h2", 7, "nginx", "nginx.service", "nginx", ("f5",)),
    ]
    certificates = [
        found(1, "nginx"), found(2, "nginx"), found(3, "postfix"), found(4), found(5, host="h2"),
    ]  # fmt: skip
    told = exposed(HEARTBLEED, [user()], doors, certificates)
    # f2 is for a name that no handshake asked for; f5 is another host's.
    assert (told.keys, [u.comm for u in told.users]) == (("k1", "k2"), ["nginx"])
    # A worker of the unit that listens; one that serves what no configuration names.
    worker = user("worker", pid=8, unit="nginx.service")
    assert exposed(HEARTBLEED, [worker], doors, certificates).keys == ("k1", "k2")
    app = user("app", pid=9)
    assert exposed(HEARTBLEED, [app], doors, certificates).keys == ("k4",)
    # A container's processes have units of their own of the same name.
    inside = user("worker", pid=8, unit="nginx.service", container="c1")
    assert exposed(HEARTBLEED, [inside], doors, certificates).keyless == (inside,)
    assert exposed(HEARTBLEED, [user("smtpd", pid=11)], doors, certificates).keyless
    fixed = exposed(HEARTBLEED, [user(version="1.0.1g")], doors, certificates)
    assert fixed == exposed(HEARTBLEED, [], doors, certificates)


def test_a_server_is_known_by_its_process_where_nothing_listens_yet() -> None:
    certificates = [found(1, "apache"), found(2, "nginx")]
    told = exposed(HEARTBLEED, [user("apache2")], [], certificates)
    assert told.keys == ("k1",)
