"""What the parsers make of configurations, beside what the servers themselves say of them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ssl_disk import Pair, pair

from hostlerd.ssl.model.site import Role, Site
from hostlerd.ssl.plan.servers import apache, dovecot, haproxy, lighttpd, nginx, postfix, postgresql
from hostlerd.ssl.reader.servers import Disk

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]


def told(*argv: str | Path) -> str:
    """What a program says on both of its outputs; it must not fail."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def file_of(site: Site, role: Role) -> list[str]:
    return [each.file for each in site.references if each.role is role]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Pair, Pair]:
    return pair(tmp_path, "one", "one.test"), pair(tmp_path, "two", "two.test")


def test_nginx(tmp_path: Path, two: tuple[Pair, Pair]) -> None:
    one, other = two
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "nginx.conf").write_text(
        "# a comment with { and ;\npid nginx.pid; error_log stderr; events {}\n"
        "http {\n  access_log off; ssl_certificate one.crt; ssl_certificate_key 'one.key';\n"
        "  ssl_protocols TLSv1.2\n    TLSv1.3;\n"
        '  map $host $x { default "a;b}"; }\n  include conf.d/*.conf;\n'
        "  server { listen 127.0.0.1:9443 ssl; ssl_certificate two.crt;"
        f" ssl_certificate_key {other.key}; }}\n}}\n"
    )
    (tmp_path / "conf.d" / "a.conf").write_text(
        "server { listen 8443 ssl; listen [::]:8443 ssl; server_name one.test www.one.test; }\n"
        "server { listen 8443 ssl default_server; server_name two.test;\n"
        "  ssl_certificate two.crt; ssl_certificate_key two.key; ssl_protocols TLSv1.3; }\n"
        "server { listen 8080; server_name plain.test; }\n"
    )
    shown = told("/usr/sbin/nginx", "-T", "-c", tmp_path / "nginx.conf", "-p", tmp_path)
    files = set(re.findall(r"# configuration file (\S+):", shown))
    parsed = nginx.parse(Disk(), str(tmp_path / "nginx.conf"))
    assert parsed.unseen == []
    first, second, third = parsed.sites
    assert {r.path for site in parsed.sites for r in site.references} == files
    assert (first.names, first.listeners) == (("one.test", "www.one.test"), ("*:8443", "[::]:8443"))
    assert (second.names, second.default, third.listeners) == (
        ("two.test",),
        True,
        ("127.0.0.1:9443",),
    )
    assert file_of(first, Role.CERTIFICATE) == [str(one.certificate)]
    assert file_of(second, Role.KEY) == file_of(third, Role.KEY) == [str(other.key)]
    assert [s.value for s in first.settings] == ["TLSv1.2 TLSv1.3"]
    assert [s.value for s in second.settings] == ["TLSv1.3"]


def test_apache(tmp_path: Path, two: tuple[Pair, Pair]) -> None:
    one, other = two
    (tmp_path / "sites").mkdir()
    modules = "/usr/lib/apache2/modules"
    (tmp_path / "apache.conf").write_text(
        f'ServerRoot "{tmp_path}"\nPidFile pid\nErrorLog error.log\nServerName main.test\n'
        f"LoadModule mpm_event_module {modules}/mod_mpm_event.so\n"
        f"LoadModule authz_core_module {modules}/mod_authz_core.so\n"
        f"LoadModule ssl_module {modules}/mod_ssl.so\n"
        f"Define place {tmp_path}\nListen 8443\nListen 127.0.0.1:9443 https\n"
        "SSLProtocol -all +TLSv1.2 \\\n  +TLSv1.3\n"
        "<IfModule mod_nothing.c>\n  Listen 1\n</IfModule>\n"
        "<IfModule mod_ssl.c>\n  IncludeOptional sites/*.conf\n</IfModule>\n"
    )
    (tmp_path / "sites" / "a.conf").write_text(
        "<VirtualHost *:8443>\n  ServerName one.test\n  ServerAlias www.one.test *.one.test\n"
        '  SSLEngine on\n  SSLCertificateFile "${place}/one.crt"\n  SSLCertificateKeyFile one.key\n'
        "  <Directory />\n    Require all granted\n  </Directory>\n</VirtualHost>\n"
        "<virtualhost *:8443 127.0.0.1:9443>\n  servername two.test\n  sslengine ON\n"
        "  sslcertificatefile two.crt\n  sslcertificatekeyfile two.key\n"
        "  SSLProtocol TLSv1.3\n</virtualhost>\n"
        "<VirtualHost *:8443>\n  ServerName plain.test\n</VirtualHost>\n"
    )
    shown = told("/usr/sbin/apache2", "-f", tmp_path / "apache.conf", "-t", "-D", "DUMP_VHOSTS")
    parsed = apache.parse(Disk(), str(tmp_path / "apache.conf"))
    assert parsed.unseen == []
    first, second = parsed.sites
    dumped = set(re.findall(r"namevhost (\S+) \((\S+):(\d+)\)", shown))
    mine = {(s.names[0], r.path) for s in parsed.sites for r in s.references}
    assert mine == {(name, path) for name, path, _ in dumped if name != "plain.test"}
    assert set(re.findall(r"alias (\S+)", shown)) | set(
        re.findall(r"wild alias (\S+)", shown)
    ) == set(first.names[1:])
    assert (first.listeners, second.listeners) == (("*:8443",), ("*:8443", "127.0.0.1:9443"))
    assert (first.default, second.default) == (True, True)
    assert file_of(first, Role.CERTIFICATE) == [str(one.certificate)]
    assert file_of(second, Role.KEY) == [str(other.key)]
    assert [s.value for s in first.settings] == ["-all +TLSv1.2 +TLSv1.3"]
    assert [s.value for s in second.settings] == ["TLSv1.3"]


