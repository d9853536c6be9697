"""How fast the machine delivers, scores and trains on patches, and how far that is from its own limits."""

from pcam.benchmark.stages import Stage, time_stages
from pcam.benchmark.throughput import PHASES, bench

__all__ = ["PHASES", "Stage", "bench", "time_stages"]
