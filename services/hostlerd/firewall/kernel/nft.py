"""The table `inet hostler` in the kernel, by way of nft(8)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hostlerd.firewall.errors import NftRejected, ScratchUnavailable, TableForeign, ToolFailed
from hostlerd.firewall.kernel import pieces, transaction
from hostlerd.firewall.kernel.handles import handles
from hostlerd.firewall.kernel.text import FAMILIES, label_of
from hostlerd.firewall.kernel.tool import run
from hostlerd.firewall.kernel.transaction import Chain, Listed
from hostlerd.firewall.model.state import BaseChain, Counter, RuleKey, Table

_NFT = "/usr/sbin/nft"
OURS = ("inet hostler", "bridge hostler", "inet hostler_shadow")
SCRATCH = ("/usr/bin/unshare", "-Urn", "/usr/bin/python3", "-I", "-S")
CHILD = str(Path(__file__).with_name("scratch.py"))

# Inside a user namespace nft cannot force a larger socket buffer: about 30 kB of our text fit into
# one transaction there, with sets less. What does not fit is tried in halves.
PIECE_BYTES = 20_000
_TOO_LONG = "Message too long"
_made = [0]

# What a kernel that lacks something says when it is asked for, and where.
_LACKS = (
    ("Protocol error", " ct ", "this kernel does not track what bridges carry"),
    ("No such file", "flowtable ", "this kernel has no flowtables, or a link of it has gone"),
)

_CHAIN = re.compile(r"\tchain (\S+) \{")
_SET = re.compile(r"\tset (\S+) \{")
_RULE = re.compile(r"\t\t(.*) # handle (\d+)$")
_COUNTER = re.compile(r"\bcounter packets (\d+) bytes (\d+)")
_STATIC = 'comment "static"'


def read_table(known: Mapping[str, str] | None = None) -> Table | None:
    """Answer the tables as the kernel has them, None if it has none. Raises ToolFailed.

    Counters, handles and elements of dynamic sets are no part of the fingerprint. `known` are the
    parts of it that need no reading: of sets that nobody can have changed.
    """
    return read_listed(known)[0]


def read_listed(known: Mapping[str, str] | None = None) -> tuple[Table | None, str]:
    """Answer what `read_table` does, and what nft lists for it, elements left out."""
    parts: dict[str, str] = {}
    listed = ""
    for family in FAMILIES:
        text = _list("-s", "-t", "list", "table", family, "hostler")
        if not text:
            continue
        listed += text
        parts[family] = _sha256(text)
        for name in _static_sets(text):
            key = f"{family} {name}"
            parts[key] = (known or {}).get(key) or _sha256(
                _list("list", "set", family, "hostler", name)
            )
    return (Table(json.dumps(parts, sort_keys=True)) if parts else None), listed


def read_text() -> str:
    """Answer the tables in nft's words, empty if there is none. Raises ToolFailed."""
    return "".join(_list("list", "table", family, "hostler") for family in FAMILIES)


def table_text(name: str) -> str:
    """Answer another table of ours, of family inet, without elements; empty if it is not there."""
    return _list("-s", "-t", "list", "table", "inet", name)


def read_counters(table: str = "hostler") -> dict[RuleKey, Counter]:
    """Answer the counters of a table of ours, in the order of rules. Raises ToolFailed."""
    families = FAMILIES if table == "hostler" else ("inet",)
    found: dict[RuleKey, Counter] = {}
    for family in families:
        found |= (
            _read_rules(family, _list("-a", "-t", "list", "table", family, table)).counters or {}
        )
    return found


def foreign_tables() -> tuple[str, ...]:
    """Answer the names of all other tables, such as "ip nat"."""
    tables = (entry["table"] for entry in _listed("tables") if "table" in entry)
    names = [f"{t['family']} {t['name']}" for t in tables]
    return tuple(sorted(n for n in names if n not in OURS))


def foreign_text(most_bytes: int) -> str:
    """Answer the tables of others in nft's words, cut at so many bytes. Raises ToolFailed."""
    text = ""
    for name in foreign_tables():
        text += _list("list", "table", *name.split(" ", 1))
        if len(text.encode()) > most_bytes:
            cut = text.encode()[:most_bytes].decode(errors="ignore")
            return cut.rpartition("\n")[0] + "\n# there is more\n"
    return text


