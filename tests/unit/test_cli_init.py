"""`hostler init`, `ca` and what `enroll` and `retire` refuse before they ask anybody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOSTLER = Path(sys.executable).with_name("hostler")
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*words: str, status: int = 0, stdin: str = "") -> Done:
        done = subprocess.run(
            [HOSTLER, *words],
            env={"HOSTLER_CONFIG": str(tmp_path / "client/config.toml"), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            input=stdin,
            timeout=60,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


def record(done: Done) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_machine_becomes_a_ca_and_its_user_an_admin(run: Run, tmp_path: Path) -> None:
    made = record(run("-o", "json", "init", "--trust-domain", "lab", "--user", "alice"))
    assert len(made["made"]) == 4
    context = tomllib.loads(Path(made["configuration"]).read_text())["contexts"]["default"]
    assert context["certificate"] == "pki/users/alice.pem"
    shown = record(run("-o", "json", "policy", "show"))
    assert shown["members"] == {"spiffe://lab/user/alice": ["admins"]}
    run("policy", "check")
    levels = {one["level"] for one in json.loads(run("-o", "json", "doctor", "--all").stdout)}
    assert levels == {"ok", "warning"}  # The fleet has no host.


def test_a_second_time_makes_nothing_and_a_cut_one_is_ended(run: Run, tmp_path: Path) -> None:
    run("init", "--trust-domain", "lab")
    before = tree(tmp_path)
    assert "nothing: all was there" in run("init").stdout
    assert "nothing: all was there" in run("init", "--trust-domain", "lab").stdout
    assert tree(tmp_path) == before
    (tmp_path / "client/config.toml").unlink()
    assert record(run("-o", "json", "init"))["made"] == [
        f"the configuration: {tmp_path}/client/config.toml, and the fleet beside it"
    ]
    (user,) = (tmp_path / "client/pki/users").glob("*.pem")
    user.unlink()
    assert len(record(run("-o", "json", "init"))["made"]) == 1


def test_what_is_there_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    run("init", "--trust-domain", "lab")
    before = tree(tmp_path)
    assert "is a CA already" in run("init", "--trust-domain", "other", status=1).stderr
    run("init", "--user", "A B", status=2)
    assert tree(tmp_path) == before
    config = tmp_path / "client/config.toml"
    config.write_text(config.read_text().replace('pki = "pki"\n', ""))
    assert "CA on another machine" in run("init", status=2).stderr


def test_a_key_that_is_open_or_damaged_is_refused(run: Run, tmp_path: Path) -> None:
    run("init")
    key = tmp_path / "client/pki/ca.key"
    key.chmod(0o644)
    assert "chmod 600" in run("policy", "sign", status=1).stderr
    key.chmod(0o600)
    key.write_text("nothing")
    assert "ca.key" in run("policy", "sign", status=1).stderr


def test_a_lost_ca_is_restored_from_its_backup(run: Run, tmp_path: Path) -> None:
    run("init", "--trust-domain", "lab", "--user", "alice")
    secret = tmp_path / "passphrase"
    secret.write_text("a passphrase of my own\n")
    file = tmp_path / "ca.backup"
    words = (str(file), "--passphrase-file", str(secret))
    made = record(run("-o", "json", "ca", "backup", *words))
    run("ca", "backup", *words, status=1)
    run("ca", "restore", *words, status=1)
    shutil.rmtree(tmp_path / "client")
    told = record(run("-o", "json", "ca", "restore", *words))
    assert told["ca_fingerprint"] == made["ca_fingerprint"]
    assert told["bundle_version"] > made["bundle_version"]
    assert record(run("-o", "json", "init", "--user", "alice"))["trust_domain"] == "lab"
    run("policy", "check")
    run("pki", "issue", "user", "bob")
    secret.write_text("short\n")
    assert "12 bytes" in run("ca", "backup", str(tmp_path / "x"), *words[1:], status=1).stderr
    secret.unlink()
    run("ca", "backup", str(tmp_path / "x"), *words[1:], status=2)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--yes", "enroll", "No_Name", "192.0.2.1"), 2, "host name"),
        (("--yes", "enroll", "all", "192.0.2.1"), 2, "cannot be the name"),
        (("--yes", "enroll", "web1", "192.0.2.300"), 2, "reads as an address"),
        (("--yes", "enroll", "web1", "-oProxyCommand=id"), 2, "No such option"),
        (("--yes", "enroll", "web1", "a;b"), 2, "is not a label"),
        (("--yes", "enroll", "web1", "192.0.2.1", "--domains", "netns,mail"), 2, "'mail'"),
        (("--yes", "retire", "web9"), 1, "NO_SUCH_HOST"),
        (("retire", "web9"), 2, "no terminal"),
    ],
)
def test_bad_wishes_are_refused(
    run: Run, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    run("init")
    assert said in run(*words, status=status).stderr


def test_without_a_ca_it_is_said_what_makes_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    words = ("--yes", "enroll", "web1", "192.0.2.1", "--packages", str(tmp_path / "packages"))
    assert "make deb" in run(*words, status=1).stderr
