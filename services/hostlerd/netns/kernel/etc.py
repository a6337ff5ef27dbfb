"""The files that a namespace's processes see in /etc, kept in RUN_DIR/etc/NAME/."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hostlerd.netns.model.seen import EtcFiles

_NAMES = {
    "resolv.conf": "resolv_conf",
    "nsswitch.conf": "nsswitch_conf",
    "hosts": "hosts",
    "hostname": "hostname",
}


class EtcFolders:
    """The folders of all namespaces. Processes get the files by bind mounts that systemd makes."""

    def __init__(self, run_dir: Path) -> None:
        self._root = run_dir / "etc"

    def read(self, name: str) -> EtcFiles | None:
        """Read the files of a namespace; None if none is there. A missing one reads as empty."""
        folder = self._root / name
        if not folder.is_dir():
            return None
        texts = {}
        for file, field in _NAMES.items():
            texts[field] = ""
            with suppress(FileNotFoundError):
                texts[field] = (folder / file).read_text(errors="replace")
        return EtcFiles(**texts)

    def names(self) -> set[str]:
        """Name the namespaces that have a folder."""
        with suppress(FileNotFoundError):
            return {path.name for path in self._root.iterdir()}
        return set()

    def write(self, name: str, files: EtcFiles) -> None:
        """Write the files, mode 0644: the processes that read them have users of their own.

        They are written in place, since a bind mount keeps the file that it was made of: processes
        that run already see the change.
        """
        folder = self._root / name
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for file, field in _NAMES.items():
            path = folder / file
            text: str = getattr(files, field)
            if not path.is_file() or path.read_text(errors="replace") != text:
                path.write_text(text)
                path.chmod(0o644)

    def remove(self, name: str) -> None:
        """Remove the files and the folder."""
        folder = self._root / name
        for file in _NAMES:
            (folder / file).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            folder.rmdir()
