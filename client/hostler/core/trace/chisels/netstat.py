"""Which IP sockets processes have open."""

from __future__ import annotations

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind
from hostler.core.trace.chisel_cells import shown
from hostler.core.trace.chisel_lines import columns
from hostler.core.trace.chisel_open_files import NOTE, OpenFiles
from hostler.core.trace.chisel_results import Cell, Heading, Row, Table, Unit
from hostler.core.trace.events import Events
from hostler.core.trace.filter import compile_filter

_SHOWN = (
    *columns(("protocol", "fd.l4proto"), ("sip", "fd.sip"), ("sport", "fd.sport")),
    *columns(("cip", "fd.cip"), ("cport", "fd.cport"), ("connected", "fd.connected")),
    *(shown("pid", "proc.pid"), shown("process", "proc.name")),
)
_HEADINGS = (
    *(Heading("host"), Heading("protocol"), Heading("server"), Heading("client")),
    *(Heading("state"), Heading("pid", Unit.NUMBER), Heading("process")),
)


def _end(address: Cell, port: Cell) -> str:
    if address is None:
        return "*"
    bracketed = f"[{address}]" if ":" in str(address) else address
    return f"{bracketed}:{port}"


def _row(host: str, row: Row) -> Row:
    protocol, server, server_port, client, client_port, connected, pid, process = row
    state = "LISTEN" if server is not None else None
    state = "ESTABLISHED" if connected == "true" else state
    ends = _end(server, server_port), _end(client, client_port)
    return (host, protocol, *ends, state, pid, process)


class _Listing:
    def __init__(self, given: Given) -> None:
        also = given.filter("filter").text.strip()
        on_ip = "fd.type in (ipv4, ipv6)"
        self._files = OpenFiles(_SHOWN, compile_filter(f"{on_ip} and ({also})" if also else on_ip))

    def take(self, events: Events, host: str) -> None:
        self._files.take(events, host)

    def result(self) -> Table:
        rows = tuple(_row(host, row) for host, row in self._files.rows())
        return Table(_HEADINGS, rows, notes=self._files.notes())


CHISEL = Chisel(
    "netstat",
    Category.STATE,
    "the IP sockets that processes have open at the end",
    _Listing,
    f"It is told from calls: {NOTE}. A socket that only sends datagrams has no state.",
    arguments=(Argument("filter", Kind.FILTER, "which sockets to list", ""),),
)
