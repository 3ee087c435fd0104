"""hardattn: hard visual attention as reinforcement learning. The world perceives, the agent attends, the study measures."""

__version__ = "0.1.0"
