"""A knock at a sleeping daemon's door: from connect to the first answer over mTLS.

Timed is a new connection, TLS, one call and its answer, while the daemon has to be started for it;
the client's own libraries are loaded before. The calls are `Check` of grpc.health, which needs the
daemon alone, and `GetHost`, for which a fresh daemon probes what its host can do, the launcher's
own activation included. First on this machine, where nothing but the
sockets is given to the daemon, beside a new connection to the same daemon once it is awake: the
difference is what activation costs. Then in a lab host, where systemd starts the installed unit,
beside the same unit with every sandbox option of it switched off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import daemon
import grpc.aio
from lab_host import LabHost, lab_host
from report import Row
from rounds import in_turn
from unary import METHODS, Method

ROUNDS = 7
BUDGET_S = 20.0
UNIT = "hostler-netns.service"
LAUNCHER_UNIT = "hostler-launcher.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d"

# Every sandbox option and the value that means it is off. Source: systemd.exec(5). The user, the
# capabilities and the folders are no sandbox here: without them it would be another daemon.
OFF = {
    "DevicePolicy": "auto",
    "LockPersonality": "no",
    "MemoryDenyWriteExecute": "no",
    "NoNewPrivileges": "no",
    "PrivateDevices": "no",
    "PrivateMounts": "no",
    "PrivateTmp": "no",
    "PrivateUsers": "no",
    "ProcSubset": "all",
    "ProtectClock": "no",
    "ProtectControlGroups": "no",
    "ProtectHome": "no",
    "ProtectHostname": "no",
    "ProtectKernelLogs": "no",
    "ProtectKernelModules": "no",
    "ProtectKernelTunables": "no",
    "ProtectProc": "default",
    "ProtectSystem": "no",
    "ReadWritePaths": "",
    "RestrictAddressFamilies": "",
    "RestrictNamespaces": "no",
    "RestrictRealtime": "no",
    "RestrictSUIDSGID": "no",
    "SystemCallArchitectures": "",
    "SystemCallErrorNumber": "",
    "SystemCallFilter": "",
}


def without_sandbox(unit: str) -> str:
    """Answer a drop-in that switches off the sandbox options that a unit sets."""
    keys = {line.partition("=")[0].strip() for line in unit.splitlines() if "=" in line}
    lines = [f"{key}={value}" for key, value in OFF.items() if key in keys]
    return "\n".join(["[Service]", *lines, ""])


async def first_answer(open_channel: Callable[[], grpc.aio.Channel], method: Method) -> float:
    """Call on a new connection; answers the milliseconds until the answer was there."""
    start = time.perf_counter()
    async with open_channel() as channel:
        await method(channel)()
        return (time.perf_counter() - start) * 1e3


def here(title: str, method: Method) -> Row:
    """Measure the daemon alone, on this machine."""
    with daemon.folder() as place:
        served = daemon.prepare(place, daemon.make_authority(place))

        def awake() -> float:
            return asyncio.run(first_answer(served.channel, method))

        def asleep() -> float:
            served.stop()
            served.listen()
            return awake()

        with daemon.listening(served):
            asleep()  # Writes what Python compiles.
            found = in_turn({"asleep": asleep, "awake": awake}, ROUNDS, BUDGET_S)
    metric = f"{title}, ms to the first answer, no sandbox, this machine"
    return Row("activation", metric, tuple(found["asleep"]), tuple(found["awake"]), "awake daemon")


def in_lab(lab: LabHost, title: str, method: Method) -> Row:
    """Measure the installed unit in a lab host, with its sandbox and without."""
    drop_in = without_sandbox(lab.systemctl("cat", UNIT))
    lab.host.run(["/usr/bin/mkdir", "-p", DROP_IN])

    def run(sandboxed: bool) -> float:
        put_to_sleep(lab, "" if sandboxed else drop_in)
        return asyncio.run(first_answer(lambda: lab.channel("netns"), method))

    for sandboxed in (True, False):
        run(sandboxed)
    contestants = {"sandboxed": lambda: run(True), "bare": lambda: run(False)}
    found = in_turn(contestants, ROUNDS, BUDGET_S)
    metric = f"{title}, ms to the first answer, sandboxed unit, lab host"
    ours, peer = tuple(found["sandboxed"]), tuple(found["bare"])
    return Row("activation", metric, ours, peer, "unit without sandbox")


def put_to_sleep(lab: LabHost, drop_in: str) -> None:
    """Stop the daemon and the launcher, as idleness would, and give the daemon's unit a drop-in."""
    lab.host.put(f"{DROP_IN}/bench.conf", drop_in)
    lab.systemctl("daemon-reload")
    lab.systemctl("stop", UNIT, LAUNCHER_UNIT)
    if lab.daemons():
        raise AssertionError(f"a daemon is awake: {lab.daemons()}")


def rows() -> list[Row]:
    """Measure here, then in the lab."""
    made = [here(title, method) for title, method in METHODS.items()]
    with lab_host() as lab:
        return made + [in_lab(lab, title, method) for title, method in METHODS.items()]
