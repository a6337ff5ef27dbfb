"""Starts the watcher, or has it take back at once whatever is pending.

`__main__.py`, `__main__.py revert`. It finds its own folder by itself, so that nothing else need be
importable.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import import_module
from pathlib import Path


def load_own_folder() -> None:
    """Make this folder, and nothing around it, importable as the package `pending`."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "pending", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    if spec is None or spec.loader is None:
        sys.exit("pending: its own folder cannot be read")
    package = importlib.util.module_from_spec(spec)
    sys.modules["pending"] = package
    spec.loader.exec_module(package)


def main(argv: list[str]) -> None:
    """Do what the words say."""
    os.umask(0o027)
    load_own_folder()
    place = import_module("pending.place").Place()
    match argv:
        case []:
            start = import_module("pending.units").start
            import_module("pending.watcher").Watcher(place, start).run()
        case ["revert"]:
            import_module("pending.asking").revert(place)
        case _:
            sys.exit("pending: expects no word, or `revert`")


if __name__ == "__main__":
    main(sys.argv[1:])
