"""Room for calls: bounded in all, and by identity, whatever order they come and go in."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.runtime.taking import Room, TooManyCalls, only_message


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_the_counts_hold(most, events):
    room, open_calls = Room(most), []
    of_one = most if most == 1 else most - max(1, most // 8)
    for identity, comes in events:
        if not comes:
            mine = [call for call in open_calls if call[0] == identity]
            if mine:
                open_calls.remove(mine[0])
                mine[0][1].__exit__(None, None, None)
            continue
        count = sum(1 for call in open_calls if call[0] == identity)
        block = room.taken(identity)
        if len(open_calls) >= most or count >= of_one:
            with pytest.raises(TooManyCalls):
                block.__enter__()
        else:
            block.__enter__()
            open_calls.append((identity, block))


def test_who_has_most_of_it_does_not_keep_out_another():
    room = Room(256)
    held = [room.taken("one") for _ in range(224)]
    for block in held:
        block.__enter__()
    with pytest.raises(TooManyCalls) as caught, room.taken("one"):
        pass
    assert caught.value.metadata == {"most": "224", "identity": "one"}
    with room.taken("another"):
        pass
    held.pop().__exit__(None, None, None)
    with room.taken("one"):
        pass


async def test_few_messages_of_one_identity_are_received_at_once():
    room, receiving, most = Room(100), Counter(), Counter()

    async def messages(identity):
        receiving[identity] += 1
        most[identity] = max(most[identity], receiving[identity])
        await asyncio.sleep(0.01)
        receiving[identity] -= 1
        yield identity

    async def call(identity):
        with room.taken(identity) as turn:
            return await only_message(messages(identity), turn)

    calls = [call(identity) for identity in "ab" for _ in range(40)]
    assert Counter(await asyncio.gather(*calls)) == {"a": 40, "b": 40}
    assert most == {"a": 8, "b": 8}
