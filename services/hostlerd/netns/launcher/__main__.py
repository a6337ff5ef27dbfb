"""Starts the launcher: as the service, as the first program of a process, or at its end.

`__main__.py [--listen PATH]`, `__main__.py enter NAMESPACE NAME`, `__main__.py ended NAMESPACE
NAME`. It finds its own folder by itself, so that nothing else need be importable.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import import_module
from pathlib import Path


def load_own_folder() -> None:
    """Make this folder, and nothing around it, importable as the package `launcher`."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "launcher", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    if spec is None or spec.loader is None:
        sys.exit("launcher: its own folder cannot be read")
    package = importlib.util.module_from_spec(spec)
    sys.modules["launcher"] = package
    spec.loader.exec_module(package)


def main(argv: list[str]) -> None:
    """Do what the words say."""
    load_own_folder()
    if argv[:1] in (["enter"], ["ended"]):
        if len(argv) != 3:
            sys.exit("launcher: expects a namespace and a name")
        import_module("launcher.grammar").check_names(argv[1], argv[2])
        if argv[0] == "enter":
            import_module("launcher.enter").enter(argv[1], argv[2])
        os.umask(0o077)
        try:
            import_module("launcher.endings").ended(argv[1], argv[2])
        except import_module("launcher.refused").Refused as e:
            sys.exit(f"launcher: {e}")
        return
    os.umask(0o022)
    server = import_module("launcher.server")
    server.serve(server.listening_socket(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
