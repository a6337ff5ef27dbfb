#!/usr/bin/python3 -I
"""Does by mount(8) and swapon(8) what systemd does with a unit, where no systemd runs.

It is called as systemctl(1) is: `daemon-reload`, `start`, `stop`, `reload`, `show`, `is-active`.
Units are read below the folder that this file lies in. There a file `required` has the names of
units that require each one, and `instead` a device that is mounted in place of the right one.
"""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = ("etc/systemd/system", "run/systemd/system")


def unit(name: str) -> dict[str, str]:
    """What the unit says, as systemd has it since it last read it."""
    parser = ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for folder in FOLDERS:
        if parser.read(HERE / folder / name):
            return {**parser["Mount" if name.endswith(".mount") else "Swap"]}
    # It is stopped when its file has gone already: by what the kernel has.
    raise SystemExit(5)


def run(*argv: str) -> None:
    raise SystemExit(subprocess.run(argv, check=False).returncode)


def main() -> None:
    words = [one for one in sys.argv[1:] if not one.startswith("--")]
    verb, names = words[0], words[1:]
    with (HERE / "asked").open("a") as log:
        log.write(" ".join(words) + "\n")
    if verb in ("show", "is-active"):
        required = HERE / "required"
        lines = required.read_text() if required.exists() else ""
        print(lines if verb == "show" else "active\n" * len(names))
    elif verb in ("start", "stop", "reload"):
        said = unit(names[0])
        options = ("-o", said.get("Options", "defaults"))
        if "Where" not in said:
            argv = ("swapon", *options) if verb == "start" else ("swapoff",)
            run(f"/usr/sbin/{argv[0]}", *argv[1:], said["What"])
        elif verb == "stop":
            run("/usr/bin/umount", said["Where"])
        elif verb == "reload":
            run("/usr/bin/mount", "-o", f"remount,{said['Options']}", said["Where"])
        else:
            instead = HERE / "instead"
            what = instead.read_text() if instead.exists() else said["What"]
            run("/usr/bin/mount", "-t", said["Type"], *options, what, said["Where"])


if __name__ == "__main__":
    main()
