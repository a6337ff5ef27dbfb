"""When the certificates of a fleet end, as one HTML page: no script, nothing from elsewhere. Pure.

Every word of a host is escaped. Numbers carry `data-count` beside what they count, so that programs
can read the page.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from hostler.core.ssl.place import place_words

if TYPE_CHECKING:
    from hostler.results import HostResult

_MONTHS, _MOST_ROWS, _SOON_DAYS = 13, 5000, 30
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5a6478; --paper: #f6f7f9; --card: #fff;
  --line: #d9dde5; --bad: #a11212; --bad-paper: #fdecec; --soon: #7a4a00; --soon-paper: #fff1d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8f0; --soft: #a3adc0; --paper: #14171d;
  --card: #1d222b; --line: #39414f; --bad: #ffb3ad; --bad-paper: #431a1a; --soon: #ffd28a;
  --soon-paper: #40300f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 0 0 12px; }
.soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 18px; margin: 16px 0; }
.months { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 16px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 4px 8px; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; }
.month th, .month td { text-align: center; padding: 2px; width: 14.28%;
  font-variant-numeric: tabular-nums; }
.month td.ends { background: var(--soon-paper); color: var(--soon); font-weight: 700; }
.month td.today { outline: 2px solid var(--ink); }
.bad { background: var(--bad-paper); color: var(--bad); }
.soon { background: var(--soon-paper); color: var(--soon); }
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate on a host."""

    host: str
    ends: datetime
    subject: str
    names: tuple[str, ...]
    paths: tuple[str, ...]
    findings: tuple[str, ...]


def entries_of(results: Iterable[HostResult[Any]]) -> list[Entry]:
    """The certificates that hosts have told of, by their end."""
    found = [
        Entry(
            result.host,
            datetime.fromtimestamp(min(_LAST, max(_FIRST, each.not_after.seconds)), UTC),
            each.subject or f"serial {each.serial}",
            tuple(name.value for name in each.names),
            tuple(place_words(place) for place in each.places),
            tuple(dict.fromkeys(finding.code for finding in each.findings)),
        )
        for result in results
        if result.ok and result.result is not None
        for each in result.result.certificates
    ]
    return sorted(found, key=lambda each: (each.ends, each.host, each.subject))


def page(entries: Sequence[Entry], failed: Sequence[tuple[str, str]], now: datetime) -> str:
    """The whole page: a calendar of a year from now on, then every certificate by its end."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    hosts = len({each.host for each in entries})
    by_day: dict[date, list[Entry]] = defaultdict(list)
    for each in entries:
        by_day[each.ends.date()].append(each)
    body = (
        f'<h1>Certificates</h1>\n<p class="soft"><span data-of="all" data-count="{len(entries)}">'
        f"{len(entries):,}</span> on {hosts} hosts, as of {now:%Y-%m-%d %H:%M} UTC</p>\n"
        f"{_failures(failed)}{_months(by_day, now)}{_list(entries, now)}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Certificates: {len(entries):,}</title>\n<style>{_STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _failures(failed: Sequence[tuple[str, str]]) -> str:
    if not failed:
        return ""
    rows = "".join(f"<li>{_text(host)}: {_text(why)}</li>" for host, why in failed)
    head = "<h2>Hosts that did not answer</h2>"
    return f'<section class="bad" role="note">{head}<ul>{rows}</ul></section>\n'


def _months(by_day: Mapping[date, Sequence[Entry]], now: datetime) -> str:
    months = []
    year, month = now.year, now.month
    for _ in range(_MONTHS):
        months.append(_month(year, month, by_day, now.date()))
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        if year > date.max.year:
            break
    return f'<section><h2>When they end</h2><div class="months">{"".join(months)}</div></section>\n'


def _month(year: int, month: int, by_day: Mapping[date, Sequence[Entry]], today: date) -> str:
    rows = []
    for week in calendar.Calendar().monthdayscalendar(year, month):
        cells = "".join(
            _day(date(year, month, day), by_day, today) if day else "<td></td>" for day in week
        )
        rows.append(f"<tr>{cells}</tr>")
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("M", "T", "W", "T", "F", "S", "S"))
    caption = f"{calendar.month_name[month]} {year}"
    return (
        f'<table class="month"><caption>{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _day(day: date, by_day: Mapping[date, Sequence[Entry]], today: date) -> str:
    ending = by_day.get(day, ())
    marks = " ".join(w for w, holds in (("ends", ending), ("today", day == today)) if holds)
    kind = f' class="{marks}"' if marks else ""
    if not ending:
        return f"<td{kind}>{day.day}</td>"
    words = "; ".join(f"{each.host}: {each.subject}" for each in ending[:20])
    return (
        f'<td{kind} title="{_text(words)}" data-of="day" data-key="{day.isoformat()}" '
        f'data-count="{len(ending)}">{day.day}<sup>{len(ending)}</sup></td>'
    )


def _list(entries: Sequence[Entry], now: datetime) -> str:
    rows = []
    for each in entries[:_MOST_ROWS]:
        days = (each.ends - now).days
        kind = "bad" if days < 0 else "soon" if days <= _SOON_DAYS else ""
        cells = (
            f"{each.ends:%Y-%m-%d}",
            str(days),
            each.host,
            each.subject,
            ", ".join(each.names[:10]),
            ", ".join(each.paths[:5]),
            ", ".join(each.findings),
        )
        inner = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        rows.append(
            f'<tr class="{kind}" data-of="certificate" data-key="{_text(each.host)} '
            f'{_text(each.subject)}" data-count="{days}">{inner}</tr>'
        )
    more = len(entries) - len(rows)
    left = f"<p>{more:,} more are not shown.</p>" if more > 0 else ""
    titles = ("Ends", "Days", "Host", "Subject", "Names", "Files", "Findings")
    heads = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return (
        f"<section><h2>All of them</h2><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{left}</section>"
    )


def _text(words: str) -> str:
    """Words of a host, without what would turn or hide others."""
    return escape("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in words))
