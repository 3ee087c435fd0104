"""What can be seen: images, retinas, perception networks and the worlds made of them. Imports no agent and no study."""
