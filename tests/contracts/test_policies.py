"""What every scaling policy owes, and every file in configs/policies."""

from __future__ import annotations

import pickle

import pytest

from tiphys.configs import config_file, config_names
from tiphys.dialects import VLLM
from tiphys.documents import parse_yaml, read_text, to_yaml
from tiphys.domain.service import Envelope, Target
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.signals import Signal
from tiphys.policies import (
    ClosedPolicy,
    PolicySpace,
    PoolContext,
    check_bounds,
    clipped,
    distance,
    import_manifests,
    load_policy,
    parse_policy,
    render,
)
from tiphys.policies.any_policy import KINDS

POOL = PoolContext(name="chat", target=Target(name="chat-llm"), dialect=VLLM)
NAMES = config_names("policies")
SPACES = [name for name in NAMES if not name.startswith(("published-", "schedule-"))]
BY_THE_CLOCK = {"published-schedule-day", "schedule-day"}
SIGNALS = {
    "ttft": ("ttft_p90",),
    "running": ("running",),
    "waiting": ("waiting",),
    "kv": ("kv_usage",),
    "itl": ("itl_p90",),
    "e2e": ("e2e_p90",),
    "rps": ("rps",),
    "queue-ratio": ("queue_compute_ratio",),
    "gpu": ("gpu_utilization",),
    "cpu": ("cpu",),
    "two-metrics": ("running", "ttft_p90"),
    "nats": ("stream_lag",),
    "zero": ("queued", "running"),
    "formula": ("waiting", "running"),
}
SEEN_BY = {
    "hpa": ("ttft", "running", "waiting", "kv", "itl", "e2e", "rps", "queue-ratio", "gpu", "cpu", "two-metrics"),
    "keda": ("ttft", "running", "waiting", "kv", "nats", "zero", "formula"),
}
UNPUBLISHED = {"hpa-itl", "hpa-e2e", "hpa-rps", "hpa-two-metrics", "keda-formula"}
"""Nobody has published one: these spaces begin in the middle."""
KPA_METRICS = ("concurrency", "rps")
"""What Knative's own autoscaler counts for itself: no signal that a server exports."""
DEFAULTS = {"kpa-concurrency": "published-kpa-llm"}
"""Published defaults that are not called as their space."""
KNATIVE_HPA = {
    "kind": "knative-hpa",
    "replicas": {"min": 1, "max": 8},
    "metric": {"source": "pods", "signal": "running", "target": 16},
}


class PolicyContract:
    """What a policy owes; a new kind adds one to `members`."""

    @pytest.fixture
    def policy(self) -> ClosedPolicy:
        raise NotImplementedError

    def test_it_is_frozen_and_travels_to_other_processes(self, policy):
        assert pickle.loads(pickle.dumps(policy)) == policy
        with pytest.raises(ValueError, match="frozen"):
            policy.kind = "other"

    def test_its_document_says_its_kind_and_gives_it_back(self, policy):
        document = policy.document()
        assert list(document)[:2] == ["api_version", "kind"]
        assert parse_policy(parse_yaml(to_yaml(document))[0]) == policy

    def test_its_manifests_give_it_back(self, policy):
        assert import_manifests(parse_yaml(to_yaml(*render(policy, POOL)))) == policy

    def test_its_manifests_are_labelled_and_name_the_target_only(self, policy):
        for document in render(policy, POOL):
            assert document["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tiphys"
            assert document["metadata"]["namespace"] == "default"
            target = document.get("spec", {}).get("scaleTargetRef", {"name": "chat-llm"})
            assert target["name"] == "chat-llm"

    def test_it_has_bounds_that_can_be_clipped_to_an_envelope(self, policy):
        envelope = Envelope(min=2, max=3)
        inside = clipped(policy, envelope)
        check_bounds(inside, envelope)
        assert 2 <= inside.bounds.min <= inside.bounds.max <= 3
        assert clipped(inside, envelope) == inside

    def test_it_differs_from_itself_in_nothing(self, policy):
        assert distance(policy, policy) == 0
        assert all(signal in Signal for signal in policy.signals)

    def test_every_class_says_what_its_fields_are_upstream(self, policy):
        assert type(policy).__doc__


def members() -> dict[str, ClosedPolicy]:
    named = {name: load_policy(name) for name in NAMES if name.startswith("published-")}
    others = {"fixed": {"kind": "fixed", "replicas": 4}, "knative-hpa": KNATIVE_HPA}
    return {name: policy for name, policy in named.items() if not isinstance(policy, PolicySpace)} | {
        name: parse_policy(document) for name, document in others.items()
    }


@pytest.mark.parametrize("policy", members().values(), ids=members().keys())
class TestEveryPolicy(PolicyContract):
    pass


def test_every_kind_is_among_the_members():
    # the fleet policy scales no pool: it has neither replicas nor a manifest
    assert {policy.kind for policy in members().values()} == set(KINDS) - {"fleet"}


@pytest.mark.parametrize("name", SPACES)
class TestEverySpace:
    @pytest.fixture
    def space(self, name) -> PolicySpace:
        space = load_policy(name)
        assert isinstance(space, PolicySpace)
        return space

    def test_it_has_six_to_ten_dimensions(self, space):
        assert 6 <= len(space.dimensions) <= 10

    def test_its_published_default_lies_inside(self, space, name):
        published = None if name in UNPUBLISHED else DEFAULTS.get(name, f"published-{name}")
        assert space.document.get("published_default") == published
        params = space.params_of(space.default)
        assert params is not None and space.policy(params) == space.default

    def test_the_default_stays_inside_when_both_are_clipped_to_an_envelope(self, space):
        for low, high in ((1, 8), (2, 6), (1, 3), (4, 4)):
            envelope = Envelope(min=low, max=high)
            inside = space.within(envelope)
            assert inside.params_of(inside.default) is not None
            check_bounds(inside.default, envelope)

    def test_its_samples_are_policies_on_its_signal_within_eight_replicas(self, space, name):
        kind, seen = name.split("-", 1)
        for seed in range(50):
            policy = space.policy(space.sample(seed))
            assert policy.kind == space.kind == kind
            assert policy.metric == seen if kind == "kpa" else policy.signals == SIGNALS[seen]
            assert (0 if seen == "zero" else 1) <= policy.bounds.min <= policy.bounds.max <= 8

    def test_its_replica_bounds_and_its_target_are_open(self, space):
        paths = {dimension.path for dimension in space.dimensions}
        assert {"replicas.min", "replicas.max"} < paths
        targets = {"metrics.0.target", "triggers.0.threshold", "triggers.0.lag_threshold", "scaling_modifiers.target"}
        assert paths & (targets | {"target"})

    def test_nothing_in_it_is_inert(self, space):
        assert space.inert(ClusterSettings()) == ()

    def test_it_leads_its_readers_with_a_comment(self, name):
        assert read_text(config_file("policies", name)).startswith("# ")


def test_there_is_a_default_and_a_space_for_each_law_on_each_signal():
    wanted = {f"{law}-{seen}" for law, all_seen in SEEN_BY.items() for seen in all_seen}
    wanted |= {f"kpa-{metric}" for metric in KPA_METRICS}
    published = {DEFAULTS.get(name, f"published-{name}") for name in wanted - UNPUBLISHED}
    assert set(NAMES) == wanted | published | {"published-kpa"} | BY_THE_CLOCK
