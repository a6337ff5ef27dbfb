"""Parsers of configurations: whatever the text, they end, name what is wrong, and go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostlerd.ssl.model.site import Parsed, Role
from hostlerd.ssl.plan.servers import (
    apache,
    dovecot,
    haproxy,
    lighttpd,
    nginx,
    openvpn,
    postfix,
    postgresql,
)


class Texts:
    """Configuration files of a test."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def read(self, path: str) -> str | None:
        return self._files.get(path)

    def glob(self, pattern: str) -> Sequence[str]:
        return sorted(p for p in self._files if p == pattern or fnmatchcase(p, pattern))


PARSERS: dict[str, Callable[[Texts], Parsed]] = {
    "nginx": lambda t: nginx.parse(t, "/c/a"),
    "apache": lambda t: apache.parse(t, "/c/a"),
    "haproxy": lambda t: haproxy.parse(t, ["/c/a.cfg", "/c/a"]),
    "lighttpd": lambda t: lighttpd.parse(t, "/c/a"),
    "postfix": lambda t: postfix.parse(t, "/c"),
    "dovecot": lambda t: dovecot.parse(t, "/c/a"),
    "postgresql": lambda t: postgresql.parse(t, "/c/a"),
    "openvpn": lambda t: openvpn.parse(t, "/c/a"),
}
NAMES = ("/c/a", "/c/a.cfg", "/c/main.cf", "/c/master.cf", "/c/b.conf", "/c/postgresql.auto.conf")
WORDS = st.sampled_from(
    [
        *(
            "http",
            "server",
            "listen",
            "443",
            "ssl",
            "on",
            "{",
            "}",
            ";",
            "include",
            "/c/a",
            "*.conf",
        ),
        *(
            "ssl_certificate",
            "x.pem",
            '"',
            "'",
            "\\",
            "#",
            "\n",
            "\n ",
            "<VirtualHost",
            "*:443",
            ">",
        ),
        *("</VirtualHost>", "SSLEngine", "Include", "Define", "${x}", "LoadModule", "ssl_module"),
        *("frontend", "bind", ":443", "crt", "crt-list", "[", "]", '$SERVER["socket"] == ":443"'),
        *("ssl.engine", "=", '"enable"', "ssl.pemfile", "+", "(", ")", "smtp inet n - y - - smtpd"),
        *(
            "-o",
            "smtpd_tls_wrappermode=yes",
            "$a",
            "a = $b",
            "b = $a",
            "!include",
            "ssl_cert = </x",
        ),
        *("service", "imap-login", "inet_listener", "port = 1", "local_name", "include_dir 'x'"),
        *("<cert>", "</cert>", "cert", "server", "\0", "é", "\ud800"),
    ]
)
TEXTS = st.one_of(
    st.lists(WORDS, max_size=60).map(" ".join), st.lists(WORDS, max_size=40).map("".join), st.text()
)


@pytest.mark.parametrize("server", PARSERS)
@given(files=st.dictionaries(st.sampled_from(NAMES), TEXTS))
@settings(max_examples=150, deadline=None)
def test_whatever_the_text_they_end(server: str, files: dict[str, str]) -> None:
    parsed = PARSERS[server](Texts(files))
    for site in parsed.sites:
        assert site.server == server
        assert all(":" in place for place in site.listeners)
        assert all(reference.file for reference in site.references)


def test_an_include_of_itself_ends() -> None:
    loops = {
        "nginx": "http { include /c/a; }",
        "apache": "Include /c/a\n",
        "lighttpd": 'include "/c/a"\n',
        "dovecot": "!include /c/a\n",
        "postgresql": "include '/c/a'\n",
    }
    for server, text in loops.items():
        parsed = PARSERS[server](Texts({"/c/a": text}))
        assert {each.code for each in parsed.unseen} == {"TOO_MANY_FILES"}, server


def test_what_is_not_there_is_named() -> None:
    parsed = nginx.parse(
        Texts({"/c/a": "http { include gone.conf; server { listen 1 ssl; } }"}), "/c/a"
    )
    assert [(each.code, each.subject) for each in parsed.unseen] == [
        ("CONFIGURATION_UNREADABLE", "/c/gone.conf")
    ]
    assert len(parsed.sites) == 1
    parsed = nginx.parse(Texts({"/c/a": "http { server { listen 1 ssl;"}), "/c/a")
    assert [each.code for each in parsed.unseen] == ["CONFIGURATION_MALFORMED"]


_NAME = st.text("abcdefgh", min_size=1, max_size=5).map(lambda name: f"{name}.test")
_SITE = st.tuples(
    st.lists(_NAME, min_size=1, max_size=3, unique=True), st.integers(1, 65535), st.booleans()
)


@given(st.lists(_SITE, max_size=6), st.sampled_from([" ", "\n", " # words {;}\n\t"]))
def test_what_is_written_for_nginx_is_read_again(
    sites: list[tuple[list[str], int, bool]], space: str
) -> None:
    blocks = [
        space.join(
            [
                *("server", "{", "listen", f"[::1]:{port}", "ssl" if tls else "http2", ";"),
                *("server_name", *names, ";", "ssl_certificate", f'"{port} x.pem"', ";", "}"),
            ]
        )
        for names, port, tls in sites
    ]
    parsed = nginx.parse(Texts({"/c/a": f"http {{ {space.join(blocks)} }}"}), "/c/a")
    assert parsed.unseen == []
    read = [(list(s.names), s.listeners, s.references[0].file) for s in parsed.sites]
    assert read == [
        (names, (f"[::1]:{port}",), f"/c/{port} x.pem") for names, port, tls in sites if tls
    ]


