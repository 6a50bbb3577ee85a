"""The Horizontal Pod Autoscaler: its numbers, its manifests, and the controller's arithmetic as pure functions."""
