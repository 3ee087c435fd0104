"""Who attends: agents that choose where to look. Imports the world, never the study.

The table below names our own agents as "module:Class", so that listing them imports no torch.
"""

AGENTS = {
    "reinforce": "hardattn.agents.reinforce:Reinforce",
    "ppo": "hardattn.agents.ppo:PPO",
    "pathwise": "hardattn.agents.pathwise:Pathwise",
    "snes": "hardattn.agents.snes:SNES",
    "random": "hardattn.agents.fixed:Random",
    "centre": "hardattn.agents.fixed:Centre",
    "raster": "hardattn.agents.fixed:Raster",
    "oracle": "hardattn.agents.fixed:Oracle",
}
CONTROLS = ("random", "centre", "raster", "oracle")  # agents that never learn: the floor that every learner must beat
