"""The shipped experiments that the twin does not play yet; tests that play every experiment pass over these."""

from __future__ import annotations

UNPLAYED = ("clients", "fifteen", "knative", "pd", "rag", "spot", "sweep", "zero")
