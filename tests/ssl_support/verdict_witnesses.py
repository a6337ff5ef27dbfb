"""The verdicts of `openssl verify` and of GnuTLS's `certtool --verify` on a case."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from verdict_case import Case, pem_of

from hostler.core.ssl.host_name import WantedName
from hostler.core.ssl.profile import USAGE_OIDS, Usage

_NO_WORD = re.compile(r"\W")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def openssl_accepts(case: Case, folder: Path) -> bool:
    """Whether openssl takes the leaf, with what is given as untrusted."""
    roots, given, leaf = (_written(case, folder, which) for which in ("roots", "given", "leaf"))
    purpose = "sslserver" if case.usage is Usage.SERVER else "sslclient"
    # Policies are not processed unless it is told to.
    any_policy = ["-policy", "2.5.29.32.0", "-policy_check"]
    asked = any_policy if case.category == "policy" else []
    if case.name is not None:
        kind = WantedName.parse(case.name).kind
        asked = [*asked, f"-verify_{'ip' if kind == 'ip' else 'hostname'}", case.name]
    return _run(
        ["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", str(roots),
         *(["-untrusted", str(given)] if case.given else []), "-purpose", purpose, *asked,
         str(leaf)]
    )  # fmt: skip


def gnutls_accepts(case: Case, folder: Path) -> bool:
    """Whether GnuTLS takes the leaf, with what is given after it as a server sends it."""
    roots, sent = _written(case, folder, "roots"), _written(case, folder, "sent")
    asked = [] if case.name is None else [f"--verify-hostname={case.name}"]
    return _run(
        ["certtool", "--verify", f"--load-ca-certificate={roots}", f"--infile={sent}",
         f"--verify-purpose={USAGE_OIDS[case.usage]}", *asked]
    )  # fmt: skip


def _written(case: Case, folder: Path, which: str) -> Path:
    specs = {
        "roots": case.roots,
        "given": case.given,
        "leaf": [case.leaf],
        "sent": [case.leaf, *case.given],
    }[which]
    path = folder / f"{_NO_WORD.sub('-', case.id)}.{which}.pem"
    if not path.exists():
        path.write_bytes(pem_of(specs))
    return path


def _run(argv: list[str]) -> bool:
    done = subprocess.run(
        argv, capture_output=True, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=60
    )
    return done.returncode == 0
