"""What KEDA's triggers measure, and how a measured number becomes a metric of the generated HPA.

Quantities are milli-units (`_m`). What the twin asks for at every request is compiled; what reads an answer of a server
or the metadata of a trigger is plain Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tiphys.compiled import jit
from tiphys.errors import InputError, unknown_name

MOST_MILLI = 2**63 - 1
NO_METRIC_M = 0
"""Stands where there is an error in place of a metric."""
SCALERS = ("nats-jetstream", "prometheus")

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_FLOAT = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)|nan", re.IGNORECASE)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NOT_IN_NAMES = str.maketrans("/.:%()", "------")


class MilliQuantity(NamedTuple):
    """A quantity of any size: `mantissa * 2**shift` milli-units."""

    mantissa: int
    shift: int


class Reading(NamedTuple):
    """What a trigger says when it is asked."""

    error: bool
    """It could not say anything; nothing else counts."""
    value: float
    """What was measured, in the trigger's unit."""
    metric_m: int
    """What the HPA is told, milli-units."""
    active: bool
    """The value is over the trigger's activation threshold."""


@jit
def quantity_milli(value: float) -> MilliQuantity:
    """A number as a quantity with three decimals, exactly, a tie to the even one; 0 for what is not finite or negative.

    The operator writes the number as text with three decimals, so a value that 64 bits of milli-units cannot hold stays
    what it is: that is why the answer has a shift.
    """
    fraction, exponent = math.frexp(value if 0.0 < value < math.inf else 0.0)
    mantissa = int(fraction * 2.0**53) * 1000
    if exponent >= 53:
        return MilliQuantity(mantissa, exponent - 53)
    return MilliQuantity(_halved(mantissa, 53 - exponent), 0)


@jit
def _halved(number: int, times: int) -> int:
    """number / 2**times to the nearest integer, a tie to the even one."""
    if times > 63:
        return 0
    quotient = number >> times
    rest = number - (quotient << times)
    half = 1 << (times - 1)
    return quotient + int(rest > half or (rest == half and quotient % 2 == 1))


@jit
def milli_value(value: float) -> int:
    """`quantity_milli` as the HPA reads it: milli-units, at most 2^63 - 1."""
    if math.isfinite(value) and value * 1000.0 >= 2.0**63:
        return MOST_MILLI
    quantity = quantity_milli(value)
    return quantity.mantissa << quantity.shift


@jit
def truncated_milli(thousandths: float) -> int:
    """Thousandths cut to whole milli-units, as the operator does with a computed metric.

    What 64 bits cannot hold becomes -2^63: on x86-64 the conversion of such a number to an integer has that result.
    """
    if not abs(thousandths) < 2.0**63:
        return -(2**63)
    return int(thousandths)


@jit
def units_of(metric_m: int) -> float:
    """A quantity in units, as the operator reads it back: a product, where a quotient may differ in the last bit."""
    return float(metric_m) * 1e-3


@jit
def failed_reading() -> Reading:
    """The reading of a trigger that could not be asked."""
    return Reading(True, math.nan, NO_METRIC_M, False)


@jit
def value_reading(value: float, activation: float) -> Reading:
    """The reading of a measured value; active strictly above `activation`, both in the trigger's unit."""
    return Reading(False, value, milli_value(value), value > activation)


@jit
def prometheus_reading(value: float, ignore_null: bool, activation: float) -> Reading:
    """The reading of a query's value, NaN where the answer was empty (3.3).

    Empty, NaN and infinite count as 0 with `ignore_null`, else they are an error.
    """
    if math.isfinite(value):
        return value_reading(value, activation)
    return value_reading(0.0, activation) if ignore_null else failed_reading()


@jit
def lag_reading(pending: int, ack_pending: int, activation: int) -> Reading:
    """The reading of a JetStream consumer, in messages: undelivered plus delivered but not acknowledged (3.2)."""
    lag = pending + ack_pending
    return Reading(False, float(lag), milli_value(float(lag)), lag > activation)


def prometheus_query(body: object, http_status: int, ignore_null: bool, activation: float = 0.0) -> Reading:
    """The reading of an instant query's answer: its JSON document and HTTP status (3.3)."""
    if not 200 <= http_status <= 299 or not isinstance(body, Mapping):
        return failed_reading()
    series = (body.get("data") or {}).get("result") or []
    if len(series) > 1:
        return failed_reading()
    sample = series[0].get("value") if series else None
    return _sample_reading(sample or [], ignore_null, activation)


