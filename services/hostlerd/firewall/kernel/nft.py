"""The table `inet hostler` in the kernel, by way of nft(8)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter as Tally
from pathlib import Path
from typing import Any

from hostlerd.firewall.errors import NftRejected, ScratchUnavailable, ToolFailed
from hostlerd.firewall.kernel import pieces
from hostlerd.firewall.kernel.tool import run
from hostlerd.firewall.model.state import BaseChain, Counter, RuleKey, Table

_NFT = "/usr/sbin/nft"
_SCRATCH = ("/usr/bin/unshare", "-Urn", "/usr/bin/python3", "-I", "-S")
_CHILD = str(Path(__file__).with_name("scratch.py"))

# Inside a user namespace nft cannot force a larger socket buffer: about 30 kB of our text fit into
# one transaction there, with sets less. What does not fit is tried in halves.
_PIECE_BYTES = 20_000
_TOO_LONG = "Message too long"

_HANDLE = re.compile(rb'"handle": \d+(, )?')
_COUNTS = re.compile(rb'"counter": \{"packets": \d+, "bytes": \d+\}')


def read_counters(table: str) -> dict[RuleKey, Counter]:
    """Answer the counters of a table of ours, of family inet. Raises ToolFailed."""
    answer = run([_NFT, "-j", "list", "table", "inet", table])
    if answer.status != 0:
        _refuse_all_but_absent(answer.errors)
        return {}
    return _counters(answer.output)


def read_table() -> Table | None:
    """Answer the table as the kernel has it, None if it has none. Raises ToolFailed."""
    answer = run([_NFT, "-j", "list", "table", "inet", "hostler"])
    if answer.status != 0:
        _refuse_all_but_absent(answer.errors)
        return None
    plain = _COUNTS.sub(b'"counter": {}', _HANDLE.sub(b"", answer.output))
    return Table(hashlib.sha256(plain).hexdigest(), _counters(answer.output))


def read_text() -> str:
    """Answer the table in nft's words, empty if there is none. Raises ToolFailed."""
    answer = run([_NFT, "list", "table", "inet", "hostler"])
    if answer.status != 0:
        _refuse_all_but_absent(answer.errors)
    return answer.output.decode(errors="replace") if answer.status == 0 else ""


def foreign_tables() -> tuple[str, ...]:
    """Answer the names of all other tables, such as "ip nat"."""
    tables = (entry["table"] for entry in _listed("tables") if "table" in entry)
    names = [f"{t['family']} {t['name']}" for t in tables]
    return tuple(sorted(n for n in names if n != "inet hostler"))


def foreign_chains() -> tuple[BaseChain, ...]:
    """Answer the base chains of all other tables."""
    chains = (entry["chain"] for entry in _listed("chains") if "chain" in entry)
    return tuple(
        BaseChain(c["family"], c["table"], c["name"], c["hook"], c.get("policy", ""))
        for c in chains
        if "hook" in c and (c["family"], c["table"]) != ("inet", "hostler")
    )


def replace(text: str) -> None:
    """Put the table in place of the one there is, in one transaction, counters carried over.

    Raises NftRejected, with nothing changed; ToolFailed.
    """
    have = read_table()
    counted = pieces.with_counters(text, have.counters if have else {})
    # Declaring it first lets the deletion pass where there was none.
    _load("table inet hostler\ndelete table inet hostler\n" + counted, ("", "", *_lines(counted)))


def load_other(table: str, text: str) -> None:
    """Put another table of ours, of family inet, in place of the one there is; "" deletes it.

    Raises NftRejected, with nothing changed; ToolFailed.
    """
    _load(f"table inet {table}\ndelete table inet {table}\n{text}", ("", "", *_lines(text)))


def delete() -> None:
    """Delete the table if it is there. Raises NftRejected, ToolFailed."""
    _load("table inet hostler\ndelete table inet hostler\n", ())


def check(text: str) -> None:
    """Load the table into a namespace that ends with the check: what `nft -c` passes may yet fail.

    Raises NftRejected, naming the rule; ScratchUnavailable; ToolFailed.
    """
    size = _PIECE_BYTES
    while True:
        parts = list(pieces.cut(text, size))
        refused = _try_in_scratch([p.text for p in parts])
        if refused is None:
            return
        number, errors = refused
        if _TOO_LONG not in errors or size == 0:
            raise _rejected(errors, parts[number].lines)
        size = size // 4 if size > 1000 else 0


def check_unapplied(text: str) -> None:
    """Let nft and the kernel look at the table without applying it: less than `check` sees.

    Raises NftRejected, ToolFailed.
    """
    answer = run([_NFT, "-c", "-f", "-"], text.encode())
    if answer.status != 0:
        raise _rejected(answer.errors, _lines(text))


def _load(text: str, lines: tuple[str, ...]) -> None:
    answer = run([_NFT, "-f", "-"], text.encode())
    if answer.status != 0:
        raise _rejected(answer.errors, lines)


def _try_in_scratch(texts: list[str]) -> tuple[int, str] | None:
    answer = run([*_SCRATCH, _CHILD], json.dumps(texts).encode())
    if answer.status != 0:
        last = answer.errors.strip().splitlines()[-1:] or [f"exit status {answer.status}"]
        raise ScratchUnavailable(f"no scratch namespace: {last[0]}", stderr=answer.errors[:2000])
    result = json.loads(answer.output)
    return (result["piece"], result["errors"]) if result else None


def _rejected(errors: str, lines: tuple[str, ...]) -> NftRejected:
    label, rule_text = pieces.culprit(errors, lines)
    first = errors.strip().splitlines()[:1] or ["nft gave no reason"]
    words = re.sub(r"^/dev/stdin:\d+:[\d-]+: ", "", first[0])
    message = f"{label}: {words}" if label else words
    return NftRejected(message, rule=label, rule_text=rule_text, stderr=errors[:2000])


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines())


def _refuse_all_but_absent(errors: str) -> None:
    """Raise ToolFailed unless the error means that there is no table."""
    if "No such file or directory" not in errors:
        first = errors.strip().splitlines()[:1] or ["nft gave no reason"]
        raise ToolFailed(f"nft cannot list: {first[0]}", tool=_NFT, stderr=errors[:2000])


def _listed(what: str) -> list[dict[str, Any]]:
    answer = run([_NFT, "-j", "list", what])
    if answer.status != 0:
        raise ToolFailed(f"nft cannot list {what}", tool=_NFT, stderr=answer.errors[:2000])
    entries: list[dict[str, Any]] = json.loads(answer.output)["nftables"]
    return entries


def _counters(listing: bytes) -> dict[RuleKey, Counter]:
    seen: Tally[tuple[str, str]] = Tally()
    found: dict[RuleKey, Counter] = {}
    for entry in json.loads(listing)["nftables"]:
        rule = entry.get("rule")
        if rule is None or "comment" not in rule:
            continue
        chain, label = rule["chain"], rule["comment"].partition(" ")[0]
        told = next((e["counter"] for e in rule["expr"] if "counter" in e), None)
        # A named counter is told by its name: not one of ours.
        if not isinstance(told, dict):
            continue
        key = RuleKey(chain, label, seen[chain, label])
        seen[chain, label] += 1
        found[key] = Counter(told["packets"], told["bytes"])
    return found
