"""Replica proposals of the HPA controller, one metric at a time.

Everything is in the controller's own integers: milli-units for quantities (`_m`), percent for utilization. Times are
seconds on the caller's clock. The functions are pure and compiled; with NUMBA_DISABLE_JIT=1 they run as plain Python.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
PENDING, RUNNING, SUCCEEDED, FAILED, UNKNOWN = range(len(PHASES))

POD_CLASSES = ("counted", "unready", "missing", "ignored")
COUNTED, UNREADY, MISSING, IGNORED = range(len(POD_CLASSES))

METRIC_ERRORS = ("", "no_metrics", "no_matching_pods", "missing_request", "container_not_found", "invalid_source")
NO_ERROR, NO_METRICS, NO_MATCHING_PODS, MISSING_REQUEST, CONTAINER_NOT_FOUND, INVALID_SOURCE = range(len(METRIC_ERRORS))

DECIDED_BY = ("nothing", "scaled", "within tolerance", "direction would reverse", "size would reverse", "from zero")
BY_NOTHING, BY_SCALING, BY_TOLERANCE, BY_DIRECTION, BY_SIZE, BY_ZERO = range(len(DECIDED_BY))

CONTAINER_KINDS = ("regular", "sidecar", "init")
REGULAR, SIDECAR, INIT = range(len(CONTAINER_KINDS))

NONE = -1
"""No index, no count, no limit."""
ABSENT = -(2**63)
"""Marks a quantity that is not there (a request that a container lacks, a usage that a sample lacks)."""
WHOLE_POD = NONE
"""Container name code: no container is named, the whole pod counts."""
MOST_REPLICAS = 2**31 - 1
MOST_MILLI = 2**63 - 1


class Pods(NamedTuple):
    """The pods behind the selector; only the first `size` entries of each array are read."""

    size: int
    phase: NDArray[np.int8]
    """Code in PHASES."""
    ready: NDArray[np.int8]
    """Ready condition: 1 true, 0 false, 2 unknown, -1 absent."""
    start_s: NDArray[np.float64]
    """Start time; NaN where not started."""
    ready_transition_s: NDArray[np.float64]
    """Last transition of the Ready condition; NaN where unknown (taken as the distant past)."""
    deleting: NDArray[np.bool_]


class Containers(NamedTuple):
    """What the pods request, one row a container, and the pod-level requests, one entry a pod."""

    pod: NDArray[np.int64]
    name: NDArray[np.int64]
    """Code of the container's name, chosen by the caller, >= 0."""
    kind: NDArray[np.int8]
    """Code in CONTAINER_KINDS; plain init containers request nothing."""
    request_m: NDArray[np.int64]
    """ABSENT where the container has no request."""
    pod_request_m: NDArray[np.int64]
    """ABSENT where the pod has no request of its own."""


class Samples(NamedTuple):
    """Answers of the pod metrics API: one sample a pod, each with rows (containers, or one row for a Pods metric)."""

    pod: NDArray[np.int64]
    """Index of the pod, NONE for one that is not in the list."""
    time_s: NDArray[np.float64]
    window_s: NDArray[np.float64]
    first_row: NDArray[np.int64]
    """Rows of sample s are first_row[s] to first_row[s + 1], end excluded: one entry more than samples."""
    row_container: NDArray[np.int64]
    row_value_m: NDArray[np.int64]
    """ABSENT where the row lacks the resource."""


class Tolerance(NamedTuple):
    """Ratios that move nothing: from 1 - down to 1 + up, both included."""

    down: float
    up: float


class Readiness(NamedTuple):
    """Clock and controller flags that decide whether a pod's cpu sample counts."""

    now_s: float
    cpu_initialization_period_s: float
    initial_readiness_delay_s: float


class Proposal(NamedTuple):
    """What one metric proposes, and the arithmetic behind it."""

    error: int
    """Code in METRIC_ERRORS; nothing else counts unless it is NO_ERROR."""
    replicas: int
    ratio: float
    """Usage over target."""
    final_ratio: float
    """The same with assumed samples for missing and unready pods; equals `ratio` where none were assumed."""
    multiplier: int
    """What the final ratio was multiplied with: counted pods, samples or ready pods; NONE where nothing was."""
    usage_m: int
    """The displayed value: the metric's value, its share per pod rounded up, or the average of the samples."""
    utilization_percent: int
    """ABSENT unless the target is a utilization."""
    decided_by: int
    """Code in DECIDED_BY."""


@jit
def within(ratio: float, tolerance: Tolerance) -> bool:
    """Whether a ratio is so near to 1 that nothing moves (2.4)."""
    return 1.0 - tolerance.down <= ratio <= 1.0 + tolerance.up


