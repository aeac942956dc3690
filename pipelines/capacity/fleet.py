"""The devices of a fleet and the rate of one: given, measured or assumed, and never invented."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from encoder.errors import InvalidInputError
from pipelines.capacity.settings import FleetSettings
from pipelines.driver.pool import MOST_CPUS_PER_CPU_ACTOR

__all__ = ["Fleet", "Rate", "flop_per_token", "rate_without_probe"]

_GPUS = re.compile(r"(?P<count>[1-9]\d*)\s*[xX]\s*(?P<name>\S.*)")
_WIDTH = ("hidden_size", "dim")
_LAYERS = ("num_hidden_layers", "n_layers")
_INTERMEDIATE = ("intermediate_size", "hidden_dim")


@dataclass(frozen=True)
class Fleet:
    """Devices that embed.

    Attributes:
        gpus: GPUs; 0 where the forward runs on CPUs.
        gpu_name: Name as given, "" without GPUs.
        cpus: CPU cores in all; None where they were not said (with GPUs only).
    """

    gpus: int
    gpu_name: str
    cpus: int | None

    @classmethod
    def of(cls, settings: FleetSettings) -> Fleet:
        """Return the fleet that the settings name.

        Raises:
            InvalidInputError: `gpus` is not COUNTxNAME.
        """
        if settings.gpus is None:
            return cls(0, "", settings.cpus)
        match = _GPUS.fullmatch(settings.gpus.strip())
        if match is None:
            raise InvalidInputError(
                f"--gpus: expected COUNTxNAME such as 8xH100, found {settings.gpus!r}"
            )
        return cls(int(match["count"]), match["name"], settings.cpus)

    @property
    def workers(self) -> int:
        """Actors: one a GPU, or as the job's pool divides cores."""
        return self.gpus or math.ceil((self.cpus or 1) / MOST_CPUS_PER_CPU_ACTOR)

    @property
    def devices(self) -> int:
        """What device hours count: GPUs, or cores."""
        return self.gpus or self.cpus or 1

    def __str__(self) -> str:
        """Return "8 x H100 and 64 cores"."""
        parts = [f"{self.gpus} x {self.gpu_name}"] if self.gpus else []
        parts += [f"{self.cpus} cores"] if self.cpus else []
        return " and ".join(parts)


@dataclass(frozen=True)
class Rate:
    """Tokens/s of one device, padding left out.

    Attributes:
        tokens_per_s: Of one GPU, or of one core.
        basis: "given", "measured" or "assumed".
        how: Where the figure is from, in words.
    """

    tokens_per_s: float
    basis: str
    how: str


def flop_per_token(config: Mapping[str, Any], length: float) -> float:
    """Return the floating-point operations that a BERT-like forward takes for each token.

    Two for each multiplication: per layer four projections of H x H and two of H x I, and two
    products of the token with `length` others for the attention.

    Args:
        config: The model's config.json.
        length: Tokens of the text that a token stands in, on average over tokens.

    Raises:
        InvalidInputError: The configuration does not say the model's shape.
    """
    width, layers, inner = (
        next((int(config[name]) for name in names if name in config), None)
        for names in (_WIDTH, _LAYERS, _INTERMEDIATE)
    )
    if width is None or layers is None or inner is None:
        raise InvalidInputError(
            f"config.json: expected {_WIDTH[0]}, {_LAYERS[0]} and {_INTERMEDIATE[0]} to count "
            "operations from, found not all; give a measured --tokens-per-s instead of --tflops"
        )
    return 2.0 * layers * (4 * width**2 + 2 * width * inner + 2 * width * length)


def rate_without_probe(
    settings: FleetSettings, config: Mapping[str, Any], length: float
) -> Rate | None:
    """Return the rate that the settings give, or None where cores are to be probed.

    Args:
        settings: The fleet and its rate, where it is said.
        config: The model's config.json.
        length: Tokens of the text that a token stands in, on average over tokens.

    Raises:
        InvalidInputError: A GPU's rate is neither given nor assumed.
    """
    if settings.tokens_per_s is not None:
        return Rate(settings.tokens_per_s, "given", "--tokens-per-s")
    if settings.tflops is not None and settings.utilisation is not None:
        flop = flop_per_token(config, length)
        sustained = settings.tflops * settings.utilisation
        return Rate(
            sustained * 1e12 / flop,
            "assumed",
            f"{settings.tflops:g} TFLOP/s x {settings.utilisation:.0%} over {flop / 1e6:.1f} "
            "MFLOP a token",
        )
    if settings.gpus is not None:
        raise InvalidInputError(
            f"--gpus {settings.gpus}: expected their rate, found none; a GPU that is not here "
            "cannot be measured. Run `twofold embed` on a part of the corpus on one of them and "
            "give `encode_tokens_per_s` of its _report.json as --tokens-per-s, or give --tflops "
            "and --utilisation for an assumed one"
        )
    return None