def foreign_chains() -> tuple[BaseChain, ...]:
    """Answer the base chains of all other tables."""
    chains = (entry["chain"] for entry in _listed("chains") if "chain" in entry)
    return tuple(
        BaseChain(c["family"], c["table"], c["name"], c["hook"], c.get("policy", ""))
        for c in chains
        if "hook" in c and f"{c['family']} {c['table']}" not in OURS
    )


def replace(
    text: str, applied: str | None, saved: Mapping[tuple[str, str], str] | None = None
) -> None:
    """Put the tables in place of those there are, in one transaction.

    `applied` is the text they were made of, if they are still as that says; then what stays is not
    touched. Else they are made anew, with the counters and the elements of dynamic sets that there
    are. `saved` are the elements of dynamic sets that are not there yet, by family and name.
    Raises NftRejected, with nothing changed; ToolFailed.
    """
    commands = None
    if applied is not None:
        try:
            commands = _step(applied, text, saved or {})
        except transaction.CannotStep:
            commands = None
    if commands is None:
        commands = transaction.whole(text, _listed_whole(saved or {}))
    if commands:
        _load(commands, _lines(commands))


def _step(applied: str, text: str, saved: Mapping[Chain, str]) -> str:
    chains = transaction.chains_to_list(applied, text)
    try:
        known = {(family, name): handles(family, name) for family, name in chains}
        return transaction.step(applied, text, Listed(known, None, saved))
    except transaction.CountersNeeded:
        return transaction.step(applied, text, _listed_chains(chains, saved))


def load_other(table: str, text: str) -> None:
    """Put another table of ours, of family inet, in place of the one there is; "" deletes it.

    Raises NftRejected, with nothing changed; ToolFailed.
    """
    _load(f"table inet {table}\ndelete table inet {table}\n{text}", ("", "", *_lines(text)))


def delete() -> None:
    """Delete the tables if they are there. Raises NftRejected, ToolFailed."""
    _load("".join(f"table {f} hostler\ndelete table {f} hostler\n" for f in FAMILIES), ())


def check(text: str) -> None:
    """Load the table into a namespace that ends with the check: what `nft -c` passes may yet fail.

    Raises NftRejected, naming the rule; ScratchUnavailable; ToolFailed.
    """
    size = PIECE_BYTES
    while True:
        parts = list(pieces.cut(text, size))
        result = _try_in_scratch([p.text for p in parts])
        if "piece" not in result:
            _refuse_foreign(result["listed"])
            return
        number, errors = result["piece"], result["errors"]
        if _TOO_LONG not in errors or size == 0:
            raise _rejected(errors, parts[number].lines)
        size = size // 4 if size > 1000 else 0


def try_verbatim(text: str) -> None:
    """Load a text as it is into a namespace that ends with it: what `check` leaves out as well.

    Raises NftRejected, ScratchUnavailable, ToolFailed.
    """
    result = _try_in_scratch([text])
    if "piece" in result:
        raise _rejected(result["errors"], _lines(text))


def check_unapplied(text: str) -> None:
    """Let nft and the kernel look at the table without applying it: less than `check` sees.

    Raises NftRejected, ToolFailed.
    """
    answer = run([_NFT, "-c", "-f", "-"], text.encode())
    if answer.status != 0:
        raise _rejected(answer.errors, _lines(text))


def transactions() -> int:
    """Answer how many transactions this process has made: each is one generation of the kernel's.

    For one thread at a time, as changes are.
    """
    return _made[0]


def _load(text: str, lines: tuple[str, ...]) -> None:
    answer = run([_NFT, "-f", "-"], text.encode())
    if answer.status != 0:
        raise _rejected(answer.errors, lines)
    _made[0] += 1


def _try_in_scratch(texts: list[str]) -> dict[str, Any]:
    answer = run([*SCRATCH, CHILD], json.dumps(texts).encode())
    if answer.status != 0:
        last = answer.errors.strip().splitlines()[-1:] or [f"exit status {answer.status}"]
        raise ScratchUnavailable(f"no scratch namespace: {last[0]}", stderr=answer.errors[:2000])
    result: dict[str, Any] = json.loads(answer.output)
    return result


def _refuse_foreign(tables: str) -> None:
    """Refuse a text that has made more than our tables, as a fragment must not."""
    found = {line.removeprefix("table ").strip() for line in tables.splitlines() if line}
    foreign = sorted(found - {*OURS})
    if foreign:
        raise TableForeign(f"this would make the table {foreign[0]}", table=foreign[0])


