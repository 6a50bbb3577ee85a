"""tiphys: autoscaling policies of LLM services, tuned on a digital twin, proved on unseen traffic, promoted with
evidence.

Put the fleet under a policy, play the scenario, score what was recorded.
"""

__version__ = "0.1.0"