def _sample_reading(sample: Sequence[object], ignore_null: bool, activation: float) -> Reading:
    if not sample:
        return prometheus_reading(math.nan, ignore_null, activation)
    if len(sample) < 2:
        return failed_reading()
    if sample[1] is None:
        return value_reading(-1.0, activation)
    value = parse_float(sample[1])
    return failed_reading() if value is None else prometheus_reading(value, ignore_null, activation)


def parse_float(text: object) -> float | None:
    """The double that a text denotes in Go's notation, None where it denotes none."""
    if not isinstance(text, str) or not _FLOAT.fullmatch(text):
        return None
    value = float(text)
    return None if math.isinf(value) and "inf" not in text.lower() else value


def parse_bool(text: str) -> bool | None:
    """The truth value that a text denotes in Go's notation, None where it denotes none."""
    return text in _TRUE if text in _TRUE + _FALSE else None


class JetStreamConfig(NamedTuple):
    """The metadata of a nats-jetstream trigger, defaults filled in; thresholds in messages."""

    endpoint: str
    account: str
    """Name of the account; empty where only its id is given."""
    account_id: str
    stream: str
    consumer: str
    lag_threshold: int
    activation: int
    use_https: bool


def nats_config(metadata: Mapping[str, str], auth: Mapping[str, str]) -> JetStreamConfig:
    """The configuration in a nats-jetstream trigger's metadata and authentication parameters (3.2).

    Endpoint and account may stand in either, the parameters first. Raises InputError for what KEDA does not accept.
    """
    account = _text("account", auth, metadata)
    account_id = _text("accountID", auth, metadata) or account
    if not account_id:
        raise InputError("an account or an accountID is required", key="account")
    return JetStreamConfig(
        endpoint=_required("natsServerMonitoringEndpoint", auth, metadata),
        account=account,
        account_id=account_id,
        stream=_required("stream", metadata),
        consumer=_required("consumer", metadata),
        lag_threshold=_integer("lagThreshold", metadata, "10"),
        activation=_integer("activationLagThreshold", metadata, "0"),
        use_https=_truth("useHttps", metadata, "false"),
    )


def _text(key: str, *sources: Mapping[str, str]) -> str:
    return next((text for source in sources if (text := source.get(key, "").strip())), "")


def _required(key: str, *sources: Mapping[str, str]) -> str:
    text = _text(key, *sources)
    if not text:
        raise InputError("is required", key=key)
    return text


def _integer(key: str, metadata: Mapping[str, str], default: str) -> int:
    text = _text(key, metadata) or default
    if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise InputError("is not a whole number", key=key, found=text)
    return int(text)


def _truth(key: str, metadata: Mapping[str, str], default: str) -> bool:
    text = _text(key, metadata) or default
    value = parse_bool(text)
    if value is None:
        raise InputError("is not a truth value", key=key, found=text, allowed=", ".join(_TRUE + _FALSE))
    return value


def nats_jetstream(answer: Mapping[str, Any] | None, config: JetStreamConfig) -> Reading:
    """The reading of a `/jsz` document, that of the consumer's leader where the server is clustered (3.2).

    An unreachable server (None) is an error, and so is a stream or consumer that is not there.
    """
    for account in (answer or {}).get("account_details") or ():
        if account.get("id", "") != config.account_id and account.get("name", "") != config.account:
            continue
        for stream in account.get("stream_detail") or ():
            for consumer in stream.get("consumer_detail") or ():
                if (stream.get("name"), consumer.get("name")) == (config.stream, config.consumer):
                    return lag_reading(
                        consumer.get("num_pending", 0), consumer.get("num_ack_pending", 0), config.activation
                    )
    return failed_reading()


def metric_name(scaler: str, index: int, stream: str = "") -> str:
    """The name of the External metric of trigger `index` (3.1). Raises InputError for a scaler that has none."""
    if scaler not in SCALERS:
        raise unknown_name("scaler with an external metric", scaler, SCALERS)
    name = f"nats-jetstream-{stream}" if scaler == "nats-jetstream" else scaler
    return f"s{index}-{name.translate(_NOT_IN_NAMES)}"
