"""The targets of `make fuzz` read their seeds to the end, so that what is made from these gets far; and some of it."""

import random

import pytest

from ntpaudit.core.observation import Claim
from ntpaudit.core.roughtime import SignedTime
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


def test_every_target_has_seeds() -> None:
    """And every seed a target."""
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_to_the_end(name: str) -> None:
    """Each is a claim with the daemon's servers, or a signed time."""
    for seed in SEEDS[name]:
        found = TARGETS[name].check(seed)
        assert isinstance(found, Claim | SignedTime)
        if isinstance(found, SignedTime):
            continue
        assert found.is_synchronised is not None
        assert found.sources


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds_are_read_or_refused(name: str) -> None:
    """A part that is lost, repeated or replaced makes no error that the callers do not expect."""
    rand = random.Random(name)
    for _ in range(200):
        data = bytearray(rand.choice(SEEDS[name]))
        for _ in range(rand.randrange(1, 4)):
            at = rand.randrange(len(data) + 1)
            end = min(len(data), at + rand.randrange(16))
            data[at:end] = rand.choice(
                [b"", rand.randbytes(end - at), bytes(data[at:end]) * 2, b"\xff" * 4, b"9" * 400]
            )
        TARGETS[name].check(bytes(data))
