"""A second implementation of a service under an autoscaler: plain Python on SimPy, written from the specification.

It shares nothing with the twin but the profile reader and the plain input values (trace, pool, scenario, policy), steps
its engines iteration by iteration, and takes cold starts and phases as given numbers, so that both see the same luck.
Slow and simple on purpose: where the two disagree, the specification says which is wrong.
"""

from tests.oracle.play import Account, Chances, play

__all__ = ["Account", "Chances", "play"]
