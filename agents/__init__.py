"""Who attends: agents that choose where to look. Imports the world, never the study.

The table below names our own agents as "module:Class", so that listing them imports no torch.
"""

AGENTS = {
    "reinforce": "hardattn.agents.reinforce:Reinforce",
    "random": "hardattn.agents.fixed:Random",
    "centre": "hardattn.agents.fixed:Centre",
    "raster": "hardattn.agents.fixed:Raster",
}
CONTROLS = ("random", "centre", "raster")  # agents that never learn: the floor that every learner must beat
