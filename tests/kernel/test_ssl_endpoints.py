"""What real servers are configured to serve, and what they do serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ssl_disk import Pair, openssl, pair
from ssl_reader import reader
from ssl_servers import free_port, running

from hostlerd.ssl.kernel.reading import Reader
from hostlerd.ssl.model.inventory import Endpoint
from hostlerd.ssl.service.observing import Observer

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path) as one:
        yield one


def endpoints(asked: Reader, port: int, *, shake: bool = True) -> dict[str, Endpoint]:
    """The endpoints at a port by their names; nobody else's socket is touched."""
    observer = Observer(asked)
    every, _, _ = observer.endpoints(again=False)
    mine = [each for each in every if each.listener.endswith(f":{port}")]
    if shake:
        observer.shake_hands(mine)
    return {each.name: each for each in mine}


def codes(of: Endpoint) -> set[str]:
    return {each.code for each in of.findings}


def nginx(folder: Path, port: int, sites: dict[str, Pair]) -> list[str | Path]:
    """An nginx with a server for each name, the first one being the default."""
    temporary = "".join(
        f"{w}_temp_path {folder}/{w};" for w in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "sites").mkdir()
    for name, one in sites.items():
        (folder / "sites" / f"{name}.conf").write_text(
            f"server {{ listen 127.0.0.1:{port} ssl; server_name {name};\n"
            f"  ssl_certificate {one.certificate};\n  ssl_certificate_key {one.key};\n"
            f"  ssl_protocols TLSv1.2 TLSv1.3; return 204; }}\n"
        )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"user root; worker_processes 1; daemon off; pid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} include sites/*.conf; }}\n"
    )
    return ["/usr/sbin/nginx", "-c", configuration]


def shown_by_openssl(port: int, name: str) -> str:
    pem = openssl("s_client", "-connect", f"127.0.0.1:{port}", "-servername", name)
    told = openssl("x509", "-noout", "-fingerprint", "-sha256", stdin=pem)
    return told.decode().partition("=")[2].strip().replace(":", "").lower()


def test_each_name_is_served_its_own(asked: Reader, tmp_path: Path) -> None:
    a, b = pair(tmp_path, "a", "a.test", "*.a.test"), pair(tmp_path, "b", "b.test")
    port = free_port()
    with running(nginx(tmp_path, port, {"a.test": a, "b.test": b}), port) as server:
        found = endpoints(asked, port)
        assert found.keys() == {"", "a.test", "b.test"}
        for name, one in (("a.test", a), ("b.test", b), ("", a)):
            assert found[name].served == found[name].configured == (one.fingerprint,)
            assert found[name].negotiated.startswith("TLSv1.3 ")
            assert found[name].server == "nginx"
            assert codes(found[name]) == set()
        assert shown_by_openssl(port, "b.test") == b.fingerprint
        assert found["a.test"].pid == server.pid
        (protocols,) = (s for s in found["a.test"].settings if s.name == "ssl_protocols")
        assert (protocols.value, protocols.line) == ("TLSv1.2 TLSv1.3", 4)
        assert protocols.path == str(tmp_path / "sites/a.test.conf")


def test_a_server_that_was_not_reloaded_is_found_out(asked: Reader, tmp_path: Path) -> None:
    old, new = pair(tmp_path, "old", "a.test"), pair(tmp_path, "new", "a.test")
    port = free_port()
    with running(nginx(tmp_path, port, {"a.test": old}), port):
        was = old.fingerprint
        new.certificate.rename(old.certificate)
        new.key.rename(old.key)
        found = endpoints(asked, port)["a.test"]
        assert found.served == (was,) == (shown_by_openssl(port, "a.test"),)
        assert found.configured != found.served
        assert codes(found) == {"NOT_THE_FILE"}


def test_what_does_not_fit_is_told(asked: Reader, tmp_path: Path) -> None:
    one, other = pair(tmp_path, "one", "one.test"), pair(tmp_path, "other", "other.test")
    port = free_port()
    nginx(tmp_path, port, {"one.test": one})
    (tmp_path / "bad").mkdir()
    with running(["/usr/sbin/nginx", "-c", tmp_path / "nginx.conf"], port):
        (tmp_path / "sites" / "one.test.conf").write_text(
            f"server {{ listen 127.0.0.1:{port} ssl; server_name elsewhere.test;\n"
            f"  ssl_certificate {one.certificate};\n  ssl_certificate_key {other.key}; }}\n"
            f"server {{ listen 127.0.0.1:{port} ssl; server_name gone.test;\n"
            f"  ssl_certificate {tmp_path}/gone.crt;\n  ssl_certificate_key {other.key}; }}\n"
        )
        found = endpoints(asked, port, shake=False)
    assert codes(found["elsewhere.test"]) == {"KEY_MISMATCH", "NAME_NOT_COVERED"}
    assert codes(found["gone.test"]) == {"FILE_MISSING"}


def test_a_passphrase_that_the_configuration_has_opens_the_key(
    asked: Reader, tmp_path: Path
) -> None:
    one = pair(tmp_path, "one", "one.test")
    spki = one.spki
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", one.key, "-aes256", "-passout", "pass:secret words", "-out", locked)
    (tmp_path / "words").write_text("wrong\nsecret words\n")
    port = free_port()
    argv = nginx(tmp_path, port, {"one.test": Pair(one.certificate, locked)})
    site = tmp_path / "sites" / "one.test.conf"
    site.write_text(
        site.read_text().replace("return", f"ssl_password_file {tmp_path}/words; return")
    )
    one.key.unlink()
    with running(argv, port):
        reading = asked.inventory(files=True)
    (file,) = (each for each in reading.files if str(locked) in each.paths)
    assert [(key.encrypted, key.spki_sha256) for key in file.keys] == [(True, spki)]
    assert "secret words" not in repr(reading)


def test_haproxy_serves_by_the_names_of_its_certificates(asked: Reader, tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    a, b = pair(tmp_path, "a", "a.test"), pair(tmp_path, "b", "b.test", "www.b.test")
    for one in (a, b):
        bundle = tmp_path / "certs" / f"{one.certificate.stem}.pem"
        bundle.write_bytes(one.certificate.read_bytes() + one.key.read_bytes())
    port = free_port()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "global\n ssl-default-bind-options ssl-min-ver TLSv1.2\ndefaults\n mode http\n"
        " timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
        f"frontend f\n bind 127.0.0.1:{port} ssl crt {tmp_path}/certs/ alpn h2\n"
        " http-request return status 204\n"
    )
    with running(["/usr/sbin/haproxy", "-db", "-f", configuration], port):
        found = endpoints(asked, port)
    served = {name: each.served for name, each in found.items()}
    assert served == {
        "": (a.fingerprint,),
        "a.test": (a.fingerprint,),
        "b.test": (b.fingerprint,),
        "www.b.test": (b.fingerprint,),
    }
    assert {setting.name for setting in found[""].settings} == {"ssl-default-bind-options", "alpn"}


def test_a_listener_that_speaks_no_tls_is_not_held_for_one(asked: Reader, tmp_path: Path) -> None:
    port = free_port()
    argv: list[str | Path] = ["/usr/bin/python3", "-m", "http.server", str(port), "-b", "127.0.0.1"]
    with running(argv, port):
        found = endpoints(asked, port)[""]
    assert (found.served, codes(found)) == ((), {"NO_TLS"})
