"""Printing what this machine itself knows: records without a host, in the same four forms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

Record = Mapping[str, Any]


def show_records(records: Sequence[Record], columns: Mapping[str, str], output: str) -> None:
    """Print a list of records; `columns` maps a table's titles to fields of the records."""
    if output == "table":
        from hostler.cli.output import print_table

        rows = [[_cell(record[field]) for field in columns.values()] for record in records]
        print_table(tuple(columns), rows)
    elif output == "ndjson":
        for record in records:
            click.echo(json.dumps(record))
    else:
        _print_document(list(records), output)


def show_record(record: Record, output: str) -> None:
    """Print one record; as a table, a line for each field that says something."""
    if output == "table":
        from hostler.cli.output import printable

        width = max(len(field) for field in record)
        for field, value in record.items():
            if value not in (None, "", [], {}):
                click.echo(f"{field.replace('_', ' '):<{width}}  {printable(_cell(value))}")
    elif output == "ndjson":
        click.echo(json.dumps(record))
    else:
        _print_document(record, output)


def _print_document(document: Any, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(document, indent=2))
        return
    import yaml

    click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
