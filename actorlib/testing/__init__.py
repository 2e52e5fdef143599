"""Testing what is built on actors: clusters in one thread, decided by a seed, with faults.

``simulate`` needs the extra ``actorlib[testing]`` (greenlet, Hypothesis).
"""

from actorlib.testing.simulation import Simulation, Stuck, simulate

__all__ = ["Simulation", "Stuck", "simulate"]
