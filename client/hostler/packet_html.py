"""A report as one HTML page: no script, nothing from elsewhere, every word of a host escaped. Pure.

Numbers carry `data-count` beside what they count, so that programs can read the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from hostler.packet_plots import SERIES, bars_plot, hours_plot
from hostler.packet_report import Report
from hostler.packet_row import moment

# Title, and what a line of it is.
TABLES: Mapping[str, tuple[str, str]] = {
    "sources": ("Top talkers", "Source"),
    "destinations": ("Destinations", "Destination"),
    "ports": ("Ports", "Protocol and port"),
    "rules": ("Rules", "Rule (action)"),
    "actions": ("Actions", "Action"),
    "hosts": ("Hosts", "Host"),
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5a6478; --paper: #f6f7f9; --card: #fff;
  --line: #d9dde5; --bad: #a11212; --bad-paper: #fdecec; --s0: #2f6fb4; --s1: #c0601a;
  --s2: #1f8a70; --s3: #8c4fa8; --s4: #a3862a; --s5: #7a8294; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8f0; --soft: #a3adc0; --paper: #14171d;
  --card: #1d222b; --line: #39414f; --bad: #ffb3ad; --bad-paper: #431a1a; --s0: #6aa5e3;
  --s1: #e8935a; --s2: #55bfa4; --s3: #c08ad9; --s4: #d3b75a; --s5: #98a1b3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 0 0 12px; }
p { margin: 0 0 8px; }
.soft { color: var(--soft); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 18px; min-width: 130px; }
.facts strong { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.loss { background: var(--bad-paper); color: var(--bad); border: 2px solid var(--bad);
  border-radius: 8px; padding: 14px 18px; margin: 20px 0; }
.loss h2 { margin-bottom: 6px; }
.loss table { max-width: 560px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 18px; margin: 16px 0; }
.beside { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 24px;
  align-items: start; }
@media (max-width: 900px) { .beside { grid-template-columns: minmax(0, 1fr); } }
.scroll { max-height: 330px; overflow: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 4px 8px; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal;
  white-space: nowrap; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 12px; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--line); }
.key { list-style: none; margin: 0 0 10px; padding: 0; display: flex; flex-wrap: wrap; gap: 14px; }
.key svg { display: inline-block; width: 12px; height: 12px; margin-right: 6px;
  vertical-align: -1px; }
""" + "".join(f".s{n} {{ fill: var(--s{n}); }}\n" for n in range(SERIES))


def page(report: Report) -> str:
    """The whole page."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    series = [name for name, _ in report.tables["actions"]]
    body = [
        _head(report),
        _loss(report),
        _facts(report),
        _hours(report, series) if report.records else "<p>No record in this time.</p>",
        *(_table(report, name, series) for name in TABLES if report.tables[name]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Packet log: {report.records:,} records</title>\n<style>{_STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    since = "the beginning" if report.since <= 0 else _shown(report.since)
    where = f"<p>Only <code>{escape(report.where)}</code></p>" if report.where else ""
    return (
        f'<h1>Packet log</h1>\n<p class="soft">From {since} to {_shown(report.until)}, '
        f"times in UTC</p>\n{where}"
    )


def _shown(time_ns: int) -> str:
    return escape(moment(time_ns)[:16].replace("T", " "))


def _loss(report: Report) -> str:
    if not report.losses:
        return '<p data-count="0" data-of="lost">Nothing was lost, as far as the hosts know.</p>'
    rows = "".join(
        f'<tr><td>{escape(each.host)}</td><td class="n" data-of="lost-of-host" '
        f'data-key="{escape(each.host)}" data-count="{each.lost}">{each.lost:,}</td>'
        f'<td class="n">{each.lost_at_socket:,}</td></tr>'
        for each in report.losses
    )
    return (
        f'<div class="loss" role="note"><h2>Records were lost: '
        f'<span data-of="lost" data-count="{report.lost}">{report.lost:,}</span></h2>'
        "<p>The numbers below do not have them.</p>"
        '<table><thead><tr><th scope="col">Host</th><th scope="col" class="n">Lost</th>'
        '<th scope="col" class="n">Of these at its socket</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _facts(report: Report) -> str:
    facts = [("records", report.records, "records")]
    facts += [("lost-fact", report.lost, "lost")] if report.lost else []
    facts += [("unwanted", report.unwanted, "not stored, by filters")] if report.unwanted else []
    items = "".join(
        f'<li><strong data-of="{name}" data-count="{count}">{count:,}</strong>{words}</li>'
        for name, count, words in facts
    )
    for time_ns, words in ((report.first, "first record"), (report.last, "last record")):
        if time_ns is not None:
            items += f"<li><strong>{_shown(time_ns)}</strong>{words}</li>"
    return f'<ul class="facts">{items}</ul>'


def _hours(report: Report, series: Sequence[str]) -> str:
    hours = [(_hour(start), values) for start, values in report.hours]
    busiest = max(hours, key=lambda each: sum(each[1].values()))
    described = (
        f"Bars of {len(hours)} hours, stacked by action. The busiest is {busiest[0]} "
        f"with {sum(busiest[1].values()):,} records."
    )
    named = [name if name != "-" else "" for name in series]
    plot = hours_plot("hours", "Records per hour", described, hours, named)
    key = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true">'
        f'<rect class="s{min(n, SERIES - 1)}" width="12" height="12"/></svg>{escape(name)}</li>'
        for n, name in enumerate(series)
    )
    rows = "".join(
        f'<tr><td>{label}</td><td class="n" data-of="hour" data-key="{start}" '
        f'data-count="{sum(values.values())}">{sum(values.values()):,}</td></tr>'
        for (label, values), (start, _) in zip(hours, report.hours, strict=True)
    )
    return (
        f'<section><h2>Records per hour</h2><ul class="key">{key}</ul>'
        f'<div class="beside"><div>{plot}</div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Records per hour">'
        '<table><thead><tr><th scope="col">Hour</th><th scope="col" class="n">Records</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></div></section>"
    )


def _hour(start_ns: int) -> str:
    try:
        told = datetime.fromtimestamp(start_ns // 10**9, UTC)
    except (OverflowError, OSError, ValueError):
        return str(start_ns)
    return told.strftime("%Y-%m-%d %H:00")


def _table(report: Report, name: str, series: Sequence[str]) -> str:
    title, column = TABLES[name]
    found = report.tables[name]
    first, count = found[0]
    described = f"Bars of {len(found)} lines. The most has {first} with {count:,} records."

    def shade(label: str) -> int:
        if name == "actions":
            return series.index(label)
        action = label.rpartition("(")[2].removesuffix(")") if name == "rules" else ""
        return series.index(action) if action in series else 0

    rows = "".join(
        f'<tr><td>{escape(label)}</td><td class="n" data-of="{name}" '
        f'data-key="{escape(label)}" data-count="{number}">{number:,}</td>'
        f'<td class="n">{number / report.records:.1%}</td></tr>'
        for label, number in found
    )
    return (
        f'<section><h2>{title}</h2><div class="beside"><div>'
        f"{bars_plot(name, title, described, found, shade)}</div>"
        f'<div><table><thead><tr><th scope="col">{column}</th><th scope="col" class="n">Records'
        f'</th><th scope="col" class="n">Share</th></tr></thead><tbody>{rows}</tbody></table>'
        "</div></div></section>"
    )
