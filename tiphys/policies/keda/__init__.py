"""KEDA: a ScaledObject's numbers, its manifests, and the operator's arithmetic as pure functions.

Above one replica the generated HPA decides: that arithmetic is `tiphys.policies.hpa`.
"""
