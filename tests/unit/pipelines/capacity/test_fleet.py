"""Devices and their rate: counted, given or assumed, never invented."""

from __future__ import annotations

import pytest

from encoder.errors import InvalidInputError
from pipelines.capacity.fleet import Fleet, flop_per_token, rate_without_probe
from pipelines.capacity.settings import FleetSettings

NOINSTRUCT = {"hidden_size": 384, "num_hidden_layers": 12, "intermediate_size": 1536}


def settings(**changes) -> FleetSettings:
    return FleetSettings(**changes)


def test_gpus_are_a_count_and_a_name():
    fleet = Fleet.of(settings(gpus="8xH100", cpus=64))
    assert (fleet.gpus, fleet.gpu_name, fleet.cpus) == (8, "H100", 64)
    assert str(fleet) == "8 x H100 and 64 cores"


@pytest.mark.parametrize("gpus", ["8", "H100", "0xH100", "x", "8x", "-1xH100"])
def test_gpus_that_say_no_count_or_no_name_are_refused(gpus: str):
    with pytest.raises(InvalidInputError, match="expected COUNTxNAME"):
        Fleet.of(settings(gpus=gpus))


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (8, 1), (9, 2), (64, 8)])
def test_cores_are_divided_as_the_pool_divides_them(cpus: int, workers: int):
    assert Fleet.of(settings(cpus=cpus)).workers == workers


def test_a_fleet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected a fleet, found none"):
        settings()


def test_noinstructs_forward_is_counted_from_its_configuration():
    # 12 layers of 4 x 384^2 + 2 x 384 x 1536 multiplications, 2 operations each.
    assert flop_per_token(NOINSTRUCT, 0) == pytest.approx(42.467e6, rel=1e-4)
    assert flop_per_token(NOINSTRUCT, 128) == pytest.approx((42.467 + 2.359) * 1e6, rel=1e-4)


def test_distilberts_names_are_known():
    shape = {"dim": 384, "n_layers": 12, "hidden_dim": 1536}
    assert flop_per_token(shape, 10) == flop_per_token(NOINSTRUCT, 10)


def test_a_model_that_does_not_say_its_shape_is_not_guessed():
    with pytest.raises(InvalidInputError, match="give a measured --tokens-per-s"):
        flop_per_token({"hidden_size": 384}, 10)


def test_a_gpu_without_a_rate_is_refused_with_what_to_do():
    with pytest.raises(InvalidInputError, match=r"cannot be measured.*--tokens-per-s.*--tflops"):
        rate_without_probe(settings(gpus="8xH100"), NOINSTRUCT, 100)


def test_cores_without_a_rate_are_left_to_the_probe():
    assert rate_without_probe(settings(cpus=4), NOINSTRUCT, 100) is None


def test_a_given_rate_is_said_to_be_given():
    rate = rate_without_probe(settings(gpus="1xL4", tokens_per_s=5e5), NOINSTRUCT, 100)
    assert rate is not None
    assert (rate.tokens_per_s, rate.basis) == (5e5, "given")


def test_a_rate_from_a_peak_is_said_to_be_assumed():
    rate = rate_without_probe(settings(gpus="1xH100", tflops=989, utilisation=0.4), NOINSTRUCT, 0)
    assert rate is not None
    assert rate.basis == "assumed"
    assert rate.tokens_per_s == pytest.approx(989e12 * 0.4 / 42.467e6, rel=1e-4)


@pytest.mark.parametrize(
    "half",
    [
        {"gpus": "1xH100", "tflops": 989},
        {"gpus": "1xH100", "utilisation": 0.4},
        {"cpus": 4, "tflops": 1, "utilisation": 0.4},
        {"gpus": "1xH100", "tflops": 989, "utilisation": 0.4, "tokens_per_s": 1},
    ],
)
def test_half_an_assumption_or_two_rates_are_refused(half: dict[str, object]):
    with pytest.raises(ValueError, match=r"--tflops"):
        settings(**half)
