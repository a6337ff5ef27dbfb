"""Real servers of many makes on loopback, well and badly configured, while a test needs them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import postgresql
from ssl_pki import Pki
from ssl_process import end, free_port, running

OPENSSL = "/usr/bin/openssl"
GOOD = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
ALL = "ALL:@SECLEVEL=0"
# The 1024 bits of RFC 2409's second Oakley group.
_OAKLEY_2 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A0879"
    "8E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B"
    "0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    16,
)


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    label: str
    port: int
    starttls: str = ""
    name: str = "localhost"


@dataclass
class Place:
    """Where servers are set up: a folder that other users may read, and certificates in it."""

    folder: Path
    pki: Pki

    def write(self, name: str, text: str, mode: int = 0o644) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


@contextmanager
def place() -> Iterator[Place]:
    """A place, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"hostler-ssl-{os.getpid()}-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield Place(folder, Pki(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _dh1024() -> str:
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers
    from cryptography.hazmat.primitives.serialization import Encoding, ParameterFormat

    parameters = DHParameterNumbers(_OAKLEY_2, 2).parameters()
    return parameters.parameter_bytes(Encoding.PEM, ParameterFormat.PKCS3).decode()


@contextmanager
def nginx(at: Place) -> Iterator[list[Server]]:
    pki = at.pki
    dh = at.write("dh1024.pem", _dh1024())
    labels = ("nginx-good", "nginx-modern", "nginx-old", "nginx-leaf")
    servers = [Server(label, free_port()) for label in labels]
    good, modern, old, leaf = (f"listen 127.0.0.1:{each.port} ssl" for each in servers)
    hsts = 'add_header Strict-Transport-Security "max-age=31536000; includeSubDomains" always;'

    def pair(name: str, chain: str = "") -> str:
        file = pki[f"{name}{chain}.pem"]
        return f"ssl_certificate {file}; ssl_certificate_key {pki[f'{name}.key']};"

    text = f"""
daemon off; worker_processes 1; pid {at.folder}/nginx.pid; error_log {at.folder}/nginx.err;
events {{}}
http {{
  access_log off; client_body_temp_path {at.folder}; proxy_temp_path {at.folder};
  fastcgi_temp_path {at.folder}; uwsgi_temp_path {at.folder}; scgi_temp_path {at.folder};
  server {{ {good} http2; server_name localhost; {pair("rsa")} {pair("ec")} {hsts}
    ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {GOOD}; ssl_prefer_server_ciphers off;
    ssl_session_cache shared:good:1m; location / {{ return 200 "good"; }} }}
  server {{ {good} http2; server_name another.test; {pair("other")} ssl_ciphers {GOOD};
    ssl_protocols TLSv1.2 TLSv1.3; location / {{ return 200 "another"; }} }}
  server {{ {modern}; {pair("ec")} {hsts} ssl_protocols TLSv1.3; ssl_session_tickets off;
    ssl_verify_client optional_no_ca; location / {{ return 200 "modern"; }} }}
  server {{ {old}; {pair("lone")} ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_dhparam {dh};
    ssl_ciphers {ALL}:eNULL; ssl_prefer_server_ciphers on; location / {{ return 200 "old"; }} }}
  server {{ {leaf}; {pair("rsa", ".leaf")} ssl_protocols TLSv1.2; ssl_ciphers AES128-SHA;
    location / {{ return 200 "leaf"; }} }}
}}
"""
    argv = ["/usr/sbin/nginx", "-c", at.write("nginx.conf", text)]
    with running(argv, [each.port for each in servers], at.log("nginx")):
        yield servers


