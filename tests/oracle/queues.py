"""Mean waits of queues that are known exactly."""

from __future__ import annotations

import math

import numpy as np


def mmc_wait(servers: int, utilization: float, service_s: float) -> float:
    """Mean wait of M/M/c: Erlang's delay formula."""
    offered = servers * utilization
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - utilization)
    return last / (sum(terms) + last) * service_s / (servers * (1 - utilization))


def mdc_wait(servers: int, utilization: float, service_s: float) -> float:
    """Mean wait of M/D/c: Crommelin's equations (1932), solved numerically, with Little's law.

    Whoever is in service now has left after one service time and nobody else has, so the number in the system one
    service time later is what waited plus a Poisson number of arrivals: a chain whose stationary law is that of the
    queue at any time. Cut off where its tail is far below the precision asked for.
    """
    states = 1500
    arrivals = np.zeros(states)
    arrivals[0] = math.exp(-servers * utilization)
    for n in range(1, states):
        arrivals[n] = arrivals[n - 1] * servers * utilization / n
    chain = np.zeros((states, states))
    for n in range(states):
        waiting = max(n - servers, 0)
        chain[n, waiting:] = arrivals[: states - waiting]
        chain[n, -1] += 1 - chain[n].sum()
    equations = chain.T - np.eye(states)
    equations[-1] = 1
    law = np.linalg.solve(equations, np.eye(states)[-1])
    queue = float(np.maximum(np.arange(states) - servers, 0) @ law)
    return queue / (servers * utilization) * service_s
