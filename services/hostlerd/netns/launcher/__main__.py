"""Starts the launcher: as the service, as the first program of a process, or at its end.

`__main__.py [--listen PATH]`, `__main__.py enter NAMESPACE NAME`, `__main__.py ended NAMESPACE
NAME`. It finds its own folder, and that of the doors, by itself, so that nothing else need be
importable.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def load_own_folders() -> None:
    """Make this folder and that of the doors importable, and nothing around them."""
    here = Path(__file__).resolve().parent
    # It has no path: nothing else of Hostler can be found by its name.
    sys.modules["hostlerd"] = ModuleType("hostlerd")
    load("hostlerd.privileged", here.parents[1] / "privileged")
    load("launcher", here)


def load(name: str, folder: Path) -> None:
    """Make a folder importable as the package of that name."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        sys.exit(f"launcher: {folder} cannot be read")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


def main(argv: list[str]) -> None:
    """Do what the words say."""
    load_own_folders()
    if argv[:1] in (["enter"], ["ended"]):
        if len(argv) != 3:
            sys.exit("launcher: expects a namespace and a name")
        import_module("launcher.grammar").check_names(argv[1], argv[2])
        if argv[0] == "enter":
            import_module("launcher.enter").enter(argv[1], argv[2])
        os.umask(0o077)
        try:
            import_module("launcher.endings").ended(argv[1], argv[2])
        except import_module("hostlerd.privileged.refused").Refused as e:
            sys.exit(f"launcher: {e}")
        return
    os.umask(0o022)
    path = Path(argv[1]) if argv[:1] == ["--listen"] and len(argv) == 2 else None
    server = import_module("launcher.server")
    server.serve(server.listening_socket(path))


if __name__ == "__main__":
    main(sys.argv[1:])