@contextmanager
def apache(at: Place) -> Iterator[list[Server]]:
    pki = at.pki
    servers = [Server(label, free_port()) for label in ("apache-good", "apache-old")]
    good, old = servers
    modules = ("mpm_event", "ssl", "socache_shmcb", "authz_core", "headers", "alias")
    loads = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in modules
        if Path(f"/usr/lib/apache2/modules/mod_{name}.so").exists()
    )
    text = f"""
{loads}
ServerRoot {at.folder}
PidFile {at.folder}/apache.pid
ErrorLog {at.folder}/apache.err
ServerName localhost
DefaultRuntimeDir {at.folder}
Mutex file:{at.folder} default
SSLSessionCache shmcb:{at.folder}/apache.cache(512000)
Listen 127.0.0.1:{good.port}
Listen 127.0.0.1:{old.port}
<VirtualHost 127.0.0.1:{good.port}>
SSLEngine on
SSLCertificateFile {pki["ec.pem"]}
SSLCertificateKeyFile {pki["ec.key"]}
SSLProtocol -all +TLSv1.2 +TLSv1.3
SSLCipherSuite {GOOD}
SSLHonorCipherOrder on
Header always set Strict-Transport-Security "max-age=100"
</VirtualHost>
<VirtualHost 127.0.0.1:{old.port}>
SSLEngine on
SSLCertificateFile {pki["weak.pem"]}
SSLCertificateKeyFile {pki["weak.key"]}
SSLProtocol all
SSLCipherSuite {ALL}
SSLHonorCipherOrder off
</VirtualHost>
"""
    argv = ["/usr/sbin/apache2", "-f", at.write("apache.conf", text), "-DFOREGROUND"]
    with running(argv, [each.port for each in servers], at.log("apache")):
        yield servers


@contextmanager
def lighttpd(at: Place) -> Iterator[list[Server]]:
    server = Server("lighttpd", free_port())
    text = f"""
server.modules = ("mod_openssl")
server.document-root = "{at.folder}"
server.errorlog = "{at.folder}/lighttpd.err"
server.bind = "127.0.0.1"
server.port = {server.port}
ssl.engine = "enable"
ssl.pemfile = "{at.pki["rsa.pem"]}"
ssl.privkey = "{at.pki["rsa.key"]}"
"""
    argv = ["/usr/sbin/lighttpd", "-D", "-f", at.write("lighttpd.conf", text)]
    with running(argv, [server.port], at.log("lighttpd")):
        yield [server]


@contextmanager
def haproxy(at: Place) -> Iterator[list[Server]]:
    servers = [Server(label, free_port()) for label in ("haproxy-good", "haproxy-old")]
    good, old = servers
    text = f"""
defaults
  mode http
  timeout client 30s
  timeout connect 30s
  timeout server 30s
frontend good
  bind 127.0.0.1:{good.port} ssl crt {at.pki["ec.all.pem"]} alpn h2,http/1.1 \
ssl-min-ver TLSv1.2 ciphers {GOOD} no-tls-tickets prefer-client-ciphers
  http-after-response set-header Strict-Transport-Security "max-age=63072000; preload"
  http-request return status 200
frontend old
  bind 127.0.0.1:{old.port} ssl crt {at.pki["old.all.pem"]} ssl-min-ver TLSv1.0 \
ssl-max-ver TLSv1.1 ciphers {ALL}
  http-request return status 200
"""
    argv = ["/usr/sbin/haproxy", "-db", "-f", at.write("haproxy.cfg", text)]
    with running(argv, [each.port for each in servers], at.log("haproxy")):
        yield servers


@contextmanager
def openssl(at: Place) -> Iterator[list[Server]]:
    servers = [Server(label, free_port()) for label in ("openssl-renegotiating", "openssl-client")]
    pki = at.pki
    common = (OPENSSL, "s_server", "-www", "-cert_chain", pki["ca.pem"])
    flawed = [
        *(*common, "-accept", f"127.0.0.1:{servers[0].port}", "-tls1_2", "-serverpref"),
        *("-cert", pki["rsa.pem"], "-key", pki["rsa.key"], "-client_renegotiation"),
        *("-alpn", "http/1.1"),
    ]
    plain = [
        *(*common, "-accept", f"127.0.0.1:{servers[1].port}"),
        *("-cert", pki["ec.pem"], "-key", pki["ec.key"]),
    ]
    with (
        running(flawed, [servers[0].port], at.log("openssl-1")),
        running(plain, [servers[1].port], at.log("openssl-2")),
    ):
        yield servers


