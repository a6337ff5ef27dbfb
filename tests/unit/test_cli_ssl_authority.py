"""`hostler ssl authority`: what is refused before any host is asked, and the key that it makes."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from hostler.cli.main import cli
from hostler.config import ConfigError
from hostler.core.ssl.authority.request import read_request
from hostler.ssl_authority import make_csr, read_csr


def run(*words: str, folder: Path) -> tuple[int, str]:
    environment = {"HOSTLER_CONFIG": str(folder / "config.toml")}
    done = CliRunner().invoke(cli, ["-H", "h1", "ssl", "authority", *words], env=environment)
    return done.exit_code, done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fleet.toml").write_text('[hosts.h1]\naddress = "127.0.0.1"\n')
    files = "".join(f'{name} = "{tmp_path}/x.pem"\n' for name in ("ca", "certificate", "key"))
    (tmp_path / "config.toml").write_text(
        f'current = "a"\n[contexts.a]\n{files}fleet = "{tmp_path}/fleet.toml"\n'
        'trust_domain = "example.net"\n'
    )
    return tmp_path


def test_a_request_and_a_key_are_one_or_the_other(folder: Path) -> None:
    out = str(folder / "out.pem")
    for words in ((), ("--csr", "a", "--key", "b")):
        status, told = run("issue", "server", *words, "--out", out, folder=folder)
        assert status == 2, told
        assert "give either --csr, or --key" in told
    assert not (folder / "out.pem").exists()


def test_what_is_no_request_is_told_with_its_file(folder: Path) -> None:
    (folder / "garbage").write_bytes(b"garbage")
    (folder / "large").write_bytes(b"0" * 70_000)
    for name, why in (("garbage", "is not a PKCS"), ("large", "larger"), ("missing", "No such")):
        with pytest.raises(ConfigError, match=why) as caught:
            read_csr(folder / name)
        assert str(folder / name) in str(caught.value)


def test_a_key_is_made_once_and_for_its_owner_alone(folder: Path) -> None:
    key = folder / "web.key"
    first = read_request(make_csr(key, ["www.example.net", "192.0.2.1", "2001:db8::1"]))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert first.names.dns == ("www.example.net",)
    assert [str(a) for a in first.names.addresses] == ["192.0.2.1", "2001:db8::1"]
    again = read_request(make_csr(key, ["other.example.net"]))
    assert again.spki_sha256 == first.spki_sha256
    argv = ["/usr/bin/openssl", "req", "-inform", "DER", "-verify", "-noout"]
    checked = subprocess.run(argv, input=make_csr(key, ["a.net"]), capture_output=True, timeout=60)
    assert b"verify OK" in checked.stdout + checked.stderr
    key.write_text("no key")
    with pytest.raises(ConfigError, match="not a PEM key"):
        make_csr(key, [])


def test_a_reason_is_one_of_the_standards(folder: Path) -> None:
    status, told = run("revoke", "1f", "--reason", "whim", folder=folder)
    assert status == 2
    assert "key-compromise" in told
