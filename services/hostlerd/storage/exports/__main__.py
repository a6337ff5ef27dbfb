"""Makes the kernel export what is defined, and nothing else of ours.

`[--wait-s S] [--definitions FOLDER] [--report FILE] [--target FOLDER]`. It ends with status 1 if
something could not be exported, and the report says what and why. At a boot it waits for devices
and addresses to come.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from hostlerd.storage.model.iscsi import Export
from hostlerd.storage.worker import export_kept as kept
from hostlerd.storage.worker import sysfs
from hostlerd.storage.worker.export_kept import Kept
from hostlerd.storage.worker.lio import Target
from hostlerd.storage.worker.refused import Refused

_AGAIN_S = 1.0


def main() -> None:
    """Do it once, or until all is there."""
    parser = argparse.ArgumentParser(prog="hostlerd-storage-exports", description=__doc__)
    parser.add_argument("--wait-s", type=float, default=0.0)
    parser.add_argument("--definitions", type=Path, default=kept.FOLDER)
    parser.add_argument("--report", type=Path, default=kept.REPORT)
    parser.add_argument("--target", type=Path, default=sysfs.TARGET)
    words = parser.parse_args()
    os.umask(0o077)
    end = time.monotonic() + words.wait_s
    while True:
        failed = once(words.definitions, words.report, words.target)
        if not failed or time.monotonic() >= end:
            break
        time.sleep(_AGAIN_S)
    for name, why in failed.items():
        print(f"{name}: {why}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


def once(definitions: Path, report: Path, root: Path) -> dict[str, str]:
    """Make it so; answer what could not be made, and why. Raises OSError."""
    fd = os.open(definitions, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Two may be told to at once: at a boot, and by the worker.
        fcntl.flock(fd, fcntl.LOCK_EX)
        failed = reconcile(kept.read(definitions), root)
        kept.save(report, json.dumps(failed).encode(), 0o600)
    finally:
        os.close(fd)
    return failed


def reconcile(wanted: dict[str, Kept], root: Path) -> dict[str, str]:
    """Export what is wanted, and take away what is not. What is there as it should be is left."""
    if not root.is_dir():
        words = f"{root} is not there: the kernel has no target, or its module is not loaded"
        return dict.fromkeys(wanted, words)
    target = Target(root)
    made, there = target.made(), frozenset(target.names())
    right = {
        name
        for name, one in wanted.items()
        if made.get(name) == one.mark and one.export.target in there
    }
    kept_targets = {wanted[name].export.target for name in right}
    failed = _unmake(target, there - kept_targets, set(made) - right)
    for name, one in wanted.items():
        if name not in right and (why := _make(target, one)):
            failed[name] = why
    return failed


def _unmake(target: Target, targets: Iterable[str], devices: Iterable[str]) -> dict[str, str]:
    """Take all of these away, targets first; answer what could not be, and why."""
    failed = {}
    steps: list[tuple[str, Callable[[str], None]]] = [
        *((one, target.unmake_target) for one in sorted(targets)),
        *((one, target.unmake_device) for one in sorted(devices)),
    ]
    for name, unmake in steps:
        try:
            unmake(name)
        except OSError as e:
            failed[name] = f"what was there could not be taken away: {_words(e)}"
    return failed


def _make(target: Target, one: Kept) -> str:
    """Export one; answer why it could not be, and then nothing of it is left."""
    export = one.export
    try:
        number = proven(export)
        release(Path(export.link).resolve(strict=True).name)
        target.make(export, one.told_secret(), one.mark)
        if target.number(export.name) == number:
            return ""
        why = f"{export.link} became another device meanwhile"
    except Refused as e:
        why = e.message
    except OSError as e:
        why = _words(e)
    left = _unmake(target, [export.target], [export.name])
    return "; then ".join([why, *left.values()])


def release(name: str) -> None:
    """Let go of a device that md has taken at boot for an array that nobody uses.

    The first root of a host (initramfs) has md's rules of udev and not ours: it takes a leg of
    another host's array for one of this host's. An inactive array serves nobody; what is begun
    without its other members is read-auto until the first write. Raises OSError.
    """
    for holder in sysfs.names(sysfs.BLOCK / name / "holders"):
        place = sysfs.BLOCK / holder
        is_alone = sysfs.names(place / "slaves") == (name,)
        if is_alone and sysfs.text(place / "md/array_state") in ("inactive", "read-auto"):
            (place / "md/array_state").write_text("clear")


def proven(export: Export) -> str:
    """MAJOR:MINOR of the device that is defined. Raises Refused if another one is there, OSError.

    Its link, size, serial number and WWN must be those of the definition.
    """
    name = Path(export.link).resolve(strict=True).name
    folder = (sysfs.BLOCK / name).resolve(strict=True)
    number, whole = sysfs.text(folder / "dev"), sysfs.whole_disk(folder)
    known = sysfs.udev(number)
    facts = (
        ("size", export.size_bytes, sysfs.number(folder / "size") * sysfs.SECTOR_BYTES),
        ("serial number", export.serial, sysfs.serial(whole, known)),
        ("WWN", export.wwn, sysfs.wwn(whole, known)),
    )
    for word, planned, found in facts:
        if planned != found:
            words = f"{export.link}: its {word} is {found or 'none'}, not {planned or 'none'}"
            raise Refused("DEVICE_CHANGED", words)
    return number


def _words(error: OSError) -> str:
    return f"{error.filename or 'the kernel'}: {error.strerror}"


if __name__ == "__main__":
    main()
