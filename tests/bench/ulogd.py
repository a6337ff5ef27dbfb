"""ulogd2 as its manual has it, in a network namespace, writing JSON lines or into SQLite."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import recipes

DAEMON = Path("/usr/sbin/ulogd")
PACKAGES = {"ulogd_output_JSON.so": "ulogd2-json", "ulogd_output_SQLITE3.so": "ulogd2-sqlite3"}
START_S, END_S = 1.0, 30.0

# The receive buffer has the same size as ours.
CONF = """\
[global]
logfile="{folder}/ulogd.log"
loglevel=5
plugin="{plugins}/ulogd_inppkt_NFLOG.so"
plugin="{plugins}/ulogd_raw2packet_BASE.so"
plugin="{plugins}/ulogd_filter_IFINDEX.so"
plugin="{plugins}/ulogd_filter_IP2STR.so"
plugin="{plugins}/ulogd_output_{output.plugin}.so"
stack=log:NFLOG,base:BASE,ifi:IFINDEX,ip2str:IP2STR,out:{output.plugin}
[log]
group={group}
numeric_label=0
netlink_socket_buffer_size=33554432
netlink_socket_buffer_maxsize=33554432
netlink_qthreshold=64
netlink_qtimeout=10
[out]
{output.key}="{written}"
{output.more}
"""
# It stores what there are columns for.
TABLE = (
    "CREATE TABLE packets (oob_time_sec INT, oob_time_usec INT, oob_prefix TEXT, oob_in TEXT, "
    "oob_out TEXT, ip_saddr_str TEXT, ip_daddr_str TEXT, ip_protocol INT, ip_totlen INT, "
    "udp_sport INT, udp_dport INT)"
)


@dataclass(frozen=True, slots=True)
class Output:
    """An output plugin, its key for where it writes, and what else is to be set."""

    plugin: str
    key: str
    more: str


JSON = Output("JSON", "file", "sync=0")
SQLITE = Output("SQLITE3", "db", 'table="packets"')


def install() -> None:
    """Install what is missing; only the program is run, not the service of its package."""
    missing = [p for so, p in PACKAGES.items() if not list(Path("/usr/lib").glob(f"*/ulogd/{so}"))]
    if missing or not DAEMON.exists():
        argv = ["/usr/bin/apt-get", "-qq", "-y", "install", "--no-install-recommends"]
        recipes.tool([*argv, "ulogd2", *missing])


def make_store(path: Path) -> None:
    """Make the database that SQLITE writes to."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(TABLE)


@contextmanager
def running(
    namespace: str, folder: Path, group: int, output: Output, written: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run it with one of the outputs above; the last records are written when it ends."""
    (plugins,) = Path("/usr/lib").glob("*/ulogd")
    conf = folder / "ulogd.conf"
    values = {"folder": folder, "group": group, "output": output, "written": written}
    conf.write_text(CONF.format(plugins=plugins, **values))
    argv = [recipes.IP, "netns", "exec", namespace, str(DAEMON), "-c", str(conf)]
    process = subprocess.Popen(argv)
    try:
        time.sleep(START_S)
        if process.poll() is not None:
            raise RuntimeError(f"ulogd2 ended: {(folder / 'ulogd.log').read_text()[-500:]}")
        yield process
        process.terminate()
        process.wait(END_S)
    finally:
        process.kill()
        process.wait(END_S)
