"""What every scaling policy owes, and every file in configs/policies."""

from __future__ import annotations

import pickle

import pytest

from tiphys.configs import config_file, config_names
from tiphys.dialects import VLLM
from tiphys.documents import parse_yaml, read_text, to_yaml
from tiphys.domain.service import Envelope, Target
from tiphys.domain.settings import ClusterSettings
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
SPACES = [name for name in NAMES if not name.startswith("published-")]
SIGNALS = {"ttft": "ttft_p90", "running": "running", "waiting": "waiting", "kv": "kv_usage"}


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
        assert all(signal in SIGNALS.values() for signal in policy.signals)

    def test_every_class_says_what_its_fields_are_upstream(self, policy):
        assert type(policy).__doc__


def members() -> dict[str, ClosedPolicy]:
    named = {name: load_policy(name) for name in NAMES if name.startswith("published-")}
    fixed = parse_policy({"kind": "fixed", "replicas": 4})
    return {name: policy for name, policy in named.items() if not isinstance(policy, PolicySpace)} | {"fixed": fixed}


@pytest.mark.parametrize("policy", members().values(), ids=members().keys())
class TestEveryPolicy(PolicyContract):
    pass


def test_every_kind_is_among_the_members():
    assert {policy.kind for policy in members().values()} == set(KINDS)


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
        assert space.document["published_default"] == f"published-{name}"
        params = space.params_of(space.default)
        assert params is not None and space.policy(params) == space.default

    def test_the_default_stays_inside_when_both_are_clipped_to_an_envelope(self, space):
        for low, high in ((1, 8), (2, 6), (1, 3), (4, 4)):
            envelope = Envelope(min=low, max=high)
            inside = space.within(envelope)
            assert inside.params_of(inside.default) is not None
            check_bounds(inside.default, envelope)

    def test_its_samples_are_policies_on_its_signal_within_eight_replicas(self, space, name):
        for seed in range(50):
            policy = space.policy(space.sample(seed))
            assert policy.kind == space.kind == name.split("-")[0]
            assert policy.signals == (SIGNALS[name.split("-")[1]],)
            assert 1 <= policy.bounds.min <= policy.bounds.max <= 8

    def test_its_replica_bounds_and_its_target_are_open(self, space):
        paths = {dimension.path for dimension in space.dimensions}
        assert {"replicas.min", "replicas.max"} < paths
        assert paths & {"metrics.0.target", "triggers.0.threshold"}

    def test_nothing_in_it_is_inert(self, space):
        assert space.inert(ClusterSettings()) == ()

    def test_it_leads_its_readers_with_a_comment(self, name):
        assert read_text(config_file("policies", name)).startswith("# ")


def test_there_is_a_default_and_a_space_for_each_law_on_each_signal():
    wanted = {f"{law}-{signal}" for law in ("hpa", "keda") for signal in SIGNALS}
    assert set(NAMES) == wanted | {f"published-{name}" for name in wanted}
