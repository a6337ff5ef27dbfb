"""Builds the Python stubs of `protos/` into `client/hostler/api/`.

Runs as a hatchling build hook and as a command: `python packaging/build_protos.py`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


def build_protos(root: Path = ROOT) -> None:
    """Replace `client/hostler/api/` with freshly built stubs. Raises RuntimeError if protoc fails.

    They are built aside and swapped in, so a failed build leaves the old ones.
    """
    protos = root / "protos"
    sources = sorted(str(p.relative_to(protos)) for p in protos.rglob("*.proto"))
    target = root / "client" / "hostler" / "api"
    with tempfile.TemporaryDirectory(dir=root / "client") as scratch:
        outcome = protoc.main(
            [
                "protoc",
                f"-I{protos}",
                f"-I{WELL_KNOWN}",
                f"--python_out={scratch}",
                f"--pyi_out={scratch}",
                f"--grpc_python_out={scratch}",
                *sources,
            ]
        )
        if outcome != 0:
            raise RuntimeError(f"protoc failed with status {outcome}")
        built = Path(scratch) / "hostler" / "api"
        for folder in (built, *(d for d in built.rglob("*") if d.is_dir())):
            (folder / "__init__.py").touch()
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)


class BuildProtos(BuildHookInterface):  # type: ignore[type-arg]
    """The build hook: what is built is part of every wheel and editable install, not of the tree.

    That is the stubs, and the objects of `build_bpf.py`.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before hatchling collects files."""
        build_protos(Path(self.root))
        # hatchling loads this file alone: its neighbours cannot be imported.
        subprocess.run([sys.executable, Path(self.root) / "packaging" / "build_bpf.py"], check=True)


if __name__ == "__main__":
    build_protos()
