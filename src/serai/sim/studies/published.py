"""What the sources published, beside what the studies find; and which runs make up a study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serai.match.movement import Policy
from serai.sim.studies.cluster import GB, MODERN, Cluster
from serai.sim.studies.diffusion import Outcome, run
from serai.sim.studies.loads import mixed, rising

__all__ = ["DIFFUSION", "IDEAL_S", "MIXED", "QUICK", "Setting", "simulate"]

IDEAL_S = 1415.0
QUICK = 1 / 8
MIXED_CACHE_BYTES = 2 * GB


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of the data diffusion study.

    Attributes:
        policy: which decides.
        cache_bytes: of each node.
        published_s: the completion time of the source, as recalled and not checked against it; None where it has none.
        mixed: whether it is the mixed load, on nodes of today.
    """

    policy: Policy
    cache_bytes: int
    published_s: float | None = None
    mixed: bool = False


DIFFUSION = (
    Setting(Policy.FIRST_AVAILABLE, 4 * GB, 5011.0),
    Setting(Policy.FIRST_CACHE_AVAILABLE, 4 * GB),
    Setting(Policy.MAX_CACHE_HIT, 4 * GB, 2888.0),
    Setting(Policy.MAX_COMPUTE_UTIL, 4 * GB, 2037.0),
    Setting(Policy.GOOD_CACHE_COMPUTE, GB),
    Setting(Policy.GOOD_CACHE_COMPUTE, 3 * GB // 2),
    Setting(Policy.GOOD_CACHE_COMPUTE, 2 * GB, 1436.0),
    Setting(Policy.GOOD_CACHE_COMPUTE, 4 * GB, 1427.0),
    Setting(Policy.AUTO, GB),
    Setting(Policy.AUTO, 3 * GB // 2),
    Setting(Policy.AUTO, 2 * GB),
    Setting(Policy.AUTO, 4 * GB),
)
MIXED = tuple(Setting(policy, MIXED_CACHE_BYTES, mixed=True) for policy in Policy)


def simulate(setting: Setting, seed: int, scale: float = 1.0) -> Outcome:
    """Run a setting.

    Args:
        setting: which.
        seed: of what is read.
        scale: of the tasks, files, nodes and rates, such as `QUICK`.
    """
    load = mixed(seed, scale) if setting.mixed else rising(seed, scale)
    cluster = replace(MODERN if setting.mixed else Cluster(), cache_bytes=setting.cache_bytes)
    return run(setting.policy, load, cluster.scaled(scale))
