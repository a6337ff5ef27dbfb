"""firewalld as its package has it, in a network namespace, with a bus and a configuration apart.

Neither the machine's own bus nor its own network sees anything of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import recipes
from firewall_rulesets import FIRST_PORT
from rounds import wait_until

DAEMON, COMMAND, BUS = "/usr/sbin/firewalld", "/usr/bin/firewall-cmd", "/usr/bin/dbus-daemon"
START_S, TIMEOUT_S = 120.0, 120.0
# Where it keeps short-lived files, whatever it is told.
TEMPORARY = Path("/run/firewalld")
BUS_CONF = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>{address}</listen>
  <policy user="root">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
CONF = "FirewallBackend=nftables\nFlushAllOnReload=yes\n"
ZONE = '<zone><interface name="{ifname}"/>{more}</zone>\n'
POLICY = """\
<policy target="ACCEPT">
<ingress-zone name="ANY"/>
<egress-zone name="ANY"/>
{rules}</policy>
"""
RULE = '<rule family="ipv4"><port port="{port}" protocol="udp"/><{action}/></rule>\n'


def install() -> None:
    """Install the package if it is missing. Its service is not wanted, nor what it recommends."""
    if not Path(DAEMON).exists():
        argv = ["/usr/bin/apt-get", "-qq", "-y", "install", "--no-install-recommends"]
        recipes.tool([*argv, "firewalld"])


@dataclass(frozen=True, slots=True)
class Firewalld:
    """A running firewalld: the folder of its configuration, and the environment of its callers."""

    folder: Path
    environment: dict[str, str]

    def reload(self) -> None:
        """Let it read its configuration anew and make the kernel have that."""
        self._command("--reload")

    def is_running(self) -> bool:
        """Answer whether it is up, its first ruleset included."""
        with suppress(RuntimeError):
            return self._command("--state").strip() == "running"
        return False

    def write_rules(self, count: int, action: str) -> None:
        """Write so many rules on UDP ports, for what is forwarded; no reload."""
        rules = "".join(RULE.format(port=FIRST_PORT + n, action=action) for n in range(count))
        (self.folder / "policies/through.xml").write_text(POLICY.format(rules=rules))

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"firewall-cmd {arguments}: {done.stderr[-500:]}")
        return done.stdout


@contextmanager
def running(namespace: str, place: Path, count: int) -> Iterator[Firewalld]:
    """Run it in a namespace with so many rules; what comes by eth0's way out is masqueraded."""
    folder, socket, log = place / "firewalld", place / "bus.sock", place / "firewalld.log"
    for name in ("zones", "policies"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "firewalld.conf").write_text(CONF)
    (folder / "zones/external.xml").write_text(ZONE.format(ifname="eth0", more="<masquerade/>"))
    (folder / "zones/internal.xml").write_text(ZONE.format(ifname="eth1", more=""))
    address = f"unix:path={socket}"
    (place / "bus.conf").write_text(BUS_CONF.format(address=address))
    made = Firewalld(folder, {**recipes.ENVIRONMENT, "DBUS_SYSTEM_BUS_ADDRESS": address})
    made.write_rules(count, "drop")
    bus = [BUS, f"--config-file={place / 'bus.conf'}", "--nofork", "--nopidfile", "--nosyslog"]
    argv = [recipes.IP, "netns", "exec", namespace, DAEMON, "--nofork", "--nopid"]
    argv += [f"--system-config={folder}", "--log-target=file", f"--log-file={log}"]
    was_there = TEMPORARY.exists()
    try:
        with _process(bus, recipes.ENVIRONMENT):
            wait_until(socket.exists, START_S, "a bus")
            with _process(argv, made.environment):
                wait_until(made.is_running, START_S, "firewalld")
                yield made
    finally:
        socket.unlink(missing_ok=True)
        if not was_there:
            with suppress(OSError):
                TEMPORARY.rmdir()


@contextmanager
def _process(argv: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