@jit
def group_pods(
    pods: Pods,
    sample_of_pod: NDArray[np.int64],
    samples: Samples,
    is_cpu: bool,
    when: Readiness,
    pod_class: NDArray[np.int8],
) -> int:
    """How many pods count; `pod_class` receives the class of each (2.5.1).

    `sample_of_pod` is the index of each pod's sample, NONE where it has none.
    """
    counted = 0
    for pod in range(pods.size):
        pod_class[pod] = _class_of(pods, pod, sample_of_pod[pod], samples, is_cpu, when)
        counted += pod_class[pod] == COUNTED
    return counted


@jit
def _class_of(pods: Pods, pod: int, sample: int, samples: Samples, is_cpu: bool, when: Readiness) -> int:
    if pods.deleting[pod] or pods.phase[pod] == FAILED:
        return IGNORED
    if pods.phase[pod] == PENDING:
        return UNREADY
    if sample == NONE:
        return MISSING
    if is_cpu and _cpu_sample_is_early(pods, pod, samples.time_s[sample], samples.window_s[sample], when):
        return UNREADY
    return COUNTED


@jit
def _cpu_sample_is_early(pods: Pods, pod: int, sample_s: float, window_s: float, when: Readiness) -> bool:
    start_s, transition_s = pods.start_s[pod], pods.ready_transition_s[pod]
    if pods.ready[pod] < 0 or math.isnan(start_s):
        return True
    if when.now_s - start_s < when.cpu_initialization_period_s:
        return bool(pods.ready[pod] == 0 or sample_s < transition_s + window_s)
    return bool(pods.ready[pod] == 0 and not transition_s >= start_s + when.initial_readiness_delay_s)


@jit
def calculate_requests(
    containers: Containers, pod_count: int, container: int, pod_level_resources: bool, requests_m: NDArray[np.int64]
) -> int:
    """An error code; `requests_m` receives the request of each pod (2.5.2).

    The request is that of the named container, or the pod-level one where it exists and the feature is on, or the sum
    over the containers and the sidecars. One container without a request, in any pod, is an error.
    """
    for pod in range(pod_count):
        if container == WHOLE_POD and pod_level_resources and containers.pod_request_m[pod] != ABSENT:
            requests_m[pod] = containers.pod_request_m[pod]
            continue
        error = _request_of_containers(containers, pod, container, requests_m)
        if error != NO_ERROR:
            return error
    return NO_ERROR


@jit
def _request_of_containers(containers: Containers, pod: int, container: int, requests_m: NDArray[np.int64]) -> int:
    requests_m[pod] = 0
    found = container == WHOLE_POD
    for row in range(len(containers.pod)):
        if containers.pod[row] != pod or containers.kind[row] == INIT:
            continue
        if container == WHOLE_POD or containers.name[row] == container:
            if containers.request_m[row] == ABSENT:
                return MISSING_REQUEST
            requests_m[pod] += containers.request_m[row]
            found = True
    return NO_ERROR if found else CONTAINER_NOT_FOUND


@jit
def sample_values(samples: Samples, container: int, values_m: NDArray[np.int64]) -> int:
    """An error code; `values_m` receives each sample's usage, ABSENT where it has none (2.3)."""
    if len(samples.pod) == 0:
        return NO_METRICS
    for sample in range(len(samples.pod)):
        if container == WHOLE_POD:
            values_m[sample] = _sum_of_rows(samples, sample)
            continue
        row = _row_of(samples, sample, container)
        if row == NONE:
            return CONTAINER_NOT_FOUND
        values_m[sample] = samples.row_value_m[row]
    return NO_ERROR


@jit
def _sum_of_rows(samples: Samples, sample: int) -> int:
    first, end = samples.first_row[sample], samples.first_row[sample + 1]
    if first == end:
        return ABSENT
    total = 0
    for row in range(first, end):
        if samples.row_value_m[row] == ABSENT:
            return ABSENT
        total = add_saturating(total, samples.row_value_m[row])
    return total


@jit
def _row_of(samples: Samples, sample: int, container: int) -> int:
    for row in range(samples.first_row[sample], samples.first_row[sample + 1]):
        if samples.row_container[row] == container:
            return row
    return NONE


@jit
def add_saturating(total_m: int, value_m: int) -> int:
    """The sum of two quantities, at most 2^63 - 1."""
    total, value = int(total_m), int(value_m)
    return total + min(value, MOST_MILLI - max(total, 0))


@jit
def external_total(values_m: NDArray[np.int64]) -> int:
    """The value of an External metric: the sum of its series, at most 2^63 - 1 (2.3)."""
    total = 0
    for value in values_m:
        total = add_saturating(total, value)
    return total


