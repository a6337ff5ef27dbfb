"""Chains of iptables as one list of rules, as far as they are linear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hostler.firewall_import import Imported, ImportFailed, Unsayable
from hostler.firewall_iptables_match import Match, read
from hostler.firewall_iptables_text import Line, Option, Saved

_DEEPEST = 20
# Chains that lead to chains can make very many rules of few lines.
_MOST_MET = 100_000


@dataclass(frozen=True, slots=True)
class Reached:
    """A rule, with what leads to it; `line` is its own."""

    line: Line
    match: Match
    options: tuple[Option, ...]
    id: str


class Chains:
    """The rules of a table as packets meet them, user chains in the place of jumps to them."""

    def __init__(self, saved: Saved, made: Imported, table: str) -> None:
        self._saved = saved
        self._made = made
        self._table = table
        self._met = 0

    def reached(self, base: str) -> Iterator[Reached]:
        """The rules in the order in which packets meet them."""
        yield from self._within(base, Match(), (), base)

    def _within(
        self, chain: str, above: Match, trail: tuple[Line, ...], base: str
    ) -> Iterator[Reached]:
        lines = self._saved.chains.get((self._table, chain), [])
        for line in lines:
            self._made.check_size()
            self._met += 1
            if self._met > _MOST_MET:
                raise ImportFailed(f"chains of table {self._table} lead to too many rules")
            try:
                own, left = read(line.options, ipv6=self._saved.ipv6)
                match = own.within(above)
                if match is None:
                    self._made.remark(f"line {line.number} matches nothing where it is reached")
                    continue
                if line.target == "RETURN" and not own.restricts() and not more(left):
                    self._tell_after(line, lines)
                    return
                if (self._table, line.target) in self._saved.chains:
                    yield from self._jumped(line, match, left, trail, base)
                    continue
            except Unsayable as error:
                self._made.cannot_say(line.number, line.text, str(error))
                continue
            name = "line-" + "-".join(str(each.number) for each in (*trail, line))
            yield Reached(line, match, more(left), name if len(name) <= 32 else "")

    def _tell_after(self, line: Line, lines: Sequence[Line]) -> None:
        after = [each.number for each in lines[lines.index(line) + 1 :]]
        if after:
            words = f"lines {after[0]} to {after[-1]} are never asked: line {line.number} returns"
            self._made.note(words)

    def _jumped(
        self,
        line: Line,
        match: Match,
        left: tuple[Option, ...],
        trail: tuple[Line, ...],
        base: str,
    ) -> Iterator[Reached]:
        if more(left):
            raise Unsayable(f"{more(left)[0]} has no match of ours")
        if any(option.name == "-g" for option in line.options):
            raise Unsayable("what follows a -g cannot be said")
        if len(trail) >= _DEEPEST or line in trail:
            raise Unsayable("chains lead too deep")
        inside = self._saved.chains[self._table, line.target]
        self._must_be_linear(line.target, inside)
        if match.limit is not None and len(inside) > 1:
            raise Unsayable("a limit on the way to a chain of several rules")
        yield from self._within(line.target, match, (*trail, line), base)

    def _must_be_linear(self, chain: str, lines: Sequence[Line]) -> None:
        """Raise Unsayable if a rule goes back: those after it cannot be asked alone."""
        for line in lines:
            conditional = [o for o in line.options if o.name not in ("-j", "--comment", "-m")]
            if line.target == "RETURN" and conditional:
                for each in lines:
                    self._made.cannot_say(each.number, each.text, f"in chain {chain}")
                raise Unsayable(f"line {line.number} returns from the middle of chain {chain}")


def more(left: Sequence[Option]) -> tuple[Option, ...]:
    """What is left beside the target itself."""
    return tuple(option for option in left if option.name not in ("-j", "-g"))