def test_haproxy(tmp_path: Path, two: tuple[Pair, Pair]) -> None:
    (tmp_path / "certs").mkdir()
    for one in two:
        name = tmp_path / "certs" / f"{one.certificate.stem}.pem"
        name.write_bytes(one.certificate.read_bytes() + one.key.read_bytes())
    (tmp_path / "list").write_text("one.pem [alpn h2] one.test !no.test\n# none\ntwo.pem\n")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        f"global\n  crt-base {tmp_path}/certs\n  ssl-default-bind-ciphers ECDHE+AESGCM\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        'frontend f # words\n  bind 127.0.0.1:8443,[::1]:8443 ssl crt "one.pem" crt two.pem\n'
        f"  bind :8444 ssl crt-list {tmp_path}/list no-tlsv11\n  bind :8080\n"
    )
    told("/usr/sbin/haproxy", "-c", "-f", configuration)
    parsed = haproxy.parse(Disk(), [str(configuration)])
    assert parsed.unseen == []
    found = [
        (s.names, s.listeners, Path(s.references[0].file).name, s.default) for s in parsed.sites
    ]
    assert found == [
        ((), ("127.0.0.1:8443", "[::1]:8443"), "one.pem", True),
        ((), ("127.0.0.1:8443", "[::1]:8443"), "two.pem", False),
        (("one.test",), ("*:8444",), "one.pem", True),
        ((), ("*:8444",), "two.pem", False),
    ]
    assert {s.name for s in parsed.sites[2].settings} == {"ssl-default-bind-ciphers", "no-tlsv11"}


def test_lighttpd(tmp_path: Path, two: tuple[Pair, Pair]) -> None:
    one, other = two
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "tls.conf").write_text(
        f'$SERVER["socket"] == ":8443" {{\n  ssl.engine = "enable"\n'
        f'  ssl.pemfile = var.place + "/one.crt"\n  ssl.privkey = "{one.key}"\n'
        '  ssl.openssl.ssl-conf-cmd = ("MinProtocol" => "TLSv1.2")\n'
        f'  $HTTP["host"] == "two.test" {{\n    ssl.pemfile = "{other.certificate}"\n'
        f'    ssl.privkey = "{other.key}"\n  }}\n}}\n'
    )
    configuration = tmp_path / "lighttpd.conf"
    configuration.write_text(
        f'server.document-root = "{tmp_path}" # words\nserver.port = 8080\n'
        f'var.place = "{tmp_path}"\nserver.modules = ("mod_openssl")\ninclude "more/*.conf"\n'
    )
    told("/usr/sbin/lighttpd", "-tt", "-f", configuration)
    shown = told("/usr/sbin/lighttpd", "-p", "-f", configuration)
    parsed = lighttpd.parse(Disk(), str(configuration))
    assert parsed.unseen == []
    assert [(s.names, s.listeners, s.default) for s in parsed.sites] == [
        ((), ("*:8443",), True),
        (("two.test",), ("*:8443",), False),
    ]
    files = [file for site in parsed.sites for file in file_of(site, Role.CERTIFICATE)]
    assert files == re.findall(r'ssl\.pemfile\s*=\s*"([^"]+)"', shown)


