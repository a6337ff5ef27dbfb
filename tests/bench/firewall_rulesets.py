"""The rulesets of the firewall's benchmarks, as documents."""

from __future__ import annotations

from typing import Any

RULES, ELEMENTS, CHANGED = 10_000, 100_000, 10
FEWER_RULES = 1_000
FIRST_PORT = 1_000


def many(turn: int = 0) -> dict[str, Any]:
    """Rules on input and a set; another turn has ten other rules."""
    step = RULES // CHANGED
    rules = [
        {
            "id": f"r{n}",
            "hook": "input",
            "action": "drop" if turn % 2 and n % step == 0 else "accept",
            "protocol": "tcp",
            "sources": [f"10.{n // 250}.{n % 250}.0/24"],
            "destination_ports": [{"first": 1 + n % 6000}],
        }
        for n in range(RULES - 1)
    ]
    blocked = {"id": "blocked", "hook": "input", "action": "drop", "source_sets": ["blocked"]}
    return {
        "name": "many",
        "address_sets": [{"name": "blocked", "elements": elements()}],
        "rules": [blocked, *rules],
    }


def elements() -> list[str]:
    """Addresses that do not touch, so that none are merged."""
    return [f"{11 + n // 32_512}.{n // 127 % 256}.{n % 127}.1" for n in range(ELEMENTS)]


def fewer(turn: int) -> dict[str, Any]:
    """UDP ports that are not forwarded, before other rules; each turn has all others."""
    rules = [
        {
            "id": f"t{turn}-r{n}",
            "hook": "forward",
            "action": action(turn),
            "protocol": "udp",
            "destination_ports": [{"first": FIRST_PORT + n}],
        }
        for n in range(FEWER_RULES)
    ]
    return {"name": "fewer", "priority": 10, "rules": rules}


def action(turn: int) -> str:
    """What all rules of a turn do."""
    return "drop" if turn % 2 else "reject"
