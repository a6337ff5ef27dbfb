"""What the kernel and systemd of a guest tell of a Hostler process: its control group, its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hosts_client import START, create_request
from vm_guest import Guest
from vm_suite import Suite

from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.channel import rpc

CREATE = rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
LIST = rpc(process_pb2, "ProcessService", "ListProcesses")
NAMESPACE = "box"
# In the guest, since a round trip takes as long as what is measured. A line of `cpu.stat` is
# "usage_usec 5", one of `io.stat` is "254:16 rbytes=5 wbytes=7".
_RATE = """
import pathlib, sys, time
file, head, key, seconds = pathlib.Path(sys.argv[1]), *sys.argv[2:4], float(sys.argv[4])
def read():
    for line in file.read_text().splitlines():
        words = line.replace("=", " ").split()
        if words[0] == head and key in words:
            return int(words[words.index(key) + 1])
    return 0
value, start = read(), time.monotonic()
time.sleep(seconds)
print((read() - value) / (time.monotonic() - start))
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A namespace without links in a guest, and the processes that a test starts in it."""

    guests: Suite
    guest: Guest

    def start(self, name: str, argv: list[str], **limits: Any) -> None:
        """Start a process by the SDK, with limits as in the API."""
        process = process_pb2.Process(
            name=name, namespace=NAMESPACE, argv=argv, limits=process_pb2.Limits(**limits)
        )
        self._call(START, process_pb2.StartProcessRequest(process=process))

    def _call(self, method: Any, request: Any) -> Any:
        with self.guests.client() as client:
            (host,) = client.select(self.guest.name)
            with client.session(host) as session:
                return session.call(method, request)

    def create(self) -> None:
        """Make the namespace."""
        self._call(CREATE, create_request(NAMESPACE))

    def status(self, name: str) -> Any:
        """What Hostler says of a process."""
        request = process_pb2.ListProcessesRequest(namespace=NAMESPACE)
        found = {p.process.name: p for p in self._call(LIST, request).processes}
        return found[name]

    # What follows asks the kernel and systemd, not Hostler.

    def unit(self, name: str) -> str:
        return f"hostler-run-{NAMESPACE}.{name}.service"

    def shown(self, name: str, what: str) -> str:
        """A property of the unit, as systemd has it."""
        return self.guest.run(["systemctl", "show", "-P", what, self.unit(name)]).stdout.strip()

    def group(self, name: str, file: str) -> str:
        """A file of the process's control group."""
        return self.guest.read(f"/sys/fs/cgroup/system.slice/{self.unit(name)}/{file}").strip()

    def counts(self, name: str, file: str) -> dict[str, int]:
        """A file of it that has a name and a number in each line."""
        return {k: int(v) for k, v in (x.split() for x in self.group(name, file).splitlines())}

    def rate(self, name: str, file: str, key: str, seconds: float, device: str = "") -> float:
        """By how much a number in a file of it, or a device's, grows in a second."""
        path = f"/sys/fs/cgroup/system.slice/{self.unit(name)}/{file}"
        argv = ["python3", "-IS", "-c", _RATE, path, device or key, key, str(seconds)]
        return float(self.guest.run(argv).stdout)

    def lines(self, name: str) -> list[str]:
        """What the process has written, from the journal."""
        argv = ["journalctl", "-q", "-o", "cat", f"_SYSTEMD_UNIT={self.unit(name)}"]
        self.guest.run(["journalctl", "--sync"])
        return self.guest.run(argv).stdout.splitlines()

    def kernel_log(self) -> list[str]:
        """The kernel's messages."""
        return self.guest.run(["dmesg"]).stdout.splitlines()
