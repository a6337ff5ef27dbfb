"""The kinds of values that options take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from hostler.limits import Batches, Tolerance


class Seconds(click.ParamType[Any]):
    """A time such as 30, 1.5s, 500ms, 2m or 1h; in seconds."""

    name = "TIME"
    _UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it; a usage error if it is none, or not above zero."""
        text = str(value)
        unit = next((u for u in self._UNITS if text.endswith(u)), "")
        try:
            seconds = float(text.removesuffix(unit)) * self._UNITS.get(unit, 1)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 86400:
            self.fail(f"{text!r} is not a time such as 30, 1.5s, 500ms or 2m", param, ctx)
        return seconds


class Age(click.ParamType[Any]):
    """How long something is kept, such as 90s, 30m, 12h or 30d; in seconds."""

    name = "AGE"
    _UNITS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it; a usage error if it is none."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([1-9]\d{0,8})([smhd])", str(value))
        if found is None or int(found[1]) * self._UNITS[found[2]] > 36500 * 86400:
            self.fail(f"{value!r} is not an age such as 12h or 30d", param, ctx)
        return float(int(found[1]) * self._UNITS[found[2]])


class Failures(click.ParamType[Any]):
    """A number of hosts, or a share of them in percent."""

    name = "N|P%"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Tolerance:
        """Read it; a usage error if it is neither."""
        if isinstance(value, Tolerance):
            return value
        try:
            return Tolerance.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Waves(click.ParamType[Any]):
    """The waves of a rollout."""

    name = "N|P%,...,100%"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Batches:
        """Read it; a usage error if it is none."""
        if isinstance(value, Batches):
            return value
        try:
            return Batches.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Bytes(click.ParamType[Any]):
    """A size such as 1048576, 64M or 1.5GiB; K, M, G and T are powers of 1024. In bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; a usage error if it is none."""
        found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,6})?)([KMGT]?)(?:i?B)?", str(value))
        if found is None:
            self.fail(f"{value!r} is not a size such as 1048576, 64M or 1.5G", param, ctx)
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


class Cpus(click.ParamType[Any]):
    """CPUs, such as 0.5; in thousandths."""

    name = "CPUS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; a usage error if it is none."""
        found = re.fullmatch(r"\d{1,6}(?:\.\d{1,3})?", str(value))
        if found is None:
            self.fail(f"{value!r} is not a number of CPUs such as 0.5 or 2", param, ctx)
        return round(float(value) * 1000)


class Pair(click.ParamType[Any]):
    """KEY=VALUE."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Read it; a usage error without a key or an equals sign."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        return key, rest
