"""Builds the objects of the tracer: each `*.bpf.c` of the daemons into a `.bpf.o` beside it.

Runs with the build hook and as a command: `python packaging/build_bpf.py`. Needs clang and the
headers of libbpf (Debian: clang, libbpf-dev); where the object runs, neither is needed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 120
FLAGS = (
    *("-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86"),
    # For asm/types.h, which -target bpf does not look for by itself.
    "-I/usr/include/x86_64-linux-gnu",
)


def build_bpf(root: Path = ROOT) -> None:
    """Compile all sources below `services/`. Raises CalledProcessError if clang refuses one.

    Each is built aside and swapped in, so a process that loads one finds the old or the new.
    """
    for source in sorted((root / "services").rglob("*.bpf.c")):
        fresh = source.with_suffix(".o.new")
        # Where the tree lies is not to be found in the object: equal sources, equal bytes.
        named = str(source.relative_to(root))
        command = ["/usr/bin/clang", *FLAGS, "-fdebug-compilation-dir=/", "-c", named]
        subprocess.run([*command, "-o", str(fresh)], cwd=root, check=True, timeout=TIMEOUT_S)
        fresh.rename(source.with_suffix(".o"))


if __name__ == "__main__":
    build_bpf()
