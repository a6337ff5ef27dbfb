"""The names of the probe's attempts, read off its source: it runs where it is not imported."""

from __future__ import annotations

import ast
from pathlib import Path


def _attempts() -> tuple[str, ...]:
    tree = ast.parse(Path(__file__).with_name("sandbox_probe.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id == "ATTEMPTS" and node.value is not None:
                return tuple(n.id for n in ast.walk(node.value) if isinstance(n, ast.Name))
    raise LookupError("the probe has no ATTEMPTS")


ATTEMPTS = tuple(sorted(_attempts()))
