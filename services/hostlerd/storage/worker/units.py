"""Units of systemd: the files of those that are ours, and having systemd start and stop them.

Source: systemd.unit(5), systemctl(1).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hostlerd.storage.model.mount import TIMEOUT_S_MOST, Unit, install, parse, render
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

_LASTING, _PASSING = "etc/systemd/system", "run/systemd/system"
_OF_PACKAGES = ("usr/local/lib/systemd/system", "usr/lib/systemd/system")
_UNIT_BYTES_MOST = 64 << 10
# systemd waits so long for a device, and for mount(8), unless a unit says otherwise.
_START_TIMEOUT_S = 200.0 + TIMEOUT_S_MOST
_LOOK_TIMEOUT_S = 30.0
_TARGETS = ("local-fs.target", "remote-fs.target", "swap.target")


@dataclass(frozen=True, slots=True)
class Kept:
    """A unit that is ours, and the topmost folder that was made for it."""

    unit: Unit
    made: str = ""


@dataclass(frozen=True, slots=True)
class Units:
    """The folders below `root`, and the systemctl that is asked."""

    root: Path = Path("/")
    systemctl: str = "/usr/bin/systemctl"

    @property
    def lasting(self) -> Path:
        """The folder of units of this host's own that outlive a boot."""
        return self.root / _LASTING

    def read(self, name: str) -> Kept | None:
        """The unit of a name; None if there is none. Raises Refused if it is not ours."""
        for folder in _OF_PACKAGES:
            if os.path.lexists(self.root / folder / name):
                raise _not_ours(f"/{folder}/{name}")
        found: list[Kept] = []
        for folder in (_LASTING, _PASSING):
            path = self.root / folder / name
            if not os.path.lexists(path):
                continue
            if path.is_symlink() or not path.is_file():
                # A mask, or an alias.
                raise _not_ours(f"/{folder}/{name}")
            with path.open("rb") as file:
                text = file.read(_UNIT_BYTES_MOST).decode("utf-8", "replace")
            one = parse(text, lasting=folder == _LASTING)
            if one is None or one[0].name != name:
                raise _not_ours(f"/{folder}/{name}")
            found.append(Kept(*one))
        # Of two, as a crash may leave them, the lasting one is what systemd takes.
        return found[0] if found else None

    def put(self, name: str, kept: Kept | None) -> None:
        """Have that unit under a name and no other, or none. What is there is ours."""
        if kept is not None:
            folder = self.root / (_LASTING if kept.unit.lasting else _PASSING)
            _write(folder / name, render(kept.unit, kept.made))
        wanted = self._link(name, kept.unit) if kept is not None and kept.unit.lasting else None
        for link in self._links(name):
            if link != wanted:
                _remove(link)
        if wanted is not None and not wanted.is_symlink():
            wanted.parent.mkdir(mode=0o755, exist_ok=True)
            # The umask of the worker is narrower.
            wanted.parent.chmod(0o755)
            wanted.symlink_to(f"/{_LASTING}/{name}")
            _sync(wanted.parent)
        for lasting, place in ((True, _LASTING), (False, _PASSING)):
            if kept is None or kept.unit.lasting != lasting:
                _remove(self.root / place / name)

    def unwanted(self, name: str) -> None:
        """Let no target want a unit any more: stopping it would stop what requires it."""
        for link in self._links(name):
            _remove(link)

    def _link(self, name: str, unit: Unit) -> Path:
        target, how = install(unit)
        return self.root / _LASTING / f"{target}.{how}" / name

    def _links(self, name: str) -> Iterable[Path]:
        places = (
            self.root / _LASTING / f"{target}.{how}" / name
            for target in _TARGETS
            for how in ("wants", "requires")
        )
        return [place for place in places if place.is_symlink()]

    # -- systemd

    def reload(self, tools: Tools) -> None:
        """Have systemd read all units again. Raises Refused."""
        tools.run((self.systemctl, "daemon-reload"), timeout_s=_START_TIMEOUT_S)

    def start(self, tools: Tools, name: str) -> None:
        """Start a unit, to its end. Raises Refused."""
        self._do(tools, "start", name)

    def stop(self, tools: Tools, name: str) -> None:
        """Stop a unit, to its end. Raises Refused."""
        self._do(tools, "stop", name)

    def remount(self, tools: Tools, name: str) -> None:
        """Have a mount take the options of its unit. Raises Refused."""
        self._do(tools, "reload", name)

    def required_by(self, tools: Tools, name: str) -> list[str]:
        """Active units that systemd would stop with this one. Raises Refused."""
        show = (self.systemctl, "show", "--property=RequiredBy,BoundBy,ConsistsOf", "--value")
        said = tools.run((*show, "--", name), timeout_s=_LOOK_TIMEOUT_S).output
        names = sorted({one for one in said.split() if one not in _TARGETS})
        if not names:
            return []
        active = (self.systemctl, "is-active", "--", *names)
        told = tools.run(active, timeout_s=_LOOK_TIMEOUT_S, good=range(256)).output.split()
        pairs = zip(names, told, strict=False)
        return [one for one, state in pairs if state in ("active", "activating", "reloading")]

    def _do(self, tools: Tools, verb: str, name: str) -> None:
        argv = (self.systemctl, "--no-ask-password", verb, "--", name)
        try:
            tools.run(argv, timeout_s=_START_TIMEOUT_S)
        except Refused as e:
            if e.reason != "TOOL_FAILED":
                raise
            stderr = e.metadata.get("stderr", "")
            words = f"{name}: systemd could not {verb} it; `journalctl -u '{name}'` says why"
            raise Refused("MOUNT_FAILED", words, unit=name, stderr=stderr) from None


def _not_ours(path: str) -> Refused:
    return Refused("UNIT_NOT_OURS", f"{path} is not Hostler's", declared_by=path)


def _write(path: Path, text: str) -> None:
    """Write a file that is there in full or not at all, also after a crash."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # systemd reads no file with such an ending.
    new = path.with_name(f".{path.name}.hostler-new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    _sync(path.parent)


def _remove(path: Path) -> None:
    if os.path.lexists(path):
        path.unlink()
        _sync(path.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