def test_a_passphrase_of_dovecot_is_kept_for_the_reader_alone() -> None:
    text = "ssl_cert = </x.pem\nssl_key = </x.key\nssl_key_password = secret\n"
    (site, *_) = dovecot.parse(Texts({"/c/a": text}), "/c/a").sites
    assert site.passphrase == "secret"  # noqa: S105 # of the test
    assert "secret" not in repr(site)


def test_openvpn_has_files_and_inline_parts() -> None:
    text = "server 10.8.0.0 255.255.255.0\nport 1195\ncert a.pem\naskpass words\n<key>\nx\n</key>\n"
    (site,) = openvpn.parse(Texts({"/c/a": text}), "/c/a").sites
    assert [(r.role, r.file) for r in site.references] == [
        (Role.CERTIFICATE, "/c/a.pem"),
        (Role.PASSPHRASE, "/c/words"),
        (Role.KEY, "/c/a"),
    ]
    assert site.listeners == ("*:1195",)


def test_apache_goes_by_what_is_defined_and_inherits_from_the_main_server() -> None:
    text = (
        "LoadModule ssl_module x.so\nListen [::]:8443\nListen 80\nSSLEngine on\n"
        "SSLCertificateFile all.pem\nSSLPassPhraseDialog exec:/x\nDefine tls\n"
        "<IfDefine tls>\nServerName main.test\n</IfDefine>\n"
        "<IfDefine !tls>\nListen 1\n</IfDefine>\n"
        "<IfVersion >= 2.4>\nListen 9443\n</IfVersion>\nUndefine tls\nServerRoot /r\n"
        "<VirtualHost _default_:9443>\nSSLCertificateFile own.pem\n</VirtualHost>\n"
    )
    parsed = apache.parse(Texts({"/c/a": text}), "/c/a")
    host, main = parsed.sites
    assert (host.listeners, host.names, host.references[0].role) == (("*:9443",), (), Role.BOTH)
    assert (main.listeners, main.names) == (("[::]:8443", "*:80"), ("main.test",))
    assert main.references[0].file == "/r/all.pem"
    assert [each.code for each in parsed.unseen] == ["PASSPHRASE_PROGRAM"]
    assert apache.parse(Texts({"/c/a": text.replace("LoadModule", "#")}), "/c/a").sites == []


def test_postfix_has_chain_files_defaults_and_addresses_of_services() -> None:
    main = "smtpd_use_tls = yes\nsmtpd_tls_chain_files = k.pem, /x/c.pem\n"
    master = (
        "smtp inet n - y - - smtpd\n127.0.0.1:10025 inet n - y - - smtpd\n"
        "submission inet n - y - - smtpd -o inet_interfaces=loopback-only\n"
    )
    parsed = postfix.parse(Texts({"/c/main.cf": main, "/c/master.cf": master}), "/c")
    assert [each.listeners for each in parsed.sites] == [
        ("*:25",), ("127.0.0.1:10025",), ("127.0.0.1:587",)
    ]  # fmt: skip
    assert [r.file for r in parsed.sites[0].references] == ["/c/k.pem", "/x/c.pem"]
    main = "smtpd_tls_security_level=may\nsmtpd_tls_cert_file=/x/a.pem\na=$b\nb=$a\nmyhostname=$a\n"
    (site, *_) = postfix.parse(Texts({"/c/main.cf": main, "/c/master.cf": master}), "/c").sites
    assert [(r.role, r.file) for r in site.references] == [
        (Role.CERTIFICATE, "/x/a.pem"),
        (Role.KEY, "/x/a.pem"),
    ]


def test_nginx_ssl_on_mail_and_names_of_each_request() -> None:
    text = (
        "http { server { listen unix:/s ssl; listen 8443; ssl on; ssl_certificate $name.pem; } }\n"
        "mail { server { listen 110; protocol pop3; starttls on; ssl_certificate data:x; } }\n"
    )
    web, mail = nginx.parse(Texts({"/c/a": text}), "/c/a").sites
    assert (web.listeners, web.references) == (("*:8443",), ())
    assert (mail.listeners, mail.starttls) == (("*:110",), "pop3")


def test_haproxy_has_bases_lists_and_sockets_that_are_no_addresses() -> None:
    text = (
        "global\n ca-base /ca\n crt-base /crt\nlisten x\n bind /run/x.sock ssl crt a.pem\n"
        " bind ipv4@:443 ssl crt a.pem ca-file r.pem verify required strict-sni\n"
    )
    (site,) = haproxy.parse(Texts({"/c/a.cfg": text}), ["/c/a.cfg"]).sites
    assert [(r.role, r.file) for r in site.references] == [
        (Role.BOTH, "/crt/a.pem"),
        (Role.AUTHORITY, "/ca/r.pem"),
    ]
    assert {(each.name, each.value) for each in site.settings} == {
        ("verify", "required"), ("strict-sni", "")
    }  # fmt: skip


def test_dovecot_without_tls_and_services_in_one_line() -> None:
    text = "service imap-login {\n inet_listener imaps { port = 1993 }\n}\nprotocols = imap\n"
    parsed = dovecot.parse(Texts({"/c/a": text}), "/c/a")
    assert {place for site in parsed.sites for place in site.listeners} == {
        *("*:1993", "[::]:1993", "*:143", "[::]:143")
    }
    assert dovecot.parse(Texts({"/c/a": "ssl = no\n"}), "/c/a").sites == []
