"""Certificates on a real host: the units with their own rights, and nginx under systemd."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts_client import answers, cli
from nginx_lab import SERVES, nginx_on, served_serial
from ssl_authority import Authority, pem

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

# As Apache does when the key that it reads is not that of the new certificate.
DIES = """
[Service]
ExecReload=
ExecReload=/bin/sh -c '(sleep {after_s}; kill -KILL $MAINPID) &'
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
    """A host with nginx as a unit, which does not run yet."""
    with nginx_on(h1, SERVES) as host:
        yield host


def deployed(lab: Lab, web: Host, folder: Path) -> Callable[..., tuple[int, str]]:
    """A deployment that nginx serves; answers what installs a new certificate in it.

    That is given the status that is expected, and answers the serial number and what was said.
    """
    authority, path = Authority("corporate"), folder / "web.toml"
    words = ("-H", web.name, "--yes", "ssl")

    def install(status: int = 0) -> tuple[int, str]:
        csr = answers(lab, *words, "csr", "web")[web.name]["result"]["csr_pem"]
        leaf = authority.issue(csr)
        (folder / "chain.pem").write_text(pem(leaf, authority.intermediate))
        done = cli(lab, *words, "install", "web", str(folder / "chain.pem"), status=status)
        return leaf.serial_number, done.stderr

    path.write_text(DEPLOYMENT)
    cli(lab, *words, "deployment", "apply", "-f", str(path))
    install()
    web.run(["systemctl", "start", "nginx.service"])
    path.write_text(DEPLOYMENT + SERVER)
    cli(lab, *words, "deployment", "apply", "-f", str(path))
    return install


@pytest.mark.parametrize("after_s", ["0", "0.5"])
def test_a_server_that_the_new_files_end_is_there_again_with_the_old_ones(
    lab: Lab, web: Host, tmp_path: Path, after_s: str
) -> None:
    install = deployed(lab, web, tmp_path)
    good, _ = install()
    pid = web.run(["cat", "/run/nginx.pid"]).stdout
    web.run(["mkdir", "-p", "/run/systemd/system/nginx.service.d"])
    try:
        web.put("/run/systemd/system/nginx.service.d/dies.conf", DIES.format(after_s=after_s))
        web.run(["systemctl", "daemon-reload"])
        _, said = install(status=1)
        assert "everything is as it was before" in said
        # It may have ended before systemd saw it reload.
        assert "has ended" in said or "did not reload" in said
        assert served_serial(web) == good
        assert web.run(["cat", "/run/nginx.pid"]).stdout != pid
    finally:
        web.run(["rm", "-r", "/run/systemd/system/nginx.service.d"])


def test_from_a_key_on_the_host_to_a_certificate_that_is_served(
    lab: Lab, web: Host, tmp_path: Path
) -> None:
    install = deployed(lab, web, tmp_path)
    pid = web.run(["cat", "/run/nginx.pid"]).stdout
    good, _ = install()
    assert served_serial(web) == good
    # The same process reloaded, and what it cannot read is taken back.
    assert web.run(["cat", "/run/nginx.pid"]).stdout == pid
    web.put("/etc/nginx/nginx.conf", SERVES.replace("return 204", "return two"))
    _, said = install(status=1)
    assert "syntax check failed" in said and "everything is as it was before" in said
    assert served_serial(web) == good
    web.put("/etc/nginx/nginx.conf", SERVES)
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
