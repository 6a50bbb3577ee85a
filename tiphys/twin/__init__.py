"""A platform made of arithmetic: event loop, replicas, scrapes, controllers.

It promises the recording that the real controllers and an engine with the profile's step times would leave; it claims
no accuracy on a GPU that was not measured. Anything that needs a connection belongs in `cluster`.
"""

from tiphys.twin.platform import Twin, TwinPool, TwinService

__all__ = ["Twin", "TwinPool", "TwinService"]
