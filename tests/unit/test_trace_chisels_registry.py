"""All chisels are listed and described, have a test, and say what is wrong with an argument."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from trace_rows import Call, batch

from hostler.core.trace import chisels
from hostler.core.trace.chisel import ArgumentsInvalid, Chisel, Kind
from hostler.core.trace.chisel_registry import ChiselUnknown, all_chisels, chisel_of, find
from hostler.core.trace.chisel_results import Kept, Lines
from hostler.core.trace.events import Events
from hostler.core.trace.field import Need

FOLDER = Path(next(iter(chisels.__path__)))
TESTS = "".join(
    path.read_text() for path in sorted(Path(__file__).parent.glob("test_trace_chisels_*.py"))
)
EVERY = list(all_chisels().values())
REQUIRED = {"key": "proc.name", "min_ms": "0", "match": "evt.failed=true"}


def arguments(chisel: Chisel) -> dict[str, str]:
    return {a.name: REQUIRED[a.name] for a in chisel.arguments if a.default is None}


def test_each_file_of_the_folder_is_a_chisel() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert files == set(all_chisels())


@pytest.mark.parametrize("chisel", EVERY, ids=lambda chisel: chisel.name)
def test_each_chisel_is_described_and_has_a_test(chisel: Chisel) -> None:
    assert 10 < len(chisel.summary) < 80 and not chisel.summary.endswith(".")
    for argument in chisel.arguments:
        assert len(argument.help) > 5
        assert (argument.kind is Kind.CHOICE) == bool(argument.choices)
        if argument.default is not None:
            argument.read(argument.default)
    assert re.search(rf"^def test_{chisel.name}_", TESTS, re.MULTILINE)
    assert (FOLDER / f"{chisel.name}.py").read_text().count("\n") < 200


@pytest.mark.parametrize("chisel", EVERY, ids=lambda chisel: chisel.name)
@pytest.mark.parametrize("per_host", [False, True])
def test_each_chisel_takes_any_batch(chisel: Chisel, per_host: bool) -> None:
    running = chisel.start(arguments(chisel), per_host=per_host)
    first = running.result()
    assert chisel.streams == isinstance(first, Lines | Kept)
    for events in (Events.empty(), batch([Call("exit_group")]), batch([Call("read", result=-9)])):
        running.take(events, "alpha")
    assert type(running.result()) is type(first)


def test_an_unknown_chisel_is_answered_by_the_nearest() -> None:
    with pytest.raises(ChiselUnknown, match=r"no chisel 'topscall'; did you mean topscalls\?"):
        find("topscall")


@pytest.mark.parametrize(
    ("name", "given", "answer"),
    [
        ("fdbytes_by", {}, "fdbytes_by needs key: the field to group by"),
        ("fdbytes_by", {"key": "proc.nam"}, "key: there is no field 'proc.nam'; did you mean"),
        ("fdbytes_by", {"key": "fd.ip"}, "key: fd.ip has several values for one event"),
        (
            "fdbytes_by",
            {"key": "fd.name", "top": "-1"},
            "top is a number of 0 to 1000000, not '-1'",
        ),
        ("fdbytes_by", {"key": "fd.name", "top": "\u0663"}, "top is a number"),
        ("topscalls", {"colour": "red"}, "topscalls has no argument 'colour'; it takes top"),
    ],
)
def test_a_bad_argument_is_told(name: str, given: dict[str, str], answer: str) -> None:
    with pytest.raises(ArgumentsInvalid) as caught:
        find(name).start(given)
    assert answer in str(caught.value)


def test_arguments_go_by_name_or_by_place() -> None:
    chisel = find("fdbytes_by")
    assert chisel.named(["proc.name", "5"]) == {"key": "proc.name", "top": "5"}
    assert chisel.named(["top=5", "proc.name"]) == {"key": "proc.name", "top": "5"}
    with pytest.raises(ArgumentsInvalid, match="one argument too many, 'c'; it takes key, top"):
        chisel.named(["a", "b", "c"])
    with pytest.raises(ArgumentsInvalid, match="top twice"):
        chisel.named(["top=1", "top=2"])


def test_what_a_trace_must_keep_is_known_before_it_starts() -> None:
    assert find("topscalls").start({}).needs == Need.NOTHING
    assert find("fdbytes_by").start({"key": "proc.cmdline"}).needs == Need.CMDLINE


def test_a_file_without_a_chisel_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no CHISEL"):
        chisel_of(object(), "x")
    with pytest.raises(ValueError, match="is called 'topscalls' and not 'x'"):
        chisel_of(type("Module", (), {"CHISEL": find("topscalls")}), "x")