@contextmanager
def gnutls(at: Place) -> Iterator[list[Server]]:
    server = Server("gnutls", free_port())
    priority = "NORMAL:-VERS-ALL:+VERS-TLS1.0:+VERS-TLS1.2:+VERS-TLS1.3:+ARCFOUR-128:+3DES-CBC"
    argv = [
        *("/usr/bin/gnutls-serv", "--http", "--port", str(server.port)),
        *("--priority", priority, "--x509certfile", at.pki["rsa.pem"]),
        *("--x509keyfile", at.pki["rsa.key"]),
    ]
    with running(argv, [server.port], at.log("gnutls")):
        yield [server]


@contextmanager
def tlslite(at: Place) -> Iterator[list[Server]]:
    servers = [Server(label, free_port()) for label in ("tlslite-ssl3", "tlslite-rc4")]
    script = str(Path(__file__).with_name("scan_tlslite.py"))
    with ExitStack() as stack:
        for server, versions in zip(servers, ("ssl3 ssl3", "tls1 tls1_2"), strict=True):
            argv = [sys.executable, script, str(server.port), at.pki["rsa.pem"], at.pki["rsa.key"]]
            log = at.log(server.label)
            stack.enter_context(running([*argv, *versions.split()], [server.port], log))
        yield servers


@contextmanager
def slapd(at: Place) -> Iterator[list[Server]]:
    server = Server("slapd", free_port(), "ldap")
    (at.folder / "ldap").mkdir()
    text = f"""
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {at.folder}/slapd.pid
TLSCACertificateFile {at.pki["root.pem"]}
TLSCertificateFile {at.pki["rsa.pem"]}
TLSCertificateKeyFile {at.pki["rsa.key"]}
database mdb
suffix "dc=test"
directory {at.folder}/ldap
"""
    url = f"ldap://127.0.0.1:{server.port}"
    argv = ["/usr/sbin/slapd", "-h", url, "-f", at.write("slapd.conf", text), "-d", "0"]
    with running(argv, [server.port], at.log("slapd")):
        yield [server]


@contextmanager
def vsftpd(at: Place) -> Iterator[list[Server]]:
    server = Server("vsftpd", free_port(), "ftp")
    (at.folder / "empty").mkdir(mode=0o755)
    text = f"""listen=YES
listen_address=127.0.0.1
listen_port={server.port}
background=NO
anonymous_enable=YES
anon_root={at.folder}/empty
secure_chroot_dir={at.folder}/empty
ssl_enable=YES
allow_anon_ssl=YES
rsa_cert_file={at.pki["rsa.pem"]}
rsa_private_key_file={at.pki["rsa.key"]}
"""
    argv = ["/usr/sbin/vsftpd", at.write("vsftpd.conf", text)]
    with running(argv, [server.port], at.log("vsftpd")):
        yield [server]


