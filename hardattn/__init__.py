"""hardattn: hard visual attention as reinforcement learning. The world perceives, the agent attends, the study measures.

Importing it registers the tasks with Gymnasium: `gym.make("hardattn/RamMnist-v0")`, `gym.make_vec("hardattn/RamMnist-v0", 4096)`.
"""

from hardattn.making import register

__version__ = "0.1.0"

register()
