"""Plans of the changes of namespaces: create, apply, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hostlerd.netns.errors import (
    NamespaceBusy,
    NamespaceDiffers,
    NamespaceForeign,
    PoolExhausted,
)
from hostlerd.netns.model.asked import AskedNamespace
from hostlerd.netns.model.link_steps import RemoveHostLinks, RemoveLink, SetSysctl
from hostlerd.netns.model.namespace import Interface, Namespace, Network, Veth
from hostlerd.netns.model.parse import Faults, parse_namespace
from hostlerd.netns.model.seen import Seen, State
from hostlerd.netns.model.steps import CreateNetns, ForgetSpec, PublishNetns, RemoveDns, RemoveNetns
from hostlerd.netns.plan.check import check_itself, check_links
from hostlerd.netns.plan.claims import check_claims, claims_of, claims_of_host
from hostlerd.netns.plan.converge import (
    PORT_START,
    converge,
    drift,
    etag_of,
    publish,
    remake_link,
)
from hostlerd.netns.plan.fill import adopt, name_route_links, take_from_pools
from hostlerd.netns.plan.pool import Pool, Taken
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint

MAX_NAMESPACES = 1000
AT_ONCE = 100
"""How many namespaces are made, or removed, together: bounds the file descriptors held open."""

Processes = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A namespace of the request, and where in it."""

    field: str
    namespace: Namespace


def create(asked: AskedNamespace, state: State, pools: Mapping[str, Pool]) -> Plan:
    """Plan a namespace that is to be new, or to be there in this very shape.

    Raises InvalidRequest, NamespaceForeign, NamespaceDiffers, PoolExhausted.
    """
    (want,) = _prepare([("namespace", asked)], state, pools)
    seen = state.namespaces.get(want.name)
    if seen and seen.managed and not expired(seen) and seen.record != want:
        raise NamespaceDiffers(
            seen.record_problem or f"there is a namespace {want.name} of another shape",
            name=want.name,
        )
    return _plan([want], (), state, (want,))


def apply(
    asked: Sequence[AskedNamespace],
    state: State,
    pools: Mapping[str, Pool],
    *,
    delete_unlisted: bool = False,
    processes: Processes = lambda _: (),
) -> Plan:
    """Plan that namespaces be as asked, and with `delete_unlisted` that no other of ours be.

    Raises InvalidRequest with all faults of all namespaces, NamespaceForeign, NamespaceBusy,
    PoolExhausted.
    """
    if len(asked) > MAX_NAMESPACES:
        fault = f"at most {MAX_NAMESPACES} are allowed, not {len(asked)}"
        raise InvalidRequest.of([Violation("namespaces", fault)])
    fields = [(f"namespaces[{at}]", namespace) for at, namespace in enumerate(asked)]
    wants = _prepare(fields, state, pools)
    unlisted: list[Seen] = []
    if delete_unlisted:
        named = {want.name for want in wants}
        unlisted = [s for s in state.namespaces.values() if s.managed and s.name not in named]
    for seen in unlisted:
        _refuse_busy(seen.name, processes(seen.name))
    return _plan(wants, unlisted, state, wants)


def delete(
    name: str, state: State, *, pids: Sequence[int] = (), stop: tuple[Step, ...] = ()
) -> Plan:
    """Plan the end of a namespace and of all that was made with it, in whatever state it is.

    `pids` are the processes that stand in the way, `stop` the steps that end the others and drop
    what is on record of them. Raises NamespaceForeign, NamespaceBusy.
    """
    seen = state.namespaces.get(name)
    if seen and seen.inode and not seen.managed:
        raise _foreign([("name", name)])
    _refuse_busy(name, pids)
    plan = _plan((), [seen] if seen else [], state, None)
    return Plan((*stop, *plan.steps), etag=plan.etag if seen else "", etag_after="")


def restore(record: Namespace, state: State) -> Plan:
    """Plan that a namespace be as it is on record."""
    return _plan([record], (), state, record)


def _refuse_busy(name: str, pids: Sequence[int]) -> None:
    if pids:
        raise NamespaceBusy(
            f"{len(pids)} processes are in {name}",
            violations=[Violation(name, f"process {pid} is in it") for pid in pids[:20]],
            name=name,
            pids=",".join(map(str, pids[:100])),
        )


