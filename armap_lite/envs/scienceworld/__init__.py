"""ScienceWorld: 24 of its 30 families of science tasks in a simulated house (Wang et al., 2022)."""

from armap_lite.envs.scienceworld.environment import ScienceWorld, ScienceWorldJudge

__all__ = ["ScienceWorld", "ScienceWorldJudge"]
