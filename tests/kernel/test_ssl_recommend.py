"""What is recommended, held against the servers: they take it, and get the grade."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ssl_authority import Authority, pem
from ssl_servers import free_port, running

from hostler.cli.main import cli
from hostler.core.ssl.recommend import GRADES, PROFILES, SERVERS, changed, diff, recommend
from hostler.core.ssl.scan.connect import Endpoint
from hostler.core.ssl.scan.scan import scan

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, apart and together."""
    place = tmp_path_factory.mktemp("ssl")
    authority = Authority("test")
    leaf, key = authority.issue_for("a.test")
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (place / "full.pem").write_text(pem(leaf, authority.intermediate))
    (place / "key.pem").write_bytes(own)
    (place / "bundle.pem").write_bytes(own + (place / "full.pem").read_bytes())
    return place


def nginx(text: str, files: Path, place: Path, port: int) -> tuple[list[Any], list[Any]]:
    path = place / "nginx.conf"
    path.write_text(
        f"daemon off; pid {place}/pid; error_log {place}/log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {place}/a; proxy_temp_path {place}/b;\n"
        f"fastcgi_temp_path {place}/c; uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;\n"
        f"{text}\nserver {{ listen 127.0.0.1:{port} ssl; ssl_certificate {files}/full.pem;\n"
        f"ssl_certificate_key {files}/key.pem; return 204; }} }}\n"
    )
    return ["/usr/sbin/nginx", "-t", "-c", path], ["/usr/sbin/nginx", "-c", path]


def apache(text: str, files: Path, place: Path, port: int) -> tuple[list[Any], list[Any]]:
    path, modules = place / "apache.conf", "/usr/lib/apache2/modules"
    loaded = ("mpm_event", "authz_core", "headers", "socache_shmcb", "ssl")
    lines = [f"LoadModule {m}_module {modules}/mod_{m}.so" for m in loaded]
    path.write_text(
        "\n".join(lines) + f"\nServerRoot {place}\nServerName a.test\nPidFile {place}/pid\n"
        f"DefaultRuntimeDir {place}\nErrorLog {place}/log\nListen 127.0.0.1:{port}\n{text}\n"
        f"<VirtualHost *:{port}>\nSSLEngine on\nSSLCertificateFile {files}/full.pem\n"
        f"SSLCertificateKeyFile {files}/key.pem\n</VirtualHost>\n"
    )
    base = ["/usr/sbin/apache2", "-f", path]
    return [*base, "-t"], [*base, "-D", "FOREGROUND"]


def lighttpd(text: str, files: Path, place: Path, port: int) -> tuple[list[Any], list[Any]]:
    path = place / "lighttpd.conf"
    path.write_text(
        f'server.modules = ("mod_openssl")\nserver.document-root = "{place}"\n'
        f'server.bind = "127.0.0.1"\nserver.port = {port}\nssl.engine = "enable"\n'
        f'ssl.pemfile = "{files}/bundle.pem"\n{text}\n'
    )
    base = ["/usr/sbin/lighttpd", "-f", path]
    return [*base, "-tt"], [*base, "-D"]


def haproxy(text: str, files: Path, place: Path, port: int) -> tuple[list[Any], list[Any]]:
    path = place / "haproxy.cfg"
    path.write_text(
        f"global\n{text}\ndefaults\n mode http\n timeout connect 5s\n timeout client 5s\n"
        f" timeout server 5s\nfrontend f\n bind 127.0.0.1:{port} ssl crt {files}/bundle.pem\n"
        " http-request return status 204\n"
    )
    base = ["/usr/sbin/haproxy", "-f", path]
    return [*base, "-c", "-q"], [*base, "-db"]


CONFIGURE = {"nginx": nginx, "apache": apache, "lighttpd": lighttpd, "haproxy": haproxy}
VERSIONS = {"1.0": "tls1", "1.1": "tls1_1", "1.2": "tls1_2", "1.3": "tls1_3"}
SPOKEN = {
    "modern": {"1.3"},
    "intermediate": {"1.2", "1.3"},
    "old": {"1.0", "1.1", "1.2", "1.3"},
}


