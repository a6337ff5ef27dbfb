"""The steps that changes of namespaces are made of.

Here are those about the namespace itself and its files; `link_steps` has those about its links.
Each step says with `lack` how a namespace that needs it differs from what was asked for, which is
how drift is put into words.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.netns.model.namespace import Namespace
from hostlerd.netns.model.seen import EtcFiles
from hostlerd.runtime.steps import Step


@dataclass(frozen=True, slots=True)
class SaveSpec:
    """Record what was asked for, before all else, so that a half-made thing has an owner."""

    spec: Namespace
    before: Namespace | None = None

    @property
    def survives_boot(self) -> bool:
        """Whether a record that a boot brings back is written or replaced."""
        return self.spec.persistent or bool(self.before and self.before.persistent)

    def describe(self) -> str:
        """Say what it does."""
        how = "for every boot" if self.spec.persistent else "until the next boot"
        return f"record {self.spec.name} {how}"

    def inverse(self) -> Step:
        """Put the old record back."""
        return SaveSpec(self.before, self.spec) if self.before else ForgetSpec(self.spec.name)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return "it is on record in another shape"


@dataclass(frozen=True, slots=True)
class ForgetSpec:
    """Drop the record of a namespace; the last step of its end."""

    name: str
    before: Namespace | None = None

    @property
    def survives_boot(self) -> bool:
        """Whether a boot would have brought it back; of a record that is lost, nobody knows."""
        return self.before is None or self.before.persistent

    def describe(self) -> str:
        """Say what it does."""
        return f"forget {self.name}"

    def inverse(self) -> Step | None:
        """Record it again."""
        return SaveSpec(self.before) if self.before else None


@dataclass(frozen=True, slots=True)
class WriteDns:
    """Write resolv.conf, nsswitch.conf, hosts and hostname of a namespace."""

    name: str
    files: EtcFiles
    before: EtcFiles | None = None

    def describe(self) -> str:
        """Say what it does."""
        servers = [
            line.split()[1]
            for line in self.files.resolv_conf.splitlines()
            if line.startswith("nameserver")
        ]
        told = ", ".join(servers) if servers else "no server"
        return f"write resolv.conf ({told}), nsswitch.conf, hosts and hostname of {self.name}"

    def inverse(self) -> Step:
        """Put the old files back."""
        return WriteDns(self.name, self.before) if self.before else RemoveDns(self.name)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return "its resolv.conf, nsswitch.conf, hosts or hostname file is not as asked for"


@dataclass(frozen=True, slots=True)
class RemoveDns:
    """Remove the files that WriteDns wrote."""

    name: str
    before: EtcFiles | None = None

    def describe(self) -> str:
        """Say what it does."""
        return f"remove resolv.conf, nsswitch.conf, hosts and hostname of {self.name}"

    def inverse(self) -> Step | None:
        """Write them again."""
        return WriteDns(self.name, self.before) if self.before else None


@dataclass(frozen=True, slots=True)
class CreateNetns:
    """Make a network namespace with `lo` up. It has no name before PublishNetns."""

    name: str

    def describe(self) -> str:
        """Say what it does."""
        return f"make a network namespace for {self.name}"

    def inverse(self) -> Step:
        """Remove it."""
        return RemoveNetns(self.name)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return "there is no such network namespace in the kernel"


@dataclass(frozen=True, slots=True)
class PublishNetns:
    """Give finished namespaces their handles in /run/netns, so nobody meets a half-made one."""

    names: tuple[str, ...]

    def describe(self) -> str:
        """Say what it does."""
        return "publish " + ", ".join(f"/run/netns/{name}" for name in self.names)

    def inverse(self) -> Step:
        """Take the handles away."""
        return WithdrawNetns(self.names)

    def lack(self) -> str:
        """Say how what needs this differs."""
        return "its handle is missing"


@dataclass(frozen=True, slots=True)
class WithdrawNetns:
    """Take the handles away; the namespaces live on until the end of the change."""

    names: tuple[str, ...]

    def describe(self) -> str:
        """Say what it does."""
        return "withdraw " + ", ".join(f"/run/netns/{name}" for name in self.names)

    def inverse(self) -> Step:
        """Publish them again."""
        return PublishNetns(self.names)


@dataclass(frozen=True, slots=True)
class RemoveNetns:
    """Remove a namespace's handle; the kernel ends the namespace with its last user.

    `remake` holds the steps that make it again.
    """

    name: str
    remake: tuple[Step, ...] = ()

    def describe(self) -> str:
        """Say what it does."""
        return f"remove the network namespace {self.name}"

    def inverse(self) -> Step | None:
        """Make it again."""
        return Remake(self.name, self.remake) if self.remake else None


@dataclass(frozen=True, slots=True)
class Remake:
    """Carry out steps as one: the way back of a step that took away much."""

    what: str
    steps: tuple[Step, ...]

    def describe(self) -> str:
        """Say what it does."""
        return f"make {self.what} again"

    def inverse(self) -> Step | None:
        """Have none: it is itself a way back."""
        return None