@contextmanager
def postgres(at: Place) -> Iterator[list[Server]]:
    server = Server("postgresql", free_port(), "postgres")
    programs = postgresql.programs()
    assert programs is not None
    nobody = pwd.getpwnam("nobody")
    folder = at.folder / "pg"
    folder.mkdir()
    for name in ("rsa.pem", "rsa.key"):
        target = folder / name
        target.write_bytes(Path(at.pki[name]).read_bytes())
        target.chmod(0o600)
        os.chown(target, nobody.pw_uid, nobody.pw_gid)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    own = ["/usr/bin/setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    data = str(folder / "data")
    subprocess.run(
        [*own, str(programs / "initdb"), "-D", data, "-A", "trust", "--no-sync"],
        check=True, timeout=120, cwd=folder, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    argv = [
        *(*own, str(programs / "postgres"), "-D", data, "-p", str(server.port), "-k", str(folder)),
        *("-c", "listen_addresses=127.0.0.1", "-c", "ssl=on", "-c", "fsync=off"),
        *("-c", f"ssl_cert_file={folder}/rsa.pem", "-c", f"ssl_key_file={folder}/rsa.key"),
        *("-c", "ssl_min_protocol_version=TLSv1", "-c", "ssl_ciphers=HIGH:@SECLEVEL=0"),
    ]
    with running(argv, [server.port], at.log("postgres"), cwd=folder):
        yield [server]


@contextmanager
def dovecot(at: Place) -> Iterator[list[Server]]:
    servers = [
        Server("dovecot-imap", free_port(), "imap"),
        Server("dovecot-pop3", free_port(), "pop3"),
        Server("dovecot-imaps", free_port()),
    ]
    imap, pop3, imaps = servers
    text = f"""
protocols = imap pop3
base_dir = {at.folder}/dovecot
log_path = {at.folder}/dovecot.err
ssl = yes
ssl_cert = <{at.pki["rsa.pem"]}
ssl_key = <{at.pki["rsa.key"]}
ssl_min_protocol = TLSv1.2
ssl_prefer_server_ciphers = yes
mail_location = maildir:{at.folder}/mail
default_internal_user = nobody
default_internal_group = nogroup
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={at.folder}
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {imap.port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {imaps.port}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {pop3.port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""
    argv = ["/usr/sbin/dovecot", "-F", "-c", at.write("dovecot.conf", text)]
    with running(argv, [each.port for each in servers], at.log("dovecot")):
        yield servers


@contextmanager
def postfix(at: Place) -> Iterator[list[Server]]:
    server = Server("postfix", free_port(), "smtp")
    config, queue, data = (at.folder / name for name in ("postfix", "queue", "postfix-data"))
    for folder in (config, queue, data):
        folder.mkdir()
    shutil.chown(data, "postfix")
    main = f"""
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {at.folder}/postfix.log
maillog_file_prefixes = {at.folder}
myhostname = localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_tls_security_level = may
smtpd_tls_chain_files = {at.pki["rsa.key"]}, {at.pki["rsa.pem"]}
smtpd_tls_mandatory_ciphers = high
smtpd_tls_protocols = >=TLSv1
tls_high_cipherlist = HIGH:@SECLEVEL=0
tls_medium_cipherlist = HIGH:@SECLEVEL=0
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
default_process_limit = 20
smtpd_peername_lookup = no
"""
    master = f"""
127.0.0.1:{server.port} inet n - n - - smtpd
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
"""
    (config / "main.cf").write_text(main)
    (config / "master.cf").write_text(master)
    argv = ["/usr/sbin/postfix", "-c", str(config), "start-fg"]
    try:
        with running(argv, [server.port], at.log("postfix-start")):
            yield [server]
    finally:
        # Its master has a session of its own, which the end of its starter does not reach.
        file = queue / "pid/master.pid"
        if file.exists():
            end(int(file.read_text()))


@contextmanager
def prosody(at: Place) -> Iterator[list[Server]]:
    server = Server("prosody", free_port(), "xmpp")
    folder = at.folder / "prosody"
    folder.mkdir()
    user = pwd.getpwnam("prosody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    key = folder / "rsa.key"
    key.write_bytes(Path(at.pki["rsa.key"]).read_bytes())
    key.chmod(0o600)
    os.chown(key, user.pw_uid, user.pw_gid)
    text = f"""
data_path = "{folder}"
pidfile = "{folder}/pid"
modules_enabled = {{ "tls", "saslauth" }}
modules_disabled = {{ "s2s", "offline" }}
c2s_ports = {{ {server.port} }}
interfaces = {{ "127.0.0.1" }}
s2s_ports = {{ }}
ssl = {{ certificate = "{at.pki["rsa.pem"]}", key = "{key}" }}
log = "*console"
VirtualHost "localhost"
"""
    argv = [
        *("/usr/bin/setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"),
        *("--clear-groups", "/usr/bin/prosody", "-F", "--config", at.write("prosody.lua", text)),
    ]
    with running(argv, [server.port], at.log("prosody"), cwd=folder):
        yield [server]


MAKES: dict[str, Callable[[Place], object]] = {
    each.__name__: each
    for each in (
        *(nginx, apache, lighttpd, haproxy, openssl, gnutls, tlslite),
        *(slapd, vsftpd, postgres, dovecot, postfix, prosody),
    )
}


@contextmanager
def every(makes: tuple[str, ...] = tuple(MAKES)) -> Iterator[tuple[Place, dict[str, Server]]]:
    """All of them, by label."""
    with place() as at, ExitStack() as stack:
        servers: dict[str, Server] = {}
        for make in makes:
            for server in stack.enter_context(MAKES[make](at)):  # type: ignore[arg-type]
                servers[server.label] = server
        yield at, servers