def speaks(port: int) -> set[str]:
    """The versions that openssl gets a handshake with, when it is told to try anything."""
    found = set()
    for version, option in VERSIONS.items():
        done = subprocess.run(
            [
                *("openssl", "s_client", f"-{option}", "-connect", f"127.0.0.1:{port}"),
                *("-cipher", "ALL:@SECLEVEL=0"),
            ],
            input=b"",
            capture_output=True,
            timeout=60,
            check=False,
        )
        if b"Cipher is (NONE)" not in done.stdout and b"Cipher is " in done.stdout:
            found.add(version)
    return found


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("server", sorted(CONFIGURE))
def test_the_server_takes_it_speaks_just_that_and_gets_its_grade(tmp_path, files, server, profile):
    port = free_port()
    text = recommend(server, profile).text
    check, start = CONFIGURE[server](text, files, tmp_path, port)
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with running(start, port):
        assert speaks(port) == SPOKEN[profile]
        report = asyncio.run(scan(Endpoint("127.0.0.1", port, "a.test")))
    assert report.grade is not None
    promised = GRADES[profile]
    assert report.grade.ignoring_trust in (promised, f"{promised}+"), report.grade


@pytest.mark.parametrize("profile", PROFILES)
def test_postfix_takes_it_word_by_word(tmp_path, profile):
    (tmp_path / "master.cf").write_text("")
    snippet = recommend("postfix", profile)
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{snippet.text}")
    names = [line.partition("=")[0].strip() for line in snippet.lines]
    done = subprocess.run(
        ["/usr/sbin/postconf", "-c", tmp_path, *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # An unknown name, or one that this version does not know, is warned of.
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.splitlines() == list(snippet.lines)
    unused = subprocess.run(
        ["/usr/sbin/postconf", "-c", tmp_path, "-n"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "unused parameter" not in unused.stderr


def test_the_check_would_see_a_setting_that_is_none(tmp_path, files):
    for server, configure in CONFIGURE.items():
        place = tmp_path / server
        place.mkdir()
        text = recommend(server, "intermediate").text + "hostler_no_such_setting yes;\n"
        check, _ = configure(text, files, place, free_port())
        done = subprocess.run(check, capture_output=True, timeout=60, check=False)
        assert done.returncode, server


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("server", SERVERS)
def test_a_file_that_was_changed_as_recommended_differs_in_nothing(server, profile):
    snippet = recommend(server, profile)
    before = recommend(server, "old" if profile != "old" else "modern").text
    after = changed(before, snippet)
    assert diff(after, snippet, "x") == ""
    assert diff(before, snippet, "x").startswith("--- x\n+++ x (recommended)\n")
    assert changed("", snippet) and diff(changed("", snippet), snippet, "x") == ""


def test_the_command_shows_a_snippet_and_a_diff(tmp_path):
    path = tmp_path / "nginx.conf"
    path.write_text("http {\n    ssl_protocols TLSv1 TLSv1.2;\n    gzip off;\n}\n")
    run = CliRunner().invoke
    shown = run(cli, ["ssl", "recommend", "nginx", "--profile", "modern"])
    assert shown.exit_code == 0 and "ssl_protocols TLSv1.3;\n" in shown.output
    compared = run(cli, ["ssl", "recommend", "nginx", "--diff", str(path)])
    assert "-    ssl_protocols TLSv1 TLSv1.2;\n+    ssl_protocols TLSv1.2 TLSv1.3;\n" in (
        compared.output
    )
    assert "     gzip off;\n" in compared.output
    missing = run(cli, ["ssl", "recommend", "nginx", "--diff", str(tmp_path / "none")])
    assert missing.exit_code == 2


def test_a_setting_over_several_lines_is_replaced_as_a_whole():
    text = 'a = "b"\n  ssl.openssl.ssl-conf-cmd = (\n  "MinProtocol" => "TLSv1"\n  )\nc = "d"\n'
    after = changed(text, recommend("lighttpd", "modern")).splitlines()
    assert (after[0], after[2:]) == ('a = "b"', ['c = "d"'])
    assert after[1].startswith('  ssl.openssl.ssl-conf-cmd = ("MinProtocol" => "TLSv1.3"')
