"""What Hostler takes of an idle host's memory: nothing, beside what it would if it stayed.

In a lab host with the installed packages. Awake: each daemon has answered one call over mTLS. Idle:
nobody has called for as long as the configuration says, and all have gone by themselves. PSS counts
memory shared by several processes in equal parts, so it may be summed; RSS counts it in each.
"""

from __future__ import annotations

import asyncio
import re
from operator import itemgetter
from pathlib import Path

from lab_host import LabHost, lab_host
from report import Row
from rounds import wait_until

AWAKE = "daemons awake"
DOMAINS = ("netns", "storage", "firewall", "tracing", "ssl")
IDLE_S = 4
GONE_WITHIN_S = 60.0
Figures = tuple[str, dict[str, float]]
CONFIGURATION = "/etc/hostler/hostler.toml"


def rows() -> list[Row]:
    """Measure a host with its daemons awake, and after they have gone."""
    with lab_host() as lab:
        shorten_idle(lab)
        for domain in DOMAINS:
            asyncio.run(lab.wake(domain))
        awake = figures(lab)
        wait_until(lambda: not lab.daemons(), GONE_WITHIN_S, "all daemons gone by themselves")
        idle = figures(lab)
    return [
        Row("memory", "processes of Hostler, idle host", (len(idle),), (len(awake),), AWAKE, 0.0),
        Row("memory", "MB PSS in all, idle host", (total(idle),), (total(awake),), AWAKE, 0.0),
        *(
            Row("memory", f"MB {kind} of {name}, awake", (megabytes[kind],))
            for name, megabytes in awake
            for kind in ("RSS", "PSS")
        ),
    ]


def shorten_idle(lab: LabHost) -> None:
    """Let the daemons of the host go after a few seconds; what is measured does not change."""
    text = lab.host.run(["/usr/bin/cat", CONFIGURATION]).stdout
    changed, number = re.subn(r"(?m)^idle_s = .*$", f"idle_s = {IDLE_S}", text)
    if number != 1:
        raise AssertionError(f"{CONFIGURATION} has no idle_s")
    lab.host.put(CONFIGURATION, changed)


def figures(lab: LabHost) -> list[Figures]:
    """Answer the names and sizes of Hostler's processes in the host."""
    found = ((name_of(line), megabytes(pid)) for pid, line in lab.daemons().items())
    return sorted(found, key=itemgetter(0))


def megabytes(pid: int) -> dict[str, float]:
    """Answer RSS and PSS of a process in 10^6 bytes. Source: proc(5), smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = dict(re.findall(r"(?m)^(Rss|Pss): +(\d+) kB$", text))
    return {"RSS": int(found["Rss"]) * 1024 / 1e6, "PSS": int(found["Pss"]) * 1024 / 1e6}


def total(processes: list[Figures]) -> float:
    """Sum up the PSS of all."""
    return sum(each["PSS"] for _, each in processes)


def name_of(line: str) -> str:
    """Answer what a command line runs: hostlerd-netns, launcher."""
    word = next(word for word in line.split() if word.startswith("/opt/hostler/"))
    path = Path(word)
    return path.parent.name if path.name == "__main__.py" else path.name
