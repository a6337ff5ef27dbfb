"""The chisels by name: those of the folder `chisels`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from hostler.core.trace import chisels
from hostler.core.trace.chisel import Chisel
from hostler.core.trace.nearest import suggestion


class ChiselUnknown(ValueError):
    """There is no such chisel; the message says what may have been meant."""


@cache
def all_chisels() -> Mapping[str, Chisel]:
    """All chisels that come with Hostler, by name."""
    names = sorted(module.name for module in iter_modules(chisels.__path__))
    return {name: chisel_of(import_module(f"{chisels.__name__}.{name}"), name) for name in names}


def chisel_of(module: object, name: str) -> Chisel:
    """The chisel of a file of that name. Raises ValueError if it has none, or by another name."""
    chisel = getattr(module, "CHISEL", None)
    if not isinstance(chisel, Chisel):
        raise ValueError("it has no CHISEL = Chisel(…)")
    if chisel.name != name:
        raise ValueError(f"its chisel is called {chisel.name!r} and not {name!r} as the file")
    return chisel


def find(name: str, known: Mapping[str, Chisel] | None = None) -> Chisel:
    """The chisel of a name, of those that are known. Raises ChiselUnknown."""
    chisels_by_name = all_chisels() if known is None else known
    if name in chisels_by_name:
        return chisels_by_name[name]
    raise ChiselUnknown(f"there is no chisel {name[:80]!r}{suggestion(name, chisels_by_name)}")
