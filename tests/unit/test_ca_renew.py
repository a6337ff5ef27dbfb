"""Certificates are renewed from two thirds of their lives on: of users here, of hosts one first."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hostler.cli.main import cli
from hostler.core.certificates import Certificate, Validity
from hostler.enrolment.renew import Fate, Renewal, Renewing
from hostler.fleet import Host
from hostler.pki import Authority

DAY = timedelta(days=1)


@given(st.integers(1, 10**8), st.floats(0, 1))
def test_it_is_due_at_two_thirds(life_s: int, share: float) -> None:
    begin = datetime(2030, 1, 1, tzinfo=UTC)
    life = timedelta(seconds=life_s)
    one = Certificate("host", "h", "", "", begin, begin + life, (), (), "")
    assert abs(one.renew_time - begin - life * 2 / 3) <= timedelta(microseconds=2)
    assert begin < one.renew_time < one.not_after


@pytest.fixture
def place(tmp_path: Path) -> Path:
    ca = Authority.create(tmp_path / "pki", "test.hostler")
    now = datetime.now(UTC)
    ca.issue_user("new", validity=Validity(now - DAY, now + 9 * DAY))
    ca.issue_user("old", validity=Validity(now - 9 * DAY, now + DAY))
    ca.issue_user("ended", validity=Validity(now - 9 * DAY, now - DAY))
    (tmp_path / "fleet.toml").write_text("")
    (tmp_path / "config.toml").write_text(
        'current = "a"\n[contexts.a]\ntrust_domain = "test.hostler"\nfleet = "fleet.toml"\n'
        'ca = "pki/ca.pem"\ncertificate = "pki/users/new.pem"\nkey = "pki/users/new.key"\n'
        'pki = "pki"\n'
    )
    return tmp_path


def run(place: Path, *words: str, status: int = 0) -> dict[str, Any]:
    environment = {"HOSTLER_CONFIG": str(place / "config.toml")}
    done = CliRunner().invoke(cli, ["-o", "json", *words], env=environment)
    assert done.exit_code == status, done.output
    return {each["name"]: each["fate"] for each in json.loads(done.stdout)}


def test_users_are_renewed_in_their_places_and_only_those_that_are_due(place: Path) -> None:
    files = {path.name: path.read_bytes() for path in (place / "pki/users").iterdir()}
    due = {"user/new": "good", "user/old": "due", "user/ended": "due"}
    assert run(place, "--plan", "ca", "renew") == due
    assert files == {path.name: path.read_bytes() for path in (place / "pki/users").iterdir()}
    done = {"user/new": "good", "user/old": "renewed", "user/ended": "renewed"}
    assert run(place, "--yes", "ca", "renew") == done
    now = {path.name: path.read_bytes() for path in (place / "pki/users").iterdir()}
    assert {name for name in now if now[name] != files[name]} == {
        *("old.pem", "old.key", "ended.pem", "ended.key")
    }
    assert set(run(place, "--yes", "ca", "renew").values()) == {"good"}
    assert set(run(place, "--yes", "ca", "renew", "--force").values()) == {"renewed"}


def test_without_a_terminal_and_yes_nothing_is_renewed(place: Path) -> None:
    environment = {"HOSTLER_CONFIG": str(place / "config.toml")}
    assert CliRunner().invoke(cli, ["ca", "renew"], env=environment).exit_code == 2


class Told(Renewing):
    """Hosts whose fates are known beforehand."""

    def __init__(self, fates: dict[str, Fate]) -> None:
        self.fates = fates
        self.begun: list[str] = []

    async def _renew(self, host: Host) -> Renewal:
        self.begun.append(host.name)
        if self.fates[host.name] is Fate.FAILED:
            raise OSError("gone")
        return Renewal(host.name, self.fates[host.name])


@given(st.lists(st.sampled_from([Fate.GOOD, Fate.RENEWED, Fate.FAILED]), max_size=8))
async def test_one_host_goes_first_and_if_it_fails_no_other_is_touched(fates: list[Fate]) -> None:
    hosts = [Host(name=f"h{n}", address="192.0.2.1") for n in range(len(fates))]
    told = Told({host.name: fate for host, fate in zip(hosts, fates, strict=True)})
    done = await told.renew(hosts)
    assert [each.name for each in done] == [host.name for host in hosts]
    first = next((n for n, fate in enumerate(fates) if fate is not Fate.GOOD), len(fates))
    if first < len(fates) and fates[first] is Fate.FAILED:
        assert told.begun == [host.name for host in hosts[: first + 1]]
        assert all(each.fate is Fate.FAILED for each in done[first:])
        assert all("not begun" in each.problem for each in done[first + 1 :])
    else:
        assert sorted(told.begun) == sorted(host.name for host in hosts)
        assert [each.fate for each in done] == fates