@jit
def resource_utilization(
    spec_replicas: int,
    target_percent: int,
    container: int,
    is_cpu: bool,
    pods: Pods,
    containers: Containers,
    pod_level_resources: bool,
    samples: Samples,
    tolerance: Tolerance,
    when: Readiness,
) -> Proposal:
    """The proposal of a Resource or ContainerResource metric with `averageUtilization` (2.5.2, 2.5.3)."""
    values_m = np.full(len(samples.pod), ABSENT, dtype=np.int64)
    error = sample_values(samples, container, values_m)
    if error != NO_ERROR:
        return no_proposal(error)
    pod_class, counted, size = _sampled_pods(pods, samples, values_m, is_cpu, when)
    if size == 0:
        return no_proposal(NO_MATCHING_PODS)
    requests_m = np.zeros(pods.size, dtype=np.int64)
    error = calculate_requests(containers, pods.size, container, pod_level_resources, requests_m)
    if error != NO_ERROR:
        return no_proposal(error)

    used_m, requested_m, listed = _usage_of_listed(samples, values_m, pod_class, requests_m)
    if requested_m == 0:
        return no_proposal(NO_MATCHING_PODS)
    percent = _percent(used_m, requested_m)
    ratio = float(percent) / float(target_percent)
    average_m = _divide(used_m, listed)

    for pod in range(pods.size):
        if ratio < 1.0 and pod_class[pod] == MISSING:
            used_m += int(requests_m[pod]) * max(100, target_percent) // 100
            requested_m += requests_m[pod]
            size += 1
        elif ratio > 1.0 and pod_class[pod] in (MISSING, UNREADY):
            requested_m += requests_m[pod]
            size += 1
    final_ratio = float(_percent(used_m, requested_m)) / float(target_percent)
    return _combined(spec_replicas, ratio, final_ratio, counted, size, pod_class, tolerance, average_m, percent)


@jit
def plain_average(
    spec_replicas: int,
    target_m: int,
    container: int,
    is_cpu: bool,
    pods: Pods,
    samples: Samples,
    tolerance: Tolerance,
    when: Readiness,
) -> Proposal:
    """The proposal of a Pods metric, or of a resource metric with `averageValue` (2.5.2, 2.5.3)."""
    values_m = np.full(len(samples.pod), ABSENT, dtype=np.int64)
    error = sample_values(samples, container, values_m)
    if error != NO_ERROR:
        return no_proposal(error)
    pod_class, counted, size = _sampled_pods(pods, samples, values_m, is_cpu, when)
    if size == 0:
        return no_proposal(NO_MATCHING_PODS)

    total_m = 0
    for sample in range(len(samples.pod)):
        if values_m[sample] != ABSENT:
            total_m = add_saturating(total_m, values_m[sample])
    average_m = _divide(total_m, size)
    ratio = float(average_m) / float(target_m)

    for pod in range(pods.size):
        if ratio < 1.0 and pod_class[pod] == MISSING:
            total_m = add_saturating(total_m, target_m)
            size += 1
        elif ratio > 1.0 and pod_class[pod] in (MISSING, UNREADY):
            size += 1
    final_ratio = float(_divide(total_m, size)) / float(target_m)
    return _combined(spec_replicas, ratio, final_ratio, counted, size, pod_class, tolerance, average_m, int(ABSENT))


@jit
def _sampled_pods(
    pods: Pods, samples: Samples, values_m: NDArray[np.int64], is_cpu: bool, when: Readiness
) -> tuple[NDArray[np.int8], int, int]:
    """Classes of the pods, how many count, and how many samples are left once the ignored and unready are taken out."""
    pod_class = np.zeros(pods.size, dtype=np.int8)
    sample_of_pod = np.full(pods.size, NONE, dtype=np.int64)
    for sample in range(len(samples.pod)):
        if samples.pod[sample] != NONE and values_m[sample] != ABSENT:
            sample_of_pod[samples.pod[sample]] = sample
    counted = group_pods(pods, sample_of_pod, samples, is_cpu, when, pod_class)
    size = 0
    for sample in range(len(samples.pod)):
        pod = samples.pod[sample]
        if pod != NONE and pod_class[pod] != COUNTED:
            values_m[sample] = ABSENT
        size += values_m[sample] != ABSENT
    return pod_class, counted, size if pods.size > 0 else 0


@jit
def _usage_of_listed(
    samples: Samples, values_m: NDArray[np.int64], pod_class: NDArray[np.int8], requests_m: NDArray[np.int64]
) -> tuple[int, int, int]:
    used_m, requested_m, listed = 0, 0, 0
    for sample in range(len(samples.pod)):
        pod = samples.pod[sample]
        if pod != NONE and values_m[sample] != ABSENT:
            used_m = add_saturating(used_m, values_m[sample])
            requested_m += requests_m[pod]
            listed += 1
    return used_m, requested_m, listed


