"""A model refuses meaningless knobs, and survives serialisation."""

import pytest

from adledger.loadtest.traffic.model import Burst, TrafficModel
from adledger.pipeline.errors import UsageError


@pytest.mark.parametrize(
    "knobs",
    [
        {"events": 0}, {"partitions": 0}, {"click_share": 1.01}, {"malformed_share": -0.1}, {"retry_hours_weight": -1},
        {"start_ms": 0}, {"clock_skew_ms_max": 300_000}, {"user_tail_exponent": 1.0}, {"seed": -1}, {"seed": 2**64},
    ],
)  # fmt: skip
def test_knobs_out_of_bounds_are_refused_by_name(knobs: dict):
    """The error names the knob and its value, and says what is allowed."""
    ((name, value),) = knobs.items()
    with pytest.raises(UsageError) as caught:
        TrafficModel(**knobs)
    assert name in caught.value.message
    assert str(value) in caught.value.message
    assert caught.value.remedy


def test_a_model_round_trips():
    """JSON and back gives an equal model; a knob that does not exist is refused by name."""
    model = TrafficModel(seed=7, duration_hours=1.5, bursts=(Burst(1, 2, 3.0),))
    assert TrafficModel.from_json(model.to_json()) == model
    with pytest.raises(UsageError, match="clickshare"):
        TrafficModel.from_json('{"clickshare": 0.5}')
