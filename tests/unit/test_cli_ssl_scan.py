"""`hostler ssl scan` and `ssl diff` with OpenSSL's server, configured otherwise between scans."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ssl_pki import Pki
from ssl_process import free_port, running

from hostler.cli.main import cli
from hostler.ssl_history import HistoryError, Key, open_history
from hostler.ssl_history_diff import compare


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ssl.sqlite"


@contextmanager
def server(pki: Pki, port: int, log: Path, *options: str, leaf: str = "rsa") -> Iterator[None]:
    argv = [
        *("/usr/bin/openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www"),
        *("-cert", pki[f"{leaf}.pem"], "-key", pki[f"{leaf}.key"], "-cert_chain", pki["ca.pem"]),
    ]
    with running([*argv, *options], [port], log):
        yield


def run(*argv: str) -> Result:
    return CliRunner().invoke(cli, argv)


def test_a_sweep_and_what_has_changed_since(pki: Pki, tmp_path: Path, store: str) -> None:
    port = free_port()
    where = f"127.0.0.1:{port}"
    asked = ("ssl", "scan", where, "--name", "localhost", "--store", store, "--checks")
    checks = "certificates,features,alpn"
    trusting = ("--ca", pki["root.pem"])
    old = ("-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0")
    with server(pki, port, tmp_path / "log", *old):
        first = run("-o", "json", *asked, checks, *trusting)
    assert first.exit_code == 0, first.output
    (told,) = json.loads(first.stdout)
    assert told["grade"]["letter"] == "B"
    assert told["certificates"][0]["trust"]["verdict"] == "trusted"
    assert [each["name"] for each in told["versions"]["TLSv1.2"]["suites"]] == [
        "TLS_RSA_WITH_AES_128_CBC_SHA"
    ]
    between = time.time()
    with server(pki, port, tmp_path / "log", "-alpn", "h2", leaf="ec"):
        second = run(*asked, checks, *trusting)
        # Fewer checks find less, which is no change.
        third = run(*asked, "alpn")
    assert second.exit_code == 0 and third.exit_code == 0, second.output + third.output
    assert "TLSv1.3: 3 suites" in second.stdout and "ALPN: h2" in second.stdout
    found = run("-o", "json", "ssl", "diff", where, "--store", store)
    assert json.loads(found.stdout)[0]["changes"] == []

    with open_history(store) as history:
        newest = history.newest(Key(where, "localhost"), limit=3)
    assert [each.time < between * 1e9 for each in newest] == [False, False, True]
    texts = [str(each) for each in compare(newest[2].result, newest[1].result)]
    assert "version TLSv1.3: now accepted" in texts
    assert "suite TLSv1.2 TLS_RSA_WITH_AES_128_CBC_SHA: no longer accepted" in texts
    assert "alpn h2: now agreed to" in texts
    assert "grade: B is now A" in texts
    assert any(each.startswith("certificates ECDSA chain: now ") for each in texts)
    assert any(each.startswith("certificates RSA chain: no longer ") for each in texts)
    assert not [each for each in texts if each.startswith(("resumption", "http", "heartbleed"))]


def test_endpoints_that_fail_are_named_and_the_rest_goes_on(
    pki: Pki, tmp_path: Path, store: str
) -> None:
    port, nobody = free_port(), free_port()
    file = tmp_path / "sites.txt"
    file.write_text(f"# sites\n127.0.0.1:{nobody}\n127.0.0.1:{port}  # ours\n127.0.0.1:{port}\n")
    options = ("--targets", str(file), "--name", "localhost", "--checks", "", "--store", store)
    with server(pki, port, tmp_path / "log", "-tls1_2"):
        found = run("ssl", "scan", *options)
        lines = run("-o", "ndjson", "--no-record", "ssl", "scan", *options).stdout.splitlines()
    assert found.exit_code == 1
    assert f"127.0.0.1:{port}" in found.stdout and f"127.0.0.1:{nobody}" not in found.stdout
    assert f"127.0.0.1:{nobody}: UNREACHABLE: Connection refused" in found.stderr
    documents = [json.loads(each) for each in lines]
    assert len(documents) == 2
    assert {each.get("failure", {}).get("code") for each in documents} == {None, "UNREACHABLE"}
    with open_history(store) as history:
        assert len(history.endpoints()) == 2
        assert len(history.newest(Key(f"127.0.0.1:{port}", "localhost"), limit=9)) == 1
    assert "no two scans" in run("ssl", "diff", "--store", store).stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "at least one"),
        (("host:0",), "is not HOST"),
        (("host:65536",), "is not HOST"),
        (("a/b",), "is not HOST"),
        (("::1:x",), "is not HOST"),
        (("host", "--checks", "bananas"), "no bananas; there are"),
        (("host", "--starttls", "gopher"), "is not one of"),
    ],
)
def test_wrong_usage(argv: tuple[str, ...], said: str) -> None:
    found = run("--no-record", "ssl", "scan", *argv)
    assert found.exit_code == 2 and said in found.output


def test_what_is_no_ca_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing\n")
    found = run("--no-record", "ssl", "scan", "host", "--ca", str(file))
    assert found.exit_code == 2 and "neither PEM nor DER" in found.output


def test_a_diff_of_what_was_never_scanned(store: str) -> None:
    found = run("ssl", "diff", "host:443", "--store", store)
    assert found.exit_code != 0 and "no scan of these endpoints" in found.output


def test_the_store_keeps_the_newest_and_refuses_a_newer_version(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ssl.sqlite"
    result: dict[str, Any] = {"endpoint": "h:443", "name": "", "starttls": ""}
    with open_history(url) as history:
        for number in range(203):
            history.add([{**result, "number": number}])
        kept = history.newest(Key("h:443"), limit=1000)
        assert [each.result["number"] for each in kept] == list(range(202, 2, -1))
        from sqlalchemy import update

        from hostler.ssl_history_schema import schema

        with history.begin() as connection:
            connection.execute(update(schema).values(version=99))
    with pytest.raises(HistoryError, match="newer"):
        open_history(url)
