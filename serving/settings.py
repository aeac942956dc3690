"""Settings of the endpoint: one frozen model, filled by flags, variables, YAML, Serve's `args:`.

Every limit is a setting, and every setting's help says what it trades.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from command_line.fields import Location, OneOrMore
from command_line.sources import nested
from encoder.settings import EncoderSettings
from encoder.space import Role
from serving.load import DEFAULT_QUEUE_WAIT_S

__all__ = ["LimitSettings", "ScalingSettings", "ServingSettings"]


def _keys(value: object) -> object:
    """Accept "a,b", by itself or in the list of a flag or JSON; an empty key is an unset variable.

    White space around a key, as the end of a line in a secret, is nothing that a client can send.
    """
    keys: object = (value,) if isinstance(value, str) else value
    if isinstance(keys, (list, tuple)):
        keys = [
            part.strip() if isinstance(part, str) else part
            for key in keys
            for part in (key.split(",") if isinstance(key, str) else [key])
        ]
        if "" in keys:
            raise ValueError("expected keys, found an empty one; unset it to serve without keys")
    return keys


class LimitSettings(BaseModel):
    """What one request, and all waiting requests together, may ask of a replica."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_inputs: int = Field(
        2048,
        ge=1,
        description="Inputs of one request (OpenAI allows 2,048); more is 413",
    )
    max_body_bytes: int = Field(2**22, ge=1, description="Bytes of a request's body; more is 413")
    max_request_tokens: int = Field(
        262_144,
        ge=1,
        description="Tokens of one request, after truncation; more is 413. A large one is embedded "
        "in parts, in turns with small ones",
    )
    max_queued_tokens: int = Field(
        262_144,
        ge=1,
        description="Tokens that may wait in a replica, beside a request that finds it idle; "
        "beyond it a request gets 429 with Retry-After and does not wait for the encoder. A large "
        "request's tokens do not count against small ones, which have turns of their own",
    )
    max_queue_wait_s: float | None = Field(
        None,
        gt=0,
        description="Longest wait, beyond what a request takes by itself, at which one is "
        "accepted; else 429. More absorbs bursts, less keeps the slowest answer fast; unset: 0.15, "
        "or one and a half forwards of a slow encoder",
    )
    max_buffered_bytes: int = Field(
        2**28,
        ge=1,
        description="Bytes of all bodies that are being read or answered; beyond it 429. As many "
        "again of answers of more than 64 KiB, until the clients have taken them",
    )
    request_timeout_s: float = Field(
        60.0,
        gt=0,
        description="From the request's last byte to its vectors; longer is 504, or 413 at once "
        "where by its tokens it must take longer",
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        description="For the whole body to arrive; a slower client gets 408. Also for a client to "
        "take each 256 KiB of a large answer, and 40 kB/s of the whole; a slower one's connection "
        "is closed",
    )


class ScalingSettings(BaseModel):
    """How many replicas, and what each takes of the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=1, description="Replicas that always run")
    max_replicas: int | None = Field(
        None, ge=1, description="Replicas at most; unset: min-replicas, without autoscaling"
    )
    num_cpus_per_replica: float | None = Field(
        None,
        gt=0,
        description="CPUs of a replica, and threads of its encoder; unset: 4, or all of a "
        "smaller machine",
    )
    num_gpus_per_replica: float | None = Field(
        None,
        ge=0,
        description="GPUs of a replica; unset: 1 where the cluster has GPUs and device and backend "
        "allow one, else 0; 0.25 puts four on a GPU",
    )
    target_utilization: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Offered tokens over what a replica can encode at which another is started; "
        "lower leaves room for bursts",
    )
    target_queue_wait_s: float = Field(
        0.1,
        gt=0,
        description="Mean wait at which one more replica is started; below max-queue-wait-s, "
        "at which requests are refused",
    )
    upscale_delay_s: float = Field(
        3.0, ge=0, description="How long the load must ask for more replicas before they start"
    )
    downscale_delay_s: float = Field(
        120.0, ge=0, description="How long it must ask for fewer before one stops"
    )
    metrics_interval_s: float = Field(
        1.0, gt=0, description="How often a replica reports its load to the autoscaler"
    )
    max_replicas_per_node: int | None = Field(
        None, ge=1, description="1 spreads replicas, so that a lost node takes one"
    )
    drain_timeout_s: float = Field(
        100.0,
        ge=0,
        description="How long a stopping replica may finish what it holds: Serve goes on taking "
        "requests for the first 30 s, and each may last request-timeout-s",
    )

    @model_validator(mode="after")
    def _ordered(self) -> ScalingSettings:
        if self.most_replicas < self.min_replicas:
            raise ValueError(
                f"expected min_replicas <= max_replicas, found {self.min_replicas} and "
                f"{self.most_replicas}"
            )
        return self

    @property
    def most_replicas(self) -> int:
        """Replicas at most."""
        return self.min_replicas if self.max_replicas is None else self.max_replicas


class ServingSettings(BaseModel):
    """What the endpoint serves. Field descriptions are the command's help."""

    # Serve shows and logs why an application cannot be built; keys are no part of that.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    scaling: ScalingSettings = Field(default_factory=ScalingSettings)

    corpus: Location | None = Field(
        None,
        description="Output folder of `twofold embed`, local or any fsspec URI: the endpoint "
        "refuses to start unless its vectors are of the same space",
    )
    served_model_name: OneOrMore = Field(
        (),
        description="Names that requests may give as `model`, the first one is given back; unset: "
        "the model reference. Each is also known with -query and -document behind it",
    )
    default_role: Role = Field(Role.QUERY, description="Role of requests that do not name one")
    accept_token_arrays: bool = Field(
        False,
        description="Take arrays of token ids: only if all clients use this model's tokenizer",
    )
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_keys)] = Field(
        (),
        description="Bearer keys, one of which a request must carry (health stays open); "
        "give them in TWOFOLD_API_KEYS, flags are seen in process lists",
    )
    vector_cache_bytes: int = Field(
        0,
        ge=0,
        description="Memory of a replica for the vectors that were asked for last, by role and "
        "tokens: who asks again waits for no forward. 0 keeps none: how long an answer takes tells "
        "whether somebody has asked the same before",
    )
    access_log: bool = Field(
        True,
        description="One JSON line for each request, in access_*.log beside the replica's log",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_flat(cls, values: object) -> object:
        """Accept `model: x` beside `encoder: {model: x}`: Serve's `args:` and flags stand flat."""
        if isinstance(values, Mapping):
            flat: dict[str, Any] = {str(key): value for key, value in values.items()}
            return nested(cls, flat, where="the settings")
        return values

    @model_validator(mode="after")
    def _grows_before_it_refuses(self) -> ServingSettings:
        scaling = self.scaling
        longest_s = self.limits.max_queue_wait_s or DEFAULT_QUEUE_WAIT_S
        grows = scaling.most_replicas > scaling.min_replicas
        if grows and scaling.target_queue_wait_s >= longest_s:
            raise ValueError(
                f"expected target_queue_wait_s below max_queue_wait_s ({longest_s:g}), found "
                f"{scaling.target_queue_wait_s:g}: requests are refused before they wait so long, "
                "and no replica would be added for them; lower it, or raise max_queue_wait_s"
            )
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names that requests may give as `model`."""
        return self.served_model_name or (self.encoder.model,)
