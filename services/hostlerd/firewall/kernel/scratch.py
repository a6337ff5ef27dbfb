"""The child of a scratch check: loads pieces of an nft text one after the other.

Runs as a script of its own inside fresh user and network namespaces, with the standard library
alone. Reads a JSON list of texts; writes `{"piece": N, "errors": "..."}` for the first that nft
refused, or `{"listed": "..."}` with what nft lists then: the names of the tables, or with the
argument `--json` all that is in them.
"""

import json
import subprocess
import sys

_NFT = ("/usr/sbin/nft", "-f", "-")
_TABLES = ("/usr/sbin/nft", "list", "tables")
_ALL = ("/usr/sbin/nft", "-j", "list", "ruleset")
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_PIECE_TIMEOUT_S = 30


def main() -> None:
    """Load the pieces until one is refused."""
    result: dict[str, object] = {}
    for number, text in enumerate(json.load(sys.stdin)):
        done = subprocess.run(
            _NFT,
            input=text.encode(),
            capture_output=True,
            env=_ENVIRONMENT,
            timeout=_PIECE_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            errors = done.stderr.decode(errors="replace")[:65536]
            result = {"piece": number, "errors": errors}
            break
    else:
        listed = subprocess.run(
            _ALL if "--json" in sys.argv[1:] else _TABLES,
            capture_output=True,
            env=_ENVIRONMENT,
            timeout=_PIECE_TIMEOUT_S,
            check=True,
        )
        result["listed"] = listed.stdout.decode(errors="replace")
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
