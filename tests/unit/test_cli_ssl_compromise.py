"""`hostler ssl compromise`: what is refused before any host is asked, and decisions as stored."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from hostler.cli.main import cli
from hostler.core.ssl.compromise import Decision, Way
from hostler.ssl_decisions import DecisionsError, open_decisions

NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Nothing listens at that port: a host that is asked is told as one that does not answer.
    (tmp_path / "fleet.toml").write_text('[hosts.h1]\naddress = "127.0.0.1"\nports.ssl = 1\n')
    files = "".join(f'{name} = "{tmp_path}/x.pem"\n' for name in ("ca", "certificate", "key"))
    (tmp_path / "config.toml").write_text(
        f'current = "a"\n[contexts.a]\n{files}fleet = "{tmp_path}/fleet.toml"\n'
        'trust_domain = "example.net"\n'
    )
    return tmp_path


def run(folder: Path, *words: str) -> tuple[int, str]:
    environment = {"HOSTLER_CONFIG": str(folder / "config.toml"), "XDG_STATE_HOME": str(folder)}
    argv = ["-H", "h1", "--yes", "ssl", "compromise", *words]
    done = CliRunner().invoke(cli, argv, env=environment)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plan",), "give --key, --of-host or --cve"),
        (("plan", "--key", "aa", "--library", "openssl"), "go with --cve"),
        (("plan", "--cve", "CVE-2030-1"), "is not known here (CVE-2014-0160"),
        (("plan", "--cve", "CVE-2030-1", "--fixed-in", "3"), "both --library and --fixed-in"),
        (("execute", "--way", "reissue"), "give a PLAN or --key"),
        (("execute", "--key", "aa"), "Missing option '--way'"),
        (("execute", "--key", "aa", "--way", "burn"), "is not one of"),
        (("execute", "--key", "aa", "--way", "reissue", "--owner", "ann"), "go with --way keep"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, words: tuple[str, ...], told: str) -> None:
    status, said = run(folder, *words)
    assert status == 2 and told in said, said


@pytest.mark.parametrize("text", ["", "[]", '{"keys": 1}', '{"other": []}', "\xff"])
def test_what_is_no_plan_is_told_with_its_file(folder: Path, text: str) -> None:
    (folder / "plan.json").write_text(text, "latin-1")
    status, said = run(folder, "execute", str(folder / "plan.json"), "--way", "reissue")
    assert status != 0 and f"{folder}/plan.json: not a plan" in said, said


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), "say the reason"),
        (("--reason", "lab"), "say the owner"),
        (("--reason", "lab", "--owner", "ann"), "a date of review"),
        (("--reason", "lab", "--owner", "ann", "--review", "2001-01-01"), "a date of review"),
        (("--reason", "x" * 1001, "--owner", "ann", "--review", "2001-01-01"), "longer than"),
    ],
)
def test_nothing_is_kept_without_reason_owner_and_review(
    folder: Path, more: tuple[str, ...], told: str
) -> None:
    status, said = run(folder, "execute", "--key", "aa", "--way", "keep", *more)
    assert status == 2 and told in said, said
    assert not list(folder.glob("**/*.sqlite"))


def decision(number: int, reason: str = "lab only", days: float = 30) -> Decision:
    return Decision(f"f{number}", Way.KEEP, reason, "ann", NOW + timedelta(days=days))


def test_the_newest_decision_of_a_certificate_stands_and_the_others_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/d.sqlite"
    with open_decisions(url) as store:
        store.add([decision(1), decision(2)], "user/ann")
        store.add([decision(1, "until the move", -1)], "user/bob")
        store.add([], "user/bob")
    with open_decisions(url) as store:
        found = store.newest([f"f{number}" for number in range(1300)])
    assert {name: (r.decision.reason, r.who) for name, r in found.items()} == {
        "f1": ("until the move", "user/bob"),
        "f2": ("lab only", "user/ann"),
    }
    assert (found["f1"].is_overdue(NOW), found["f2"].is_overdue(NOW)) == (True, False)
    assert json.loads(json.dumps(found["f1"].as_dict(NOW)))["overdue"] is True
    with sqlite3.connect(tmp_path / "d.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM ssl_decisions").fetchone() == (3,)
        connection.execute("UPDATE ssl_decisions_schema_version SET version = 99")
    with pytest.raises(DecisionsError, match="made by a newer hostler"):
        open_decisions(url)