def _foreign(names: Iterable[tuple[str, str]]) -> NamespaceForeign:
    names = list(names)
    told = ", ".join(name for _, name in names)
    return NamespaceForeign(
        f"not made by Hostler, and so not changed: {told}",
        violations=[Violation(field, f"{name} is not Hostler's") for field, name in names],
        name=told,
    )


def expired(seen: Seen) -> bool:
    """Tell whether a namespace went with its processes, and only its record is left."""
    return bool(seen.record and seen.record.remove_with_processes and not seen.inode)


def _prepare(
    asked: Sequence[tuple[str, AskedNamespace]], state: State, pools: Mapping[str, Pool]
) -> tuple[Namespace, ...]:
    """Parse, fill in and check what is asked for; all faults are raised together."""
    faults = Faults()
    drafts: list[_Wanted] = []
    names: set[str] = set()
    for field, one in asked:
        own = Faults()
        namespace = parse_namespace(one, field, own)
        if namespace.name in names:
            own.add(f"{field}.name", f"{namespace.name} is there twice")
        names.add(namespace.name)
        seen = state.namespaces.get(namespace.name)
        record = seen.record if seen else None
        if not own.found:
            namespace = adopt(namespace, record, state.host, pools, field, own)
        if not own.found:
            drafts.append(_Wanted(field, namespace))
        faults.found += own.found
    filled, exhausted = _fill(drafts, names, state, pools)
    _check(filled, names, state, faults)
    if faults.found:
        raise InvalidRequest.of(faults.found)
    _refuse_foreign(filled, state)
    if exhausted:
        raise exhausted
    return tuple(want.namespace for want in filled)


def _fill(
    drafts: Sequence[_Wanted], names: set[str], state: State, pools: Mapping[str, Pool]
) -> tuple[list[_Wanted], PoolExhausted | None]:
    """Take what is open from the pools; what could not be filled is left out."""
    taken = _taken(drafts, names, state)
    filled: list[_Wanted] = []
    exhausted: PoolExhausted | None = None
    for draft in drafts:
        try:
            namespace = take_from_pools(draft.namespace, pools, taken)
        except PoolExhausted as e:
            exhausted = exhausted or e
            continue
        filled.append(_Wanted(draft.field, name_route_links(namespace)))
    return filled, exhausted


def _taken(drafts: Sequence[_Wanted], names: set[str], state: State) -> Taken:
    """Answer the networks that a pool must not give: of the host, on record, or asked for."""
    taken = Taken(network for network, _ in state.host.routes)
    for link in state.host.links.values():
        _add(taken, (a.network for a in link.addresses))
    for seen in state.namespaces.values():
        if seen.record and not expired(seen):
            _add(taken, (c.address.network for c in claims_of(seen.record)))
    for draft in drafts:
        _add(taken, (c.address.network for c in claims_of(draft.namespace)))
    return taken


def _add(taken: Taken, networks: Iterable[Network]) -> None:
    for network in networks:
        taken.add(network)


def _check(wants: Sequence[_Wanted], names: set[str], state: State, faults: Faults) -> None:
    others = [
        s.record
        for s in state.namespaces.values()
        if s.record and s.name not in names and not expired(s)
    ]
    taken = {end: other.name for other in others for end in host_ends(other)}
    for want in wants:
        check_itself(want.namespace, want.field, faults)
        seen = state.namespaces.get(want.namespace.name)
        own = host_ends(seen.record) if seen and seen.record else ()
        check_links(want.namespace, state.host, own, taken, want.field, faults)
        taken |= {end: want.namespace.name for end in host_ends(want.namespace)}
    check_claims(
        [
            *(c for want in wants for c in claims_of(want.namespace, want.field)),
            *(c for other in others for c in claims_of(other)),
            *claims_of_host(state.host, _all_ends(state)),
        ],
        faults,
    )


def host_ends(namespace: Namespace) -> tuple[str, ...]:
    """Answer the names of a namespace's links on the host."""
    links = (interface.link for interface in namespace.interfaces)
    return tuple(link.host_ifname for link in links if isinstance(link, Veth))


def _all_ends(state: State) -> set[str]:
    records = (s.record for s in state.namespaces.values() if s.record)
    return {end for record in records for end in host_ends(record)}


def _refuse_foreign(wants: Sequence[_Wanted], state: State) -> None:
    foreign = [
        (f"{want.field}.name", want.namespace.name)
        for want in wants
        if (seen := state.namespaces.get(want.namespace.name)) and seen.inode and not seen.managed
    ]
    if foreign:
        raise _foreign(foreign)