def test_postfix(tmp_path: Path, two: tuple[Pair, Pair]) -> None:
    _, other = two
    (tmp_path / "main.cf").write_text(
        f"place = {tmp_path}\nsmtpd_tls_cert_file = $place/one.crt\n"
        "smtpd_tls_key_file = ${place}/one.key\nsmtpd_tls_security_level = may\n"
        "inet_interfaces = 127.0.0.1,\n    ::1\nsmtpd_tls_protocols = >=TLSv1.2\n"
        f"tls_server_sni_maps = hash:{tmp_path}/sni\n"
    )
    (tmp_path / "sni").write_text(f"two.test {other.key} {other.certificate}\n")
    (tmp_path / "master.cf").write_text(
        "smtp inet n - y - - smtpd\nsubmissions inet n - y - - smtpd\n"
        "  -o smtpd_tls_wrappermode=yes\n  -o syslog_name=x\n"
        "10025 inet n - y - - smtpd -o smtpd_tls_security_level=none\n"
        "pickup unix n - y 60 1 pickup\n"
    )
    parsed = postfix.parse(Disk(), str(tmp_path))
    assert parsed.unseen == []
    found = {(s.starttls, s.listeners, s.names) for s in parsed.sites}
    assert found == {
        ("smtp", ("127.0.0.1:25", "[::1]:25"), ()),
        ("smtp", ("127.0.0.1:25", "[::1]:25"), ("two.test",)),
        ("", ("127.0.0.1:465", "[::1]:465"), ()),
        ("", ("127.0.0.1:465", "[::1]:465"), ("two.test",)),
    }
    for name, role in (("smtpd_tls_cert_file", Role.CERTIFICATE), ("smtpd_tls_key_file", Role.KEY)):
        shown = told("/usr/sbin/postconf", "-c", tmp_path, "-x", "-h", name).splitlines()[-1]
        assert file_of(parsed.sites[0], role) == [shown]
    services = told("/usr/sbin/postconf", "-c", tmp_path, "-M")
    assert len(re.findall(r"(?m)\binet\b.*smtpd", services)) == 3


def test_dovecot(tmp_path: Path, two: tuple[Pair, Pair]) -> None:
    one, other = two
    (tmp_path / "conf.d").mkdir()
    configuration = tmp_path / "dovecot.conf"
    configuration.write_text(
        "protocols = imap pop3\nlisten = 127.0.0.1\n!include conf.d/*.conf\n"
        f"local_name two.test {{\n  ssl_cert = <{other.certificate}\n  ssl_key = <{other.key}\n}}\n"
    )
    (tmp_path / "conf.d" / "10-ssl.conf").write_text(
        f"ssl = required\nssl_cert = <{one.certificate}\nssl_key = <{one.key}\n"
        "ssl_min_protocol = TLSv1.2 # words\n"
        "service imap-login {\n  inet_listener imap {\n    port = 0\n  }\n"
        "  inet_listener imaps {\n    port = 9993\n    ssl = yes\n  }\n}\n"
    )
    parsed = dovecot.parse(Disk(), str(configuration))
    assert parsed.unseen == []
    found = [(s.names, s.starttls, s.listeners) for s in parsed.sites]
    assert found == [
        ((), "", ("127.0.0.1:9993", "127.0.0.1:995")),
        (("two.test",), "", ("127.0.0.1:9993", "127.0.0.1:995")),
        ((), "pop3", ("127.0.0.1:110",)),
        (("two.test",), "pop3", ("127.0.0.1:110",)),
    ]
    shown = told("/usr/bin/doveconf", "-c", configuration, "-P", "-n")
    assert f"ssl_cert = <{file_of(parsed.sites[0], Role.CERTIFICATE)[0]}" in shown
    assert f"ssl_key = <{file_of(parsed.sites[0], Role.KEY)[0]}" in shown
    (minimum,) = (s for s in parsed.sites[0].settings if s.name == "ssl_min_protocol")
    assert (
        told("/usr/bin/doveconf", "-c", configuration, "-h", "ssl_min_protocol").strip()
        == minimum.value
    )


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that another user reaches."""
    with TemporaryDirectory(prefix="hostler-test-", dir="/tmp") as name:
        yield Path(name)


def test_postgresql(data: Path) -> None:
    (data / "conf.d").mkdir()
    configuration = data / "postgresql.conf"
    configuration.write_text(
        "listen_addresses = '127.0.0.1, ::1'\t# words\nport = 5555\nssl on\n"
        "ssl_cert_file = 'one.crt'\ninclude_dir 'conf.d'\nSSL_KEY_FILE = 'a''b'\n"
    )
    (data / "conf.d" / "a.conf").write_text("ssl_min_protocol_version = 'TLSv1.3'\n")
    (data / "postgresql.auto.conf").write_text("ssl_key_file = 'one.key'\n")
    for path in (data, *data.rglob("*")):
        os.chown(path, 65534, 65534)
    parsed = postgresql.parse(Disk(), str(configuration))
    (site,) = parsed.sites
    assert site.listeners == ("127.0.0.1:5555", "[::1]:5555")
    assert file_of(site, Role.CERTIFICATE) == [str(data / "one.crt")]
    assert file_of(site, Role.KEY) == [str(data / "one.key")]
    assert [s.value for s in site.settings] == ["TLSv1.3"]
    # It does not run as root, whatever is asked of it.
    user = ("/usr/bin/setpriv", "--reuid=nobody", "--clear-groups")
    for name, value in (
        ("port", "5555"),
        ("ssl_cert_file", "one.crt"),
        ("ssl_key_file", "one.key"),
    ):
        shown = told(*user, "/usr/local/bin/postgres", "-D", data, "-C", name)
        assert shown.splitlines()[0] == value
