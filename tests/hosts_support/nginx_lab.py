"""This machine's nginx as a unit of a lab's host, and a host that is a certificate authority."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hostler.lab.host import Host

NGINX = Path("/usr/sbin/nginx")
FOLDER = "/etc/ssl/hostler"
SETTINGS = "/etc/hostler/hostler.toml"
#: One server at port 443, with the files of a deployment in FOLDER.
SERVES = f"""
user www-data; worker_processes 1; pid /run/nginx.pid; error_log /var/log/nginx/error.log notice;
events {{}}
http {{
  access_log off;
  server {{ listen 443 ssl; ssl_certificate {FOLDER}/full.pem;
    ssl_certificate_key {FOLDER}/key.pem; return 204; }}
}}
"""
_UNIT = """
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart=/usr/sbin/nginx
ExecReload=/usr/sbin/nginx -s reload
ExecStop=/usr/sbin/nginx -s stop
[Install]
WantedBy=multi-user.target
"""
_SSL = f"""
[ssl]
install_directories = ["{FOLDER}"]
servers."nginx.service" = {{kind = "nginx"}}
"""
_AUTHORITY = """
[authority]
publish_url = "http://{address}:7480"
[authority.profiles.server]
dns_names = ["*.example.net"]
max_validity_days = 30
"""
_AUTHORITY_UNITS = (
    "hostler-ssl-responder.socket",
    "hostler-ssl-responder.service",
    "hostler-ssl-signer.service",
    "hostler-ssl.service",
)


@contextmanager
def nginx_on(host: Host, configuration: str) -> Iterator[Host]:
    """A host with this machine's nginx and its libraries, as a unit that a boot starts again.

    It is not started; certificates go to FOLDER. All goes again afterwards.
    """
    listed = subprocess.run(["ldd", NGINX], capture_output=True, text=True, check=True).stdout
    libraries = [Path(found) for found in re.findall(r"=> (/\S+)", listed)]
    settings = host.run(["cat", SETTINGS]).stdout
    have = host.run(["ls", *map(str, libraries)], check=False).stdout.split()
    for path in (NGINX, *(p for p in libraries if str(p) not in have)):
        host.put(str(path), path.read_bytes(), 0o755)
    host.run(["mkdir", "-p", "/etc/nginx", "/var/log/nginx", "/var/lib/nginx", FOLDER])
    host.put("/etc/nginx/nginx.conf", configuration)
    host.put("/etc/systemd/system/nginx.service", _UNIT)
    host.put(SETTINGS, settings.replace("[ssl]\n", _SSL))
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "stop", "hostler-ssl.service"])
    try:
        yield host
    finally:
        host.run(["systemctl", "disable", "--now", "nginx.service"], check=False)
        host.run(["systemctl", "stop", "hostler-ssl.service", "hostler-ssl-installer.service"])
        gone = ["/etc/nginx", "/var/log/nginx", "/var/lib/nginx", FOLDER, str(NGINX)]
        unit = "/etc/systemd/system/nginx.service"
        host.run(["rm", "-rf", *gone, unit, f"{unit}.d"])
        for name in ("deployments", "attempts", "obtained"):
            host.run(["rm", "-rf", f"/var/lib/hostler/ssl/{name}"])
        host.put(SETTINGS, settings)
        host.run(["systemctl", "daemon-reload"])


def served_serial(host: Host) -> int:
    """The serial number of what port 443 serves, as openssl of the host sees it."""
    line = "openssl s_client -connect 127.0.0.1:443 -servername a.test </dev/null 2>/dev/null"
    said = host.run(["sh", "-c", f"{line} | openssl x509 -noout -serial"]).stdout
    return int(said.strip().removeprefix("serial="), 16)


@contextmanager
def authority_on(host: Host) -> Iterator[Host]:
    """A host that may be made an authority for names below example.net, with its responder."""
    settings = host.run(["cat", SETTINGS]).stdout
    added = _AUTHORITY.format(address=host.ipv4)
    host.put(SETTINGS, settings.replace("\n[authority]\n", added))
    host.run(["systemctl", "stop", *_AUTHORITY_UNITS])
    host.run(["systemctl", "enable", "--now", _AUTHORITY_UNITS[0]])
    try:
        yield host
    finally:
        host.run(["systemctl", "disable", "--now", _AUTHORITY_UNITS[0]])
        host.run(["systemctl", "stop", *_AUTHORITY_UNITS])
        clear = "rm -rf /var/lib/hostler/ssl-authority/* /var/lib/hostler/ssl-responder/*"
        host.run(["sh", "-c", clear])
        host.put(SETTINGS, settings)
