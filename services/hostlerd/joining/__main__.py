"""Answers one request of an enrolment: JSON of at most 4 MiB in, one line of JSON out.

    {"do": "request", "name": …, "token": …}                       -> {"request": PEM}
    {"do": "install", "token": …, "certificate": PEM, "ca": PEM, "bundle": TEXT}
                                                                   -> {"serial": …}
       with "may_go_back": true, one of these follows:
    {"do": "keep"}                                                 -> {}
    {"do": "go back"}                                              -> {"changed": …}
    {"do": "trust", "name": …, "add": PEM, "remove": […], "bundle": TEXT}
                                                                   -> {"trusted": […]}
    {"do": "open", "domains": […]}                                 -> {"units": […]}

What is refused is answered as {"error": {"reason": …, "message": …}}, with status 1.
"""

from __future__ import annotations

import grp
import json
import sys
from pathlib import Path
from typing import Any

from hostlerd.joining.joining import Joining, JoinRefused, open_doors
from hostlerd.joining.trusting import change_trust

MAX_REQUEST_BYTES = 4 * 1024 * 1024


def answer(request: Any, joining: Joining) -> dict[str, Any]:
    """Do what one request says. Raises JoinRefused, OSError."""
    try:
        match request["do"]:
            case "request":
                pem = joining.request(str(request["name"]), str(request["token"]))
                return {"request": pem.decode()}
            case "install":
                certificate, ca, bundle = (
                    str(request[part]).encode() for part in ("certificate", "ca", "bundle")
                )
                serial = joining.install(
                    *(str(request["token"]), certificate, ca, bundle),
                    may_go_back=request.get("may_go_back") is True,
                )
                return {"serial": serial}
            case "keep":
                joining.keep()
                return {}
            case "go back":
                return {"changed": joining.go_back()}
            case "trust":
                added, bundle = (str(request[part]).encode() for part in ("add", "bundle"))
                removed = [str(one) for one in request["remove"]]
                told = change_trust(joining, str(request["name"]), added, removed, bundle)
                return {"trusted": list(told)}
            case "open":
                return {"units": list(open_doors([str(one) for one in request["domains"]]))}
    except (KeyError, TypeError) as e:
        raise JoinRefused("BAD_REQUEST", f"a part is missing or of another kind: {e}") from e
    raise JoinRefused("BAD_REQUEST", "not one of: request, install, keep, go back, trust, open")


def main() -> int:
    """Answer the request on standard input; 0 if it was done."""
    try:
        data = sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
        if len(data) > MAX_REQUEST_BYTES:
            raise JoinRefused("BAD_REQUEST", f"larger than {MAX_REQUEST_BYTES} bytes")
        group = grp.getgrnam("hostler-tls").gr_gid
        joining = Joining(Path("/etc/hostler"), Path("/var/lib/hostler"), group)
        told = answer(json.loads(data), joining)
    except (ValueError, RecursionError) as e:
        told = {"error": {"reason": "BAD_REQUEST", "message": str(e)[:1000]}}
    except JoinRefused as e:
        told = {"error": {"reason": e.reason, "message": str(e)}}
    except KeyError as e:
        told = {"error": {"reason": "NOT_INSTALLED", "message": str(e)}}
    except OSError as e:
        what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        told = {"error": {"reason": "SYSTEM", "message": what}}
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main())
