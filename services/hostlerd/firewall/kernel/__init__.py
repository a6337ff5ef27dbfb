"""The edge of the firewall domain to the system."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from hostlerd.firewall.errors import ScratchUnavailable, ToolFailed
from hostlerd.firewall.kernel import conntrack, drift, link, nft, pieces
from hostlerd.firewall.kernel.elements import Elements
from hostlerd.firewall.kernel.elements import read as read_elements
from hostlerd.firewall.kernel.generation import generation
from hostlerd.firewall.kernel.shadow import TABLE as SHADOW_TABLE
from hostlerd.firewall.kernel.shadow import Shadows
from hostlerd.firewall.kernel.store import Store
from hostlerd.firewall.kernel.sysctl import Sysctls
from hostlerd.firewall.kernel.text import has_flowtables, read
from hostlerd.firewall.model.address_set import ChangeElements, Element
from hostlerd.firewall.model.connection import CutConnections
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE, Applied, Counter, RuleKey, State, Table
from hostlerd.firewall.model.steps import (
    DeleteTable,
    ForgetRuleset,
    ReplaceTable,
    SaveRuleset,
    SetSysctl,
    StartShadow,
    StopShadow,
)
from hostlerd.runtime.edge import Recoverable
from hostlerd.runtime.log import get_log
from hostlerd.runtime.steps import Step

log = get_log("firewall.kernel")


class Kernel(Recoverable):
    """Observes and changes the firewall of the network namespace it runs in.

    Of the configuration it reads `management_networks`, a list of the networks that Hostler's own
    ports stay open to whatever rulesets say; all, if it is not there. Raises ValueError for one
    that is none.
    """

    def __init__(self, config: Mapping[str, Any], state_dir: Path, run_dir: Path) -> None:
        listed = config.get("management_networks")
        self.management = tuple(ip_network(n) for n in listed) if listed else EVERYWHERE
        self._store = Store(state_dir, run_dir)
        self._elements = Elements(state_dir, run_dir)
        self._sysctls = Sysctls(run_dir / "sysctls.json")
        self._shadows = Shadows(run_dir)

    def observe(self) -> State:
        """Read all that a plan depends on. Raises ToolFailed, OSError."""
        stored = self._store.load()
        links = link.names()
        applied = self._store.applied()
        table, details = self._read_table(applied)
        return State(
            rulesets=stored.rulesets,
            unreadable=stored.unreadable,
            table=table,
            drift_details=details,
            applied=applied,
            sysctls=self._sysctls.read(links),
            found=self._sysctls.found(),
            links=links,
            ra_links=link.with_advertised_routes(),
            filtered_bridge_networks=link.filtered_bridge_networks(),
            foreign=nft.foreign_chains(),
            management=self.management,
            now_unix_s=int(time.time()),
            shadow=self._shadows.read(),
        )

    def due(self) -> float | None:
        """Answer in how many seconds a rule or the shadow ends; None if nothing does."""
        shadow = self._shadows.read()
        ends = [self._store.next_end(), shadow.expire_time if shadow else None]
        end = min((e for e in ends if e is not None), default=None)
        return None if end is None else end - time.time()

    def sweep(self) -> None:
        """Remove what killed writers have left. Only while no change is carried out."""
        self._store.sweep()
        stored = self._store.load()
        if not stored.unreadable:
            self._elements.sweep({s.name for r in stored.rulesets.values() for s in r.address_sets})

    def saved(self) -> tuple[dict[str, Ruleset], dict[str, datetime]]:
        """Answer the rulesets and when each was changed last, without asking the kernel."""
        stored = self._store.load()
        return stored.rulesets, stored.update_times

    def elements(self, name: str) -> list[Element] | None:
        """Answer what the kernel has in an address set; None if it has no such set.

        Raises ToolFailed.
        """
        return read_elements(name)

    def table_text(self) -> str:
        """Answer the table in nft's words; empty if there is none. Raises ToolFailed."""
        return nft.read_text()

    def foreign_tables(self) -> tuple[str, ...]:
        """Answer the names of the tables of others. Raises ToolFailed."""
        return nft.foreign_tables()

    def foreign_text(self, most_bytes: int) -> str:
        """Answer the tables of others in nft's words, at most so much. Raises ToolFailed."""
        return nft.foreign_text(most_bytes)

    def rule_counters(self) -> dict[RuleKey, Counter]:
        """Answer what rules have counted, in their order. Raises ToolFailed."""
        return nft.read_counters()

    def shadow_counters(self) -> dict[RuleKey, Counter]:
        """Answer what the shadow has counted. Raises ToolFailed."""
        return nft.read_counters(SHADOW_TABLE)

    def check(self, text: str) -> None:
        """Try tables where they harm nobody: what of them is not in force already.

        Raises NftRejected, naming the rule; TableForeign; ScratchUnavailable if there is no such
        place, after nft itself found nothing wrong; ToolFailed.
        """
        applied = self._store.applied()
        if applied is not None and applied.generation and applied.generation == generation():
            text = pieces.without(text, self._store.applied_text(applied) or "")
        try:
            nft.check(text)
        except ScratchUnavailable:
            nft.check_unapplied(text)
            raise

    def check_shadow(self, text: str) -> None:
        """Try the table of a shadow likewise."""
        self.check(text.replace(f"table inet {SHADOW_TABLE} {{", "table inet hostler {", 1))

    @property
    def kinds(self) -> Collection[type]:
        """The steps of this domain."""
        return (
            SetSysctl, ReplaceTable, DeleteTable, SaveRuleset, ForgetRuleset,
            StartShadow, StopShadow, CutConnections, ChangeElements,
        )  # fmt: skip

    @contextmanager
    def applying(self) -> Iterator[Callable[[Step], None]]:
        """Open a session of one change; it yields what carries out a step.

        Steps raise NftRejected, ToolFailed, OSError; one that does has changed nothing.
        """
        yield self._apply

    @contextmanager
    def recovering(self) -> Iterator[Callable[[Step], None]]:
        """Do the same for a change that was cut off: a link's sysctls may have gone with it."""

        def apply(step: Step) -> None:
            try:
                self._apply(step)
            except FileNotFoundError:
                if not isinstance(step, SetSysctl):
                    raise

        yield apply

    def _apply(self, step: Step) -> None:
        match step:
            case SetSysctl():
                self._sysctls.set(step.name, step.value)
            case ReplaceTable():
                self._replace(step.text)
            case DeleteTable():
                nft.delete()
                self._store.note_applied(None)
            case SaveRuleset():
                self._store.save(step.name, step.saved)
                names = _dynamic_sets(step.saved.document)
                self._elements.keep(names, persistent=step.saved.persistent)
            case ForgetRuleset():
                self._store.forget(step.name)
            case ChangeElements():
                with self._still_applied():
                    self._elements.change(step, self._shadows.dynamic_sets())
            case StartShadow():
                with self._still_applied():
                    self._shadows.start(step.shadow)
            case StopShadow():
                with self._still_applied():
                    self._shadows.stop()
            case CutConnections():
                conntrack.cut(step.filters)

    @contextmanager
    def _still_applied(self) -> Iterator[None]:
        """Do what makes a generation, and leaves the tables as they were applied."""
        before = self._store.applied()
        start, made = generation(), nft.transactions()
        yield
        after = generation()
        alone = after == start + nft.transactions() - made
        if before is not None and before.generation == start and alone:
            self._store.note_generation(before, after)

    def _read_table(self, applied: Applied | None) -> tuple[Table | None, tuple[str, ...]]:
        """Answer the tables, and how they differ from what was applied.

        Nothing is read if nobody has changed anything since.
        """
        if applied is not None and applied.generation and applied.generation == generation():
            return Table(applied.fingerprint), ()
        table, listed = nft.read_listed()
        before = self._store.applied_listed()
        if (
            table is None
            or applied is None
            or not before
            or table.fingerprint == applied.fingerprint
        ):
            return table, ()
        return table, drift.details(before, listed, applied.fingerprint, table.fingerprint)

    def _replace(self, text: str) -> None:
        start, made = generation(), nft.transactions()
        before = self._store.applied()
        stands = before is not None and self._read_table(before)[0] == Table(before.fingerprint)
        stands = stands and generation() == start
        applied = self._store.applied_text(before) if before is not None and stands else None
        nft.replace(text, applied, self._elements.saved(_new_sets(text, applied or "")))
        known = _untouched(before.fingerprint, applied, text) if before and applied else {}
        try:
            table, listed = nft.read_listed(known)
        except ToolFailed as e:
            # The table stands; not knowing its fingerprint, the next change takes it for drift.
            log.warning("the table cannot be read back", error=e.message)
            table, listed = None, ""
        # What somebody else has done meanwhile was read back with ours: then nothing is known to be
        # as applied, and the next look takes it for drift.
        after = generation()
        alone = after == start + nft.transactions() - made
        digest = hashlib.sha256(text.encode()).hexdigest()
        # A link that goes takes itself out of a flowtable, and that is no generation.
        known_by = 0 if has_flowtables(text) else after
        noted = Applied(table.fingerprint, digest, known_by) if table and alone else None
        self._store.note_applied(noted, text, listed)


def _new_sets(text: str, applied: str) -> Iterator[tuple[str, str]]:
    """Answer the dynamic sets of a text that another does not have, by family and name."""
    before = read(applied)
    for family, blocks in read(text).items():
        for key, block in blocks.items():
            if block.is_dynamic and key not in before.get(family, {}):
                yield family, block.name


def _dynamic_sets(document: str) -> list[str]:
    """Answer the names of the dynamic sets of a ruleset's document."""
    return [s["name"] for s in json.loads(document).get("address_sets", ()) if s.get("dynamic")]


def _untouched(fingerprint: str, applied: str, text: str) -> dict[str, str]:
    """Answer the parts of a fingerprint that are about sets that stand in both texts alike."""
    parts: dict[str, str] = json.loads(fingerprint)
    before, after = read(applied), read(text)
    return {
        key: value
        for key, value in parts.items()
        for family, _, name in [key.partition(" ")]
        if name
        and before.get(family, {}).get(("set", name)) == after.get(family, {}).get(("set", name))
    }
