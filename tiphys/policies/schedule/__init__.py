"""Replicas by the clock: a schedule's numbers, its manifests, and its arithmetic as pure functions."""
