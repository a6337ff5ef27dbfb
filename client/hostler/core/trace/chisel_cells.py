"""Fields of events as cells of a table or a line. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import numpy as np

from hostler.core.trace import fields
from hostler.core.trace.chisel_results import Cell, Heading, Unit
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Field, Kind
from hostler.core.trace.values import Numbers, Values

_UNITS = {
    Kind.INTEGER: Unit.NUMBER,
    Kind.PORT: Unit.NUMBER,
    Kind.NEARNESS: Unit.DURATION,
    Kind.DURATION: Unit.DURATION,
    Kind.TIME: Unit.TIME,
    Kind.BYTES: Unit.DATA,
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A column that shows a field."""

    heading: Heading
    field: Field


def shown(name: str, field: str, unit: Unit | None = None) -> Shown:
    """A column by its name and its field's; its unit is the field's unless another is said."""
    return shown_field(name, fields.find(field), unit)


def shown_field(name: str, field: Field, unit: Unit | None = None) -> Shown:
    """A column that shows a field that was found already."""
    return Shown(Heading(name, unit or _UNITS.get(field.kind, Unit.TEXT)), field)


def cell(field: Field, value: int | bytes | None) -> Cell:
    """A value of a field as a cell."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return _address(value) if field.kind is Kind.ADDRESS else text(value)
    return ("false", "true")[value] if field.kind is Kind.BOOL else value


def text(data: bytes) -> str:
    """Bytes as text; those that are no UTF-8 are escaped."""
    return data.decode(errors="backslashreplace")


def distinct(shown: Shown, events: Events) -> tuple[Column, list[Cell]]:
    """Answer the cells without repetition, and for each event which one it has."""
    values = shown.field.values(events)
    if isinstance(values, Numbers):
        return _distinct_numbers(shown.field, values)
    codes, texts = values.distinct()
    return codes, [cell(shown.field, each) for each in texts]


def at(shown: Shown, values: Values, event: int) -> Cell:
    """The cell of one event."""
    return cell(shown.field, values.at(event))


def _distinct_numbers(field: Field, values: Numbers) -> tuple[Column, list[Cell]]:
    unique, codes = np.unique(values.column, return_inverse=True)
    cells: list[Cell] = [cell(field, number) for number in unique.tolist()]
    if values.known is not None:
        codes = np.where(values.known, codes, len(cells))
        cells.append(None)
    return codes, cells


def _address(packed: bytes) -> str:
    try:
        return str(ipaddress.ip_address(packed))
    except ValueError:
        return text(packed)
