"""The one retry policy: how many attempts there are, and how long the pauses between them."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LaneHalted, SinkUnavailable
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.retry import Attempt, RetryPolicy


class Fake:
    """A server that fails for some calls, and a clock that only records the pauses."""

    def __init__(self, away: int) -> None:
        self.away, self.calls = away, 0
        self.pauses: list[float] = []
        self.reports: list[str] = []

    def policy(self, attempts_max: int | None, draw: float = 0.999) -> RetryPolicy:
        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        return RetryPolicy(
            attempts_max,
            backoff_ms_max=1_000,
            draw=lambda: draw,
            sleep=sleep,
            sleep_blocking=self.pauses.append,
        )

    def blocking(self) -> str:
        self.calls += 1
        if self.calls <= self.away:
            raise SinkUnavailable(f"away {self.calls}")
        return "there"

    async def call(self) -> str:
        return self.blocking()

    def failed(self, error: SinkUnavailable, attempt: Attempt) -> None:
        self.reports.append(f"{error.message}, {attempt}")


def called(fake: Fake, policy: RetryPolicy, blocking: bool) -> str:
    if blocking:
        return policy.call_blocking(fake.blocking, SinkUnavailable, fake.failed)
    return asyncio.run(policy.call(fake.call, SinkUnavailable, fake.failed))


@given(st.integers(1, 60_000), st.lists(st.integers(1, 10**9), min_size=2))
def test_pauses_double_up_to_the_longest_and_stay_there(longest_ms: int, failures: list[int]) -> None:
    """They do so however long ClickHouse is away, even after a weekend of attempts."""
    policy = RetryPolicy(None, longest_ms, draw=lambda: 1.0)
    pauses = [policy.pause_seconds(number) for number in sorted(failures)]
    assert all(0 < before <= after <= longest_ms / 1000 for before, after in pairwise(pauses))
    assert policy.pause_seconds(1) == min(0.1, longest_ms / 1000)
    assert policy.pause_seconds(10**9) == longest_ms / 1000


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 40))
def test_every_pause_is_drawn_from_the_upper_half(drawn: float, failures: int) -> None:
    """Lanes that lose a server together do not come back together, and none retries immediately."""
    longest = RetryPolicy(None, 5_000, draw=lambda: 1.0).pause_seconds(failures)
    assert RetryPolicy(None, 5_000, draw=lambda: drawn).pause_seconds(failures) == pytest.approx(
        longest * (0.5 + drawn / 2)
    )


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("attempts_max", [1, 2, 10])
def test_there_are_as_many_calls_as_the_policy_says(attempts_max: int, blocking: bool) -> None:
    """The first call counts; the last one's error is raised, without an announcement of another attempt."""
    fake = Fake(away=10**6)
    policy = fake.policy(attempts_max)
    with pytest.raises(SinkUnavailable, match=rf"away {attempts_max}$"):
        called(fake, policy, blocking)
    assert fake.calls == attempts_max
    assert fake.reports == [f"away {n}, try {n} of {attempts_max}" for n in range(1, attempts_max)]
    assert len(fake.pauses) == attempts_max - 1


@pytest.mark.parametrize("blocking", [False, True])
def test_without_a_limit_it_goes_on_until_it_succeeds(blocking: bool) -> None:
    """A worker waits for ClickHouse as long as it is away."""
    fake = Fake(away=100)
    policy = fake.policy(None, draw=0.0)
    assert called(fake, policy, blocking) == "there"
    assert fake.reports[-1] == "away 100, try 100"
    assert fake.pauses[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]


async def test_what_is_not_to_be_retried_is_raised_at_once() -> None:
    """A wrong password is not tried ten times, and nothing is retried after `failed` has raised."""

    async def stopped() -> None:
        raise LaneHalted("no", reason=HaltReason.BUG)

    fake = Fake(away=5)
    with pytest.raises(LaneHalted):
        await fake.policy(3).call(stopped, SinkUnavailable, fake.failed)

    def refused(error: SinkUnavailable, _: Attempt) -> None:
        raise error

    with pytest.raises(SinkUnavailable, match=r"away 1$"):
        await fake.policy(3).call(fake.call, SinkUnavailable, refused)
    assert fake.calls == 1
    assert not fake.pauses


def test_oftener_tries_as_long_as_before():
    """Shorter pauses make more attempts, not less patience; a policy without a limit has none afterwards."""
    policy = RetryPolicy(10, 5_000)
    often = policy.oftener(500)
    total = [sum(p.longest_pause_ms(n) for n in range(1, p.attempts_max)) for p in (policy, often)]
    assert total[0] <= total[1] < total[0] + 500
    assert often.backoff_ms_max == 500
    assert policy.oftener(9_000) == policy
    assert RetryPolicy(None, 5_000).oftener(500).attempts_max is None