def _plan(
    wants: Sequence[Namespace], unwanted: Sequence[Seen], state: State, result: object
) -> Plan:
    steps: list[Step] = []
    before, after = [], []
    for start in range(0, len(unwanted), AT_ONCE):
        steps += _removals(unwanted[start : start + AT_ONCE], state)
    for seen in unwanted:
        before.append((seen.name, etag_of(seen.record, drift(seen, state.host))))
        after.append((seen.name, ""))
    fresh: list[str] = []
    for want in wants:
        known = state.namespaces.get(want.name)
        own = converge(want, known, state.host)
        steps += own
        if not (known and known.inode):
            fresh.append(want.name)
        if len(fresh) == AT_ONCE:
            steps += publish(fresh)
            fresh = []
        was = drift(known, state.host) if known else ()
        before.append((want.name, etag_of(known.record if known else None, was)))
        after.append((want.name, etag_of(want, ())))
    steps += publish(fresh)
    return Plan(
        tuple(steps),
        etag=_joint(before),
        etag_after=_joint(after),
        notices=tuple(_notices(wants, state)),
        result=result,
    )


def _joint(etags: Sequence[tuple[str, str]]) -> str:
    """Answer the etag of one namespace as it is, that of several as one over all."""
    if len(etags) == 1:
        return etags[0][1]
    return fingerprint([list(e) for e in sorted(etags)])


def _removals(unwanted: Sequence[Seen], state: State) -> list[Step]:
    """Answer the steps that remove namespaces, several links of the host by one step.

    Links inside come first: a macvlan may be on another namespace's link of the host, and is made
    again after it.
    """
    steps = [step for seen in unwanted for step in _removal(seen, state)]
    links = [step for step in steps if isinstance(step, RemoveLink)]
    ends = [link for link in links if not link.where]
    if len(ends) < 2:
        return steps
    remake = tuple(step for end in ends for step in end.remake)
    return [
        *(link for link in links if link.where),
        RemoveHostLinks(tuple(end.ifname for end in ends), remake),
        *(step for step in steps if not isinstance(step, RemoveLink)),
    ]


def _removal(seen: Seen, state: State) -> Iterable[Step]:
    record, where = seen.record, seen.name
    for interface in record.interfaces if record else ():
        end = interface.link.host_ifname if isinstance(interface.link, Veth) else ""
        remake = remake_link(record, interface.name) if seen.inode else ()
        # First the links: the kernel ends a namespace some time after its last user has gone, and
        # until then an end on the host would stay.
        if end and end in state.host.links:
            yield RemoveLink("", end, remake)
        elif seen.link(interface.name):
            yield RemoveLink(where, interface.name, remake)
    if seen.inode or seen.stale_handle:
        yield RemoveNetns(where, _remake_netns(record) if record and seen.inode else ())
    if seen.etc:
        yield RemoveDns(where, seen.etc)
    if seen.managed:
        yield ForgetSpec(where, record)


def _remake_netns(record: Namespace) -> tuple[Step, ...]:
    """Answer the steps that make a removed namespace again; its links have steps of their own."""
    start = record.unprivileged_port_start
    return (
        CreateNetns(record.name),
        *(() if start is None else (SetSysctl(record.name, PORT_START, str(start), "1024"),)),
        PublishNetns((record.name,)),
    )


def _notices(wants: Sequence[Namespace], state: State) -> Iterable[Notice]:
    """Warn of networks that hide a part of what a route of the host leads to."""
    own = _all_ends(state)
    connected = {a.network for link in state.host.links.values() for a in link.addresses}
    routed = [n for n, ifname in state.host.routes if ifname not in own and n not in connected]
    taken = Taken(routed)
    for want in wants:
        for interface in want.interfaces:
            for notice in _overlaps(want.name, interface, taken):
                yield notice.with_context(f"namespace {want.name}")


def _overlaps(name: str, interface: Interface, taken: Taken) -> Iterable[Notice]:
    for network in sorted({a.network for a in interface.host_addresses}, key=str):
        if taken.end_of_overlap(network) is not None:
            notice = Notice(
                "OVERLAPS_HOST_ROUTE",
                f"a route of the host leads to addresses of {network}",
                subject=name,
            )
            yield notice.with_context(f"interface {interface.name}")
