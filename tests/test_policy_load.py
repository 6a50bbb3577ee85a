"""A policy is named, or lies in a file of ours or of Kubernetes, or stands in place."""

from __future__ import annotations

import pytest

from tiphys.configs import config_file, config_folder, config_names
from tiphys.dialects import VLLM
from tiphys.documents import write_yaml
from tiphys.domain.service import Target
from tiphys.errors import InputError
from tiphys.policies import PolicySpace, PoolContext, closed, load_policy, parse_policy, render

FIXED = {"kind": "fixed", "replicas": 3}


def test_a_name_is_looked_up_in_the_configurations():
    assert load_policy("published-hpa-ttft").kind == "hpa"
    space = load_policy("keda-kv")
    assert isinstance(space, PolicySpace) and space.name == "keda-kv" and space.where.endswith("keda-kv.yaml")


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(InputError, match=r"chat.yaml: unknown name .* did you mean 'hpa-ttft'\?.*published-keda-kv"):
        load_policy("hpa-tfft", where="chat.yaml")


def test_a_document_stands_in_place():
    assert load_policy(FIXED) == parse_policy(FIXED)
    with pytest.raises(InputError, match=r"chat.yaml: replicas"):
        load_policy(FIXED | {"replicas": -1}, where="chat.yaml")


def test_a_path_leads_to_a_policy_or_a_space(tmp_path):
    write_yaml(tmp_path / "mine.yaml", [FIXED])
    write_yaml(tmp_path / "open.yaml", [FIXED | {"replicas": {"between": [1, 9]}}])
    assert load_policy(tmp_path / "mine.yaml") == parse_policy(FIXED)
    assert isinstance(load_policy(str(tmp_path / "open.yaml")), PolicySpace)


def test_a_relative_path_is_looked_for_beside_the_file_that_names_it(tmp_path):
    write_yaml(tmp_path / "mine.yaml", [FIXED])
    assert load_policy("mine.yaml", where=str(tmp_path / "experiment.yaml")) == parse_policy(FIXED)
    assert load_policy("./mine.yaml", where=str(tmp_path / "experiment.yaml")) == parse_policy(FIXED)


def test_a_kubernetes_manifest_is_a_policy(tmp_path):
    policy = closed(load_policy("published-keda-running"))
    pool = PoolContext(name="chat", target=Target(name="chat-llm"), dialect=VLLM)
    write_yaml(tmp_path / "scaler.yaml", render(policy, pool))
    assert load_policy(tmp_path / "scaler.yaml") == policy


def test_a_missing_file_is_an_error_that_lists_the_names(tmp_path):
    with pytest.raises(InputError, match=r"no such policy file.*nothere.yaml.*published-hpa-ttft"):
        load_policy(str(tmp_path / "nothere.yaml"))


def test_two_policies_in_one_file_are_an_error(tmp_path):
    write_yaml(tmp_path / "two.yaml", [FIXED, FIXED])
    with pytest.raises(InputError, match=r"two.yaml: expected one policy"):
        load_policy(tmp_path / "two.yaml")


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(InputError, match=r"empty.yaml: expected one policy"):
        load_policy(tmp_path / "empty.yaml")


def test_duplicate_keys_are_an_error(tmp_path):
    (tmp_path / "twice.yaml").write_text("kind: fixed\nreplicas: 1\nreplicas: 2\n")
    with pytest.raises(InputError, match=r"twice.yaml: duplicate key 'replicas'"):
        load_policy(tmp_path / "twice.yaml")


def test_the_folders_of_configurations_are_a_closed_set():
    assert (config_folder("policies") / "hpa-ttft.yaml").is_file()
    assert "hpa-ttft" in config_names("policies") and config_file("policies", "hpa-ttft").is_file()
    with pytest.raises(InputError, match=r"did you mean 'policies'\?"):
        config_folder("policy")