def _rejected(errors: str, lines: tuple[str, ...]) -> NftRejected:
    label, rule_text = pieces.culprit(errors, lines)
    first = errors.strip().splitlines()[:1] or ["nft gave no reason"]
    words = re.sub(r"^/dev/stdin:\d+:[\d-]+: ", "", first[0])
    words += "".join(f": {lack}" for e, at, lack in _LACKS if e in words and at in f" {rule_text}")
    message = f"{label}: {words}" if label else words
    return NftRejected(message, rule=label, rule_text=rule_text, stderr=errors[:2000])


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines())


def _list(*words: str) -> str:
    """Answer what nft lists; empty if it is not there. Raises ToolFailed."""
    answer = run([_NFT, *words])
    if answer.status == 0:
        return answer.output.decode(errors="replace")
    if "No such file or directory" not in answer.errors:
        first = answer.errors.strip().splitlines()[:1] or ["nft gave no reason"]
        raise ToolFailed(f"nft cannot list: {first[0]}", tool=_NFT, stderr=answer.errors[:2000])
    return ""


def _listed(what: str) -> list[dict[str, Any]]:
    answer = run([_NFT, "-j", "list", what])
    if answer.status != 0:
        raise ToolFailed(f"nft cannot list {what}", tool=_NFT, stderr=answer.errors[:2000])
    entries: list[dict[str, Any]] = json.loads(answer.output)["nftables"]
    return entries


def _listed_chains(chains: Sequence[Chain], saved: Mapping[tuple[str, str], str]) -> Listed:
    numbers: dict[Chain, Sequence[int]] = {}
    counters: dict[RuleKey, Counter] = {}
    for family, name in chains:
        rules = _read_rules(family, _list("-a", "-t", "list", "chain", family, "hostler", name))
        numbers |= rules.handles
        counters |= rules.counters or {}
    return Listed(numbers, counters, saved)


def _listed_whole(saved: Mapping[tuple[str, str], str]) -> Listed:
    elements: dict[Chain, str] = {**saved}
    for family in FAMILIES:
        text = _list("-s", "-t", "list", "table", family, "hostler")
        for name in _sets(text):
            if name not in _static_sets(text):
                elements[family, name] = elements_text(name, family)
    return Listed({}, read_counters(), elements)


def elements_text(name: str, family: str = "inet") -> str:
    """Answer what a set of ours holds, with timeouts and what is left of them, in nft's words."""
    return elements_of(set_text(name, family))


def set_text(name: str, family: str = "inet") -> str:
    """Answer a set of ours in nft's words; empty if it is not there. Raises ToolFailed."""
    return _list("list", "set", family, "hostler", name)


def elements_of(text: str) -> str:
    """Answer the elements of a set as nft lists it, in its words."""
    _, _, rest = text.partition("elements = {")
    return " ".join(rest.partition("}")[0].split())


def load(text: str) -> None:
    """Carry out commands on our tables, in one transaction.

    Raises NftRejected, with nothing changed; ToolFailed.
    """
    _load(text, _lines(text))


def _read_rules(family: str, text: str) -> Listed:
    numbers: dict[Chain, list[int]] = {}
    counters: dict[RuleKey, Counter] = {}
    seen: Tally[tuple[str, str]] = Tally()
    chain = ""
    for line in text.splitlines():
        if head := _CHAIN.match(line):
            chain = head[1]
            numbers[family, chain] = []
        elif (rule := _RULE.match(line)) and chain:
            numbers[family, chain].append(int(rule[2]))
            label = label_of(rule[1])
            counted = _COUNTER.search(rule[1])
            if label and counted:
                key = RuleKey(chain, label, seen[chain, label])
                seen[chain, label] += 1
                counters[key] = Counter(int(counted[1]), int(counted[2]))
        elif line == "\t}":
            chain = ""
    return Listed(numbers, counters)


def _sets(text: str) -> list[str]:
    return [head[1] for line in text.splitlines() if (head := _SET.match(line))]


def _static_sets(text: str) -> list[str]:
    lines = text.splitlines()
    return [
        head[1]
        for number, line in enumerate(lines)
        if (head := _SET.match(line))
        and any(_STATIC in each for each in lines[number + 1 : number + 5])
    ]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
