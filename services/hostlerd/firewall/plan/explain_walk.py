"""The way of a packet through the hooks of the kernel, and what becomes of it.

Where it is not known whether a rule matches, both ways are walked to their ends: they have to
agree, or nobody knows. Source: nft(8), and net/netfilter/ of the kernel for what it does not say.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hostlerd.firewall.model.explain import Explanation, Met, Packet, Route, Routes, Verdict
from hostlerd.firewall.plan import explain_routes as fib
from hostlerd.firewall.plan import explain_rule
from hostlerd.firewall.plan import explain_statements as statements
from hostlerd.firewall.plan.explain_expressions import candidates
from hostlerd.firewall.plan.explain_flow import Flow, Missing, Unknown
from hostlerd.firewall.plan.explain_statements import shown
from hostlerd.firewall.plan.explain_tables import Chain, Rule, Tables

_WAYS_MOST = 200
_STEPS_MOST = 500_000
_MET_MOST = 1000
_TRACKING = -200
_NAT_KINDS = {
    "prerouting": "destination",
    "output": "destination",
    "input": "source",
    "postrouting": "source",
}
_JUDGING = ("input", "forward", "output")


@dataclass(slots=True)
class _Frame:
    chain: Chain
    next: int = 0


@dataclass(slots=True)
class _Way:
    """One way of the packet, as far as it has come."""

    flow: Flow
    agenda: list[tuple[str, Any]]
    frames: list[_Frame] = field(default_factory=list)
    base: Chain | None = None
    met: list[Met] = field(default_factory=list)
    decided: Met = field(default_factory=Met)
    nat_done: set[str] = field(default_factory=set)
    tracked: bool = False
    untracked: bool = False
    path: str = ""
    looped: bool = False

    def copy(self) -> _Way:
        """Answer the same way, to be walked on its own."""
        other = copy.copy(self)
        other.flow = copy.copy(self.flow)
        other.flow.changed_sets = set(self.flow.changed_sets)
        other.agenda, other.met = list(self.agenda), list(self.met)
        other.frames = [copy.copy(f) for f in self.frames]
        other.nat_done = set(self.nat_done)
        return other


def explain(tables: Tables, routes: Routes, packet: Packet) -> Explanation:
    """Answer what becomes of a packet."""
    return _Walk(tables, routes, packet).explain()


class _Walk:
    def __init__(self, tables: Tables, routes: Routes, packet: Packet) -> None:
        self.tables, self.routes, self.packet = tables, routes, packet
        self.ways = 0
        self.steps = 0

    def explain(self) -> Explanation:
        packet = self.packet
        flow = Flow(
            packet,
            self.routes,
            packet.source,
            packet.destination,
            packet.source_port,
            packet.destination_port,
        )
        if packet.state != "new":
            flow.ct_mark = flow.status = Unknown("what the connection is, is not known")
        way = _Way(flow, [])
        try:
            own = not packet.in_ifname and fib.is_local(self.routes, packet.source)
        except fib.RouteUnknown as e:
            return self._end(way, Verdict.UNKNOWN, Met(unknown=str(e)))
        if own:
            way.path = "output"
            way.agenda = [("route", "output"), ("hook", "output"), ("reroute", ""),
                          ("hook", "postrouting"), ("hook", "egress"), ("loop", "")]  # fmt: skip
        else:
            flow.in_ifname = packet.in_ifname or self._came_by()
            way.agenda = [("hook", "ingress"), ("hook", "prerouting"), ("route", "input")]
        return self._run(way)

    def _came_by(self) -> str | Unknown:
        try:
            found = fib.reaches(self.routes, self.packet.source, "")
        except fib.RouteUnknown as e:
            return Unknown(str(e))
        return found or Unknown("the host has no route to the source")

    def _run(self, way: _Way) -> Explanation:
        while True:
            self.steps += 1
            if self.steps > _STEPS_MOST:
                return self._end(way, Verdict.UNKNOWN, Met(unknown="it meets too many rules"))
            if way.frames:
                done = self._step(way)
            elif way.agenda:
                done = self._next(way)
            else:
                return self._end(way, Verdict.ACCEPT, way.decided)
            if done is not None:
                return done

    def _end(self, way: _Way, verdict: Verdict, decided: Met) -> Explanation:
        flow, packet = way.flow, self.packet
        moved = (flow.destination, flow.destination_port) != (
            packet.destination,
            packet.destination_port,
        )
        spoken = (flow.source, flow.source_port) != (packet.source, packet.source_port)
        return Explanation(
            verdict,
            decided,
            tuple(way.met),
            shown(flow.destination, flow.destination_port) if moved else "",
            str(flow.source) if spoken else "",
            way.path,
            *(n if isinstance(n, str) else "" for n in (flow.in_ifname, flow.out_ifname)),
        )

    def _next(self, way: _Way) -> Explanation | None:
        kind, what = way.agenda.pop(0)
        if kind == "hook":
            self._enter(way, what)
        elif kind == "chain":
            self._begin(way, what)
        elif kind == "bound":
            way.nat_done.add(what)
        elif kind == "loop":
            self._loop(way)
        elif kind == "route" and what == "input":
            return self._route_in(way)
        else:
            return self._route_out(way)
        return None

    def _enter(self, way: _Way, hook: str) -> None:
        way.flow.hook = hook
        by = way.flow.out_ifname if hook == "egress" else way.flow.in_ifname
        listed = self.tables.hooked(hook, self.packet.version, by if isinstance(by, str) else None)
        bound = [("bound", _NAT_KINDS[hook])] if hook in _NAT_KINDS else []
        way.agenda = [*(("chain", c) for c in listed), *bound, *way.agenda]

    def _begin(self, way: _Way, chain: Chain) -> None:
        late = chain.hook in ("input", "forward", "postrouting")
        if not way.tracked and (late or (chain.hook != "ingress" and chain.place > _TRACKING)):
            way.tracked = True
            way.flow.state = "untracked" if way.untracked else self.packet.state
        if chain.kind == "nat" and (
            way.flow.state not in ("new", "related") or _NAT_KINDS[chain.hook] in way.nat_done
        ):
            return
        way.base, way.frames = chain, [_Frame(chain)]

    def _route_in(self, way: _Way) -> Explanation | None:
        flow = way.flow
        try:
            by = flow.in_ifname if isinstance(flow.in_ifname, str) else ""
            route = fib.lookup(self.routes, flow.destination, flow.source, by, "")
        except fib.RouteUnknown as e:
            return self._end(way, Verdict.UNKNOWN, Met(unknown=str(e)))
        if flow.destination.is_multicast:
            return self._end(
                way, Verdict.UNKNOWN, Met(unknown="who takes part in multicast is not known")
            )
        if route is not None and route.type in ("local", "broadcast"):
            way.path = "input"
            way.agenda = [("hook", "input")]
            return None
        way.path = "forward"
        refused = self._not_routed(route)
        if refused:
            return self._end(way, Verdict.DROP, Met(does=refused))
        way.agenda = [("hook", "forward"), ("hook", "postrouting"), ("hook", "egress")]
        flow.out_ifname = self._goes_by(route)
        return None

    def _goes_by(self, route: Route | None) -> str | Unknown:
        given = self.packet.out_ifname
        if given:
            return given
        by = route.ifname if route else ""
        return by or Unknown("a route has several next hops")

    def _not_routed(self, route: Route | None) -> str:
        if not self.routes.forwarding:
            return "the host does not forward"
        if route is None:
            return fib.NO_ROUTE
        return "" if route.type == "unicast" else f"{route.type} route"

    def _route_out(self, way: _Way) -> Explanation | None:
        flow = way.flow
        try:
            route = fib.lookup(self.routes, flow.destination, flow.source, "", "")
        except fib.RouteUnknown as e:
            return self._end(way, Verdict.UNKNOWN, Met(unknown=str(e)))
        local = route is not None and route.type == "local"
        if route is None or route.type not in ("unicast", "local", "broadcast", "multicast"):
            return self._end(way, Verdict.DROP, Met(does=fib.NO_ROUTE))
        flow.out_ifname = "lo" if local else self._goes_by(route)
        return None

    def _loop(self, way: _Way) -> None:
        """What the host sends to itself comes in again, by lo."""
        if way.flow.out_ifname == "lo":
            way.flow.in_ifname, way.flow.out_ifname = "lo", ""
            way.looped = True
            way.agenda = [("hook", "prerouting"), ("hook", "input")]

    def _step(self, way: _Way) -> Explanation | None:
        frame = way.frames[-1]
        if frame.next == len(frame.chain.rules):
            return self._leave(way)
        rule = frame.chain.rules[frame.next]
        frame.next += 1
        return self._rule(way, frame.chain, rule)

    def _leave(self, way: _Way) -> Explanation | None:
        """Come to the end of a chain, or return from it."""
        way.frames.pop()
        base = way.base
        if way.frames or base is None:
            return None
        met = explain_rule.met(base, None, f"policy {base.policy}")
        if base.policy == "drop":
            return self._end(way, Verdict.DROP, met)
        if base.hook in _JUDGING and base.kind != "nat" and not way.decided.does:
            way.decided = met
        return None

    def _rule(
        self, way: _Way, chain: Chain, rule: Rule, start: int = 0, notes: str = ""
    ) -> Explanation | None:
        """Walk the expressions of a rule.

        Where one has an effect and it is not known whether the rule gets there, both is tried.
        """
        sets = self.tables.sets.get((chain.family, chain.table), {})
        unknown = ""
        try:
            for number, (kind, given) in enumerate(
                map(explain_rule.said, rule.expressions[start:]), start
            ):
                if kind in statements.HARMLESS:
                    continue
                if kind in explain_rule.ASKING:
                    holds = explain_rule.holds(kind, given, way.flow, sets)
                    if holds is False:
                        return None
                    notes = ", taken as within its rate" if kind == "limit" else notes
                    unknown = unknown or (holds.why if isinstance(holds, Unknown) else "")
                    continue
                if unknown:
                    return self._both(way, chain, rule, number, unknown)
                done, ended = self._effect(way, chain, rule, (kind, given), notes)
                if ended:
                    return done
        except Missing:
            return None
        if not any(explain_rule.does(e) for e in rule.expressions):
            self._note(way, explain_rule.met(chain, rule, "go on" + notes, unknown))
        return None

    def _both(
        self, way: _Way, chain: Chain, rule: Rule, number: int, why: str
    ) -> Explanation | None:
        met = explain_rule.met(chain, rule, explain_rule.words(rule), why)
        self._note(way, met)
        other = way.copy()

        def matched() -> Explanation:
            done = self._rule(other, chain, rule, number)
            return done if done is not None else self._run(other)

        return self._agreed(way, met, (matched, lambda: self._run(way.copy())))

    def _agreed(self, way: _Way, met: Met, each: Iterable[Any]) -> Explanation:
        self.ways += 1
        if self.ways > _WAYS_MOST:
            return self._end(way, Verdict.UNKNOWN, met)
        first: Explanation | None = None
        for walk in each:
            found = walk()
            if first is not None and found.outcome != first.outcome:
                return self._end(way, Verdict.UNKNOWN, met)
            if found.verdict is Verdict.UNKNOWN:
                return self._end(way, Verdict.UNKNOWN, found.decided_by)
            first = found
        return first if first is not None else self._end(way, Verdict.UNKNOWN, met)

    def _effect(
        self, way: _Way, chain: Chain, rule: Rule, each: tuple[str, Any], notes: str
    ) -> tuple[Explanation | None, bool]:
        """Carry out a statement; answers how the packet ends, and whether the rule does."""
        kind, given = each
        sets = self.tables.sets.get((chain.family, chain.table), {})
        if kind in statements.VERDICTS:
            return self._verdict(way, chain, rule, kind, given, notes), True
        if kind == "vmap":
            return self._mapped(way, chain, rule, given, notes)
        if kind == "mangle" and statements.marks(given, way.flow, sets):
            self._note(way, explain_rule.met(chain, rule, "set a mark" + notes))
            return None, False
        if kind == "notrack":
            way.untracked = way.untracked or not way.tracked
            return None, False
        if kind == "set" and isinstance(given, dict):
            way.flow.changed_sets.add(str(given.get("set")))
            return None, False
        if kind in statements.NATS:
            return self._nat(way, chain, rule, kind, given), True
        met = explain_rule.met(chain, rule, kind, f"nft's {kind} is not understood")
        return self._end(self._note(way, met), Verdict.UNKNOWN, met), True

    def _nat(
        self, way: _Way, chain: Chain, rule: Rule, kind: str, given: Any
    ) -> Explanation | None:
        sets = self.tables.sets.get((chain.family, chain.table), {})
        done = statements.rewrite(kind, given, way.flow, sets)
        if isinstance(done, Unknown):
            met = explain_rule.met(chain, rule, kind, done.why)
            return self._end(self._note(way, met), Verdict.UNKNOWN, met)
        self._note(way, explain_rule.met(chain, rule, done))
        way.nat_done.add(statements.NATS[kind])
        way.frames = []
        return None

    def _mapped(
        self, way: _Way, chain: Chain, rule: Rule, given: Any, notes: str
    ) -> tuple[Explanation | None, bool]:
        sets = self.tables.sets.get((chain.family, chain.table), {})
        found, why = candidates(given, way.flow, sets)
        if why:
            met = explain_rule.met(chain, rule, "a verdict of a map", why)
            self._note(way, met)

            def taken(verdict: Any) -> Explanation:
                other = way.copy()
                ((kind, said),) = verdict.items()
                done = self._verdict(other, chain, rule, kind, said, notes)
                return done if done is not None else self._run(other)

            ways = [lambda v=v: taken(v) for v in found]
            return self._agreed(way, met, [*ways, lambda: self._run(way.copy())]), True
        if not found:
            raise Missing
        ((kind, said),) = found[0].items()
        return self._verdict(way, chain, rule, kind, said, notes), True

    def _verdict(
        self, way: _Way, chain: Chain, rule: Rule, kind: str, given: Any, notes: str
    ) -> Explanation | None:
        target = given["target"] if kind in ("jump", "goto") else ""
        met = explain_rule.met(chain, rule, " ".join(filter(None, (kind, target))) + notes)
        self._note(way, met)
        if kind == "queue":
            unknown = explain_rule.met(chain, rule, kind, "a program decides")
            return self._end(way, Verdict.UNKNOWN, unknown)
        if kind in ("drop", "reject"):
            return self._end(way, Verdict(kind), met)
        if kind == "accept":
            way.frames = []
            if way.base and way.base.hook in _JUDGING and way.base.kind != "nat":
                way.decided = met
        elif kind == "return":
            return self._leave(way)
        elif target:
            if kind == "goto":
                way.frames.pop()
            way.frames.append(_Frame(self.tables.chains[chain.family, chain.table, target]))
        return None

    def _note(self, way: _Way, met: Met) -> _Way:
        if len(way.met) < _MET_MOST:
            way.met.append(met)
        return way
