"""Retry keys: once, joined, answered again across restarts, never with another body."""

import asyncio
import os
import time

import pytest

from hostler.api.common.v1 import change_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostlerd.runtime import answers as answers_module
from hostlerd.runtime.answers import Answers, Key, Reused, answer_of
from hostlerd.runtime.errors import Code, DomainError, InvalidRequest, RequestIdReused
from hostlerd.runtime.idempotency import RetryKeys, key_of

SECRET = "-".join(("hunter", "2"))
METHOD = "/hostler.api.netns.v1.NamespaceService/DeleteNamespace"


class Failed(DomainError):
    code, reason = Code.FAILED_PRECONDITION, "FAILED"


def key(name="web", identity="i", method=METHOD, request_id="id"):
    return key_of(identity, method, request_id, namespace_pb2.DeleteNamespaceRequest(name=name))


def answer(etag="", **more):
    change = change_pb2.Change(etag=etag, outcome=change_pb2.OUTCOME_APPLIED, **more)
    return namespace_pb2.DeleteNamespaceResponse(change=change)


class Doing:
    def __init__(self, error=None):
        self.times, self.error, self.go = 0, error, asyncio.Event()

    async def __call__(self):
        self.times += 1
        await self.go.wait()
        if self.error:
            raise self.error
        return answer(etag=f"run {self.times}", changed=True)


@pytest.fixture
def keys(tmp_path):
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
    return keys_in(tmp_path)


def keys_in(folder):
    """A daemon's keys; made again, it is another daemon."""
    return RetryKeys(Answers(folder / "state", folder / "run"), asyncio.to_thread)


async def once(keys, do, *, lasts=True, **of):
    wanted = key(**of)
    return await keys.once(wanted, answer_of(wanted.method), do, lambda _: lasts)


async def test_a_retry_joins_the_call_in_flight_and_one_after_it_gets_its_answer(keys):
    do = Doing()
    calls = [asyncio.create_task(once(keys, do)) for _ in range(5)]
    await asyncio.sleep(0.05)
    do.go.set()
    told = await asyncio.gather(*calls)
    told.append(await once(keys, do))
    assert do.times == 1
    assert {a.change.etag for a, _ in told} == {"run 1"}
    assert [own for _, own in told] == [True, *[False] * 5]


@pytest.mark.parametrize("lasts", [True, False])
async def test_the_answer_survives_the_daemon_and_if_it_should_the_boot(keys, tmp_path, lasts):
    do = Doing()
    do.go.set()
    first, _ = await once(keys, do, lasts=lasts)
    again, own = await once(keys_in(tmp_path), do)
    assert (again, own, do.times) == (first, False, 1)
    after_boot = RetryKeys(Answers(tmp_path / "state", tmp_path / "other"), asyncio.to_thread)
    (tmp_path / "other").mkdir()
    await once(after_boot, do)
    assert do.times == (1 if lasts else 2)


async def test_another_body_or_a_long_id_is_refused(keys, tmp_path):
    do = Doing()
    running = asyncio.create_task(once(keys, do))
    await asyncio.sleep(0.05)
    with pytest.raises(RequestIdReused):
        await once(keys, do, name="db")
    do.go.set()
    await running
    for daemon in (keys, keys_in(tmp_path)):
        with pytest.raises(RequestIdReused):
            await once(daemon, do, name="db")
    with pytest.raises(InvalidRequest):
        await once(keys, do, request_id="x" * 129)


@pytest.mark.parametrize(
    "other",
    [{"identity": "j"}, {"method": METHOD.replace("Delete", "Create")}, {"request_id": "o"}],
)
async def test_keys_are_of_one_identity_and_method(keys, other):
    do = Doing()
    do.go.set()
    await once(keys, do)
    await once(keys, do, name="db", **other)
    assert do.times == 2


async def test_without_an_id_every_call_is_a_new_one(keys):
    do = Doing()
    do.go.set()
    for _ in range(3):
        await once(keys, do, request_id="")
    assert do.times == 3


async def test_what_failed_may_be_tried_again_and_who_joined_sees_the_error(keys):
    do = Doing(Failed("no"))
    calls = [asyncio.create_task(once(keys, do)) for _ in range(2)]
    await asyncio.sleep(0.05)
    do.go.set()
    for call in calls:
        with pytest.raises(Failed):
            await call
    do.error = None
    await once(keys, do)
    assert do.times == 2


async def test_a_disk_that_does_not_take_the_answer_does_not_undo_the_change(keys, tmp_path):
    do = Doing()
    do.go.set()
    (tmp_path / "state/requests").write_text("a file in the way")
    told, _ = await once(keys, do)
    assert told.change.etag == "run 1"


def stored(tmp_path, message=None, kept=None):
    kept = kept or Answers(tmp_path, tmp_path)
    kept.store(key(), message or answer(etag="e"), lasts=True)
    return kept


def test_secrets_are_not_stored(tmp_path):
    secret = process_pb2.Process(name="p", environment={"TOKEN": SECRET})
    status = process_pb2.ProcessStatus(process=secret)
    change = change_pb2.Change(destroy_token=SECRET, etag="e")
    stored(tmp_path, process_pb2.StartProcessResponse(status=status, change=change))
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert SECRET.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
    told = process_pb2.StartProcessResponse()
    assert Answers(tmp_path, tmp_path).find(key(), told)
    assert told.status.process.name == "p" and told.change.etag == "e"


def test_a_long_answer_keeps_its_outcome(tmp_path):
    long = namespace_pb2.ApplyNamespacesResponse(
        namespaces=[namespace_pb2.Namespace(name="n" * 1000) for _ in range(1000)],
        change=answer(etag="e", changed=True).change,
    )
    kept, told = stored(tmp_path, long), namespace_pb2.ApplyNamespacesResponse()
    assert kept.find(key(), told)
    assert told.change.changed and told.change.etag == "e" and not told.namespaces


def test_a_day_later_it_is_a_new_request(tmp_path):
    kept, told = stored(tmp_path), answer()
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    old = time.time() - answers_module.KEPT_S - 1
    os.utime(path, (old, old))
    assert not kept.find(key(), told)


def test_old_answers_go_by_the_folder_and_the_newest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(answers_module, "FOLDERS", 3)
    monkeypatch.setattr(answers_module, "IN_FOLDER", 5)
    for number in range(40):
        # A daemon that is started again goes on in the same folders.
        kept = Answers(tmp_path / "none", tmp_path)
        kept.store(Key("i", METHOD, str(number), "00" * 32), answer(), lasts=False)
    folders = sorted((tmp_path / "requests").iterdir())
    assert len(folders) == 3 and all(len(list(f.iterdir())) == 5 for f in folders)
    found = [n for n in range(40) if kept.find(Key("i", METHOD, str(n), "00" * 32), answer())]
    assert found == list(range(25, 40))


def test_another_body_is_noticed_on_disk(tmp_path):
    kept = stored(tmp_path)
    with pytest.raises(Reused):
        kept.find(key(name="db"), answer())


def test_a_torn_answer_counts_as_none(tmp_path):
    kept = stored(tmp_path)
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    path.write_bytes(path.read_bytes()[:10])
    assert not kept.find(key(), answer())