@jit
def _combined(
    spec_replicas: int,
    ratio: float,
    final_ratio: float,
    counted: int,
    size: int,
    pod_class: NDArray[np.int8],
    tolerance: Tolerance,
    average_m: int,
    percent: int,
) -> Proposal:
    """The proposal from the ratios without and with assumed samples (2.5.3)."""
    some_missing, some_unready = np.any(pod_class == MISSING), np.any(pod_class == UNREADY)
    replicas, final, multiplier, decided_by = spec_replicas, final_ratio, NONE, BY_TOLERANCE
    if not some_missing and not (some_unready and ratio > 1.0):
        final = ratio
        if not within(ratio, tolerance):
            replicas, multiplier, decided_by = ceil_replicas(ratio * counted), counted, BY_SCALING
    elif not within(final_ratio, tolerance):
        growth = np.sign(final_ratio - 1.0)
        wanted = ceil_replicas(final_ratio * size)
        if growth * np.sign(ratio - 1.0) < 0.0:
            decided_by = BY_DIRECTION
        elif growth * (wanted - spec_replicas) < 0.0:
            multiplier, decided_by = size, BY_SIZE
        else:
            replicas, multiplier, decided_by = wanted, size, BY_SCALING
    return Proposal(NO_ERROR, replicas, ratio, final, multiplier, average_m, percent, decided_by)


@jit
def value_replicas(spec_replicas: int, value_m: int, target_m: int, pods: Pods, tolerance: Tolerance) -> Proposal:
    """The proposal of an Object or External metric with `value`: spec count and ready pods (2.5.4)."""
    ratio = float(value_m) / float(target_m)
    if spec_replicas == 0:
        return Proposal(NO_ERROR, ceil_replicas(ratio), ratio, ratio, NONE, value_m, ABSENT, BY_ZERO)
    if within(ratio, tolerance):
        return Proposal(NO_ERROR, spec_replicas, ratio, ratio, NONE, value_m, ABSENT, BY_TOLERANCE)
    if pods.size == 0:
        return no_proposal(NO_MATCHING_PODS)
    ready = ready_pods(pods)
    return Proposal(NO_ERROR, ceil_replicas(ratio * ready), ratio, ratio, ready, value_m, ABSENT, BY_SCALING)


@jit
def ready_pods(pods: Pods) -> int:
    """How many pods are Running and Ready, those being deleted included."""
    ready = 0
    for pod in range(pods.size):
        ready += pods.phase[pod] == RUNNING and pods.ready[pod] == 1
    return ready


@jit
def average_value_replicas(status_replicas: int, value_m: int, target_m: int, tolerance: Tolerance) -> Proposal:
    """The proposal of an Object or External metric with `averageValue`: status count, no pods (2.5.5)."""
    shown_m = _share_per_pod(value_m, status_replicas)
    ratio = math.nan
    if status_replicas > 0:
        ratio = float(value_m) / (float(target_m) * float(status_replicas))
        if within(ratio, tolerance):
            return Proposal(NO_ERROR, status_replicas, ratio, ratio, NONE, shown_m, ABSENT, BY_TOLERANCE)
    return Proposal(
        NO_ERROR, ceil_replicas(float(value_m) / float(target_m)), ratio, ratio, NONE, shown_m, ABSENT, BY_SCALING
    )


@jit
def _share_per_pod(value_m: int, replicas: int) -> int:
    # As a double 2^63 - 1 is 2^63, which no milli-quantity can hold: it is shown as it is, whatever the count.
    if float(value_m) >= float(MOST_MILLI):
        return MOST_MILLI
    if replicas == 0:
        return 0
    return math.ceil(float(value_m) / float(replicas))


@jit
def ceil_replicas(wanted: float) -> int:
    """A replica count rounded up, within 32 bits."""
    return math.ceil(min(max(wanted, -float(MOST_REPLICAS)), float(MOST_REPLICAS)))


@jit
def _percent(used_m: int, requested_m: int) -> int:
    """100 * used / requested, truncated; the whole part is taken first so that 64 bits suffice."""
    whole, rest = divmod(int(used_m), int(requested_m))
    return 100 * whole + 100 * rest // int(requested_m)


@jit
def _divide(total: int, count: int) -> int:
    """Integer division that truncates towards zero."""
    return int(np.sign(total)) * (abs(int(total)) // int(count))


@jit
def no_proposal(error: int) -> Proposal:
    """The proposal of a metric that is invalid in this pass."""
    return Proposal(error, NONE, math.nan, math.nan, NONE, ABSENT, ABSENT, BY_NOTHING)
