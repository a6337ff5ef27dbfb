"""Certificates on a real host: the units with their own rights, and nginx under systemd."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts_client import answers, cli
from ssl_authority import Authority, pem

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

NGINX = Path("/usr/sbin/nginx")
UNIT = """
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart=/usr/sbin/nginx
ExecReload=/usr/sbin/nginx -s reload
ExecStop=/usr/sbin/nginx -s stop
"""
CONFIGURATION = """
user www-data; worker_processes 1; pid /run/nginx.pid; error_log /var/log/nginx/error.log notice;
events {}
http {
  access_log off;
  server { listen 443 ssl; ssl_certificate /etc/ssl/hostler/full.pem;
    ssl_certificate_key /etc/ssl/hostler/key.pem; return 204; }
}
"""
SETTINGS = """
[ssl]
install_directories = ["/etc/ssl/hostler"]
servers."nginx.service" = {kind = "nginx"}
"""
DEPLOYMENT = """
name = "web"
subject_names = ["a.test"]
[key]
path = "/etc/ssl/hostler/key.pem"
[full_chain]
path = "/etc/ssl/hostler/full.pem"
"""
SERVER = """
[[servers]]
kind = "nginx"
listeners = ["127.0.0.1:443"]
"""


@pytest.fixture
def web(h1: Host) -> Iterator[Host]:
    """A host with this machine's nginx and its libraries, as a unit; it goes again afterwards."""
    listed = subprocess.run(["ldd", NGINX], capture_output=True, text=True, check=True).stdout
    libraries = [Path(found) for found in re.findall(r"=> (/\S+)", listed)]
    settings = h1.run(["cat", "/etc/hostler/hostler.toml"]).stdout
    have = h1.run(["ls", *map(str, libraries)], check=False).stdout.split()
    for path in (NGINX, *(p for p in libraries if str(p) not in have)):
        h1.put(str(path), path.read_bytes(), 0o755)
    h1.run(["mkdir", "-p", "/etc/nginx", "/var/log/nginx", "/var/lib/nginx", "/etc/ssl/hostler"])
    h1.put("/etc/nginx/nginx.conf", CONFIGURATION)
    h1.put("/run/systemd/system/nginx.service", UNIT)
    h1.put("/etc/hostler/hostler.toml", settings.replace("[ssl]\n", SETTINGS))
    h1.run(["systemctl", "daemon-reload"])
    h1.run(["systemctl", "stop", "hostler-ssl.service"])
    yield h1
    h1.run(["systemctl", "stop", "nginx.service"], check=False)
    h1.run(["systemctl", "stop", "hostler-ssl.service", "hostler-ssl-installer.service"])
    gone = ["/etc/nginx", "/var/log/nginx", "/var/lib/nginx", "/etc/ssl/hostler", str(NGINX)]
    h1.run(["rm", "-rf", *gone, "/run/systemd/system/nginx.service"])
    for name in ("deployments", "attempts", "obtained"):
        h1.run(["rm", "-rf", f"/var/lib/hostler/ssl/{name}"])
    h1.put("/etc/hostler/hostler.toml", settings)
    h1.run(["systemctl", "daemon-reload"])


def serial(host: Host) -> int:
    """The serial number of what is served, as openssl of the host sees it."""
    line = "openssl s_client -connect 127.0.0.1:443 -servername a.test </dev/null 2>/dev/null"
    said = host.run(["sh", "-c", f"{line} | openssl x509 -noout -serial"]).stdout
    return int(said.strip().removeprefix("serial="), 16)


def test_from_a_key_on_the_host_to_a_certificate_that_is_served(
    lab: Lab, web: Host, tmp_path: Path
) -> None:
    authority, path = Authority("corporate"), tmp_path / "web.toml"
    words = ("-H", web.name, "--yes", "ssl")

    def install(status: int = 0) -> tuple[int, str]:
        csr = answers(lab, *words, "csr", "web")[web.name]["result"]["csr_pem"]
        leaf = authority.issue(csr)
        (tmp_path / "chain.pem").write_text(pem(leaf, authority.intermediate))
        done = cli(lab, *words, "install", "web", str(tmp_path / "chain.pem"), status=status)
        return leaf.serial_number, done.stderr

    path.write_text(DEPLOYMENT)
    cli(lab, *words, "deployment", "apply", "-f", str(path))
    install()
    web.run(["systemctl", "start", "nginx.service"])
    path.write_text(DEPLOYMENT + SERVER)
    cli(lab, *words, "deployment", "apply", "-f", str(path))
    pid = web.run(["cat", "/run/nginx.pid"]).stdout
    good, _ = install()
    assert serial(web) == good
    # The same process reloaded, and what it cannot read is taken back.
    assert web.run(["cat", "/run/nginx.pid"]).stdout == pid
    web.put("/etc/nginx/nginx.conf", CONFIGURATION.replace("return 204", "return two"))
    _, said = install(status=1)
    assert "syntax check failed" in said and "everything is as it was before" in said
    assert serial(web) == good
    web.put("/etc/nginx/nginx.conf", CONFIGURATION)
    owner = web.run(["stat", "-c", "%U:%G %a", "/etc/ssl/hostler/key.pem"]).stdout.strip()
    assert owner == "root:root 600"
    told = json.loads(cli(lab, "-H", web.name, "-o", "json", "ssl", "deployment", "list").stdout)
    assert told[0]["result"]["deployments"][0]["installed"]["subject"] == ""
    # No core of it is ever written, and the daemon has not the way to the keys.
    shown = web.run(["systemctl", "show", "-p", "LimitCORE", "hostler-ssl-installer.service"])
    assert shown.stdout.strip() == "LimitCORE=0"
    denied = web.run(
        ["runuser", "-u", "hostler-ssl", "--", "ls", "/var/lib/hostler-ssl-installer"], check=False
    )
    assert denied.returncode != 0
    journal = web.run(["journalctl", "--no-pager", "-u", "hostler-ssl*"], check=False).stdout
    assert journal and "PRIVATE KEY" not in journal


def test_the_responder_hands_out_what_the_daemon_put_there(web: Host) -> None:
    web.run(["systemctl", "start", "hostler-ssl-challenge.socket"])
    try:
        token = "t" * 43
        line = f"umask 022; echo -n answer >/run/hostler-acme/{token}"
        web.run(["runuser", "-u", "hostler-ssl", "--", "sh", "-c", line])
        url = "http://127.0.0.1/.well-known/acme-challenge/"
        ask = f"import urllib.request as r; print(r.urlopen('{url}{token}').read().decode())"
        assert web.run(["python3", "-c", ask]).stdout == "answer\n"
    finally:
        web.run(["systemctl", "stop", "hostler-ssl-challenge.socket"])
        web.run(["sh", "-c", "rm -f /run/hostler-acme/*"])


def test_the_timer_is_armed_and_says_its_zone(web: Host) -> None:
    shown = web.run(["systemctl", "show", "-p", "TimersCalendar", "hostler-ssl-renew.timer"])
    assert "UTC" in shown.stdout
