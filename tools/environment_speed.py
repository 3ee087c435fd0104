"""How many steps a second the environment faces make, each beside what people would use otherwise.

    python tools/environment_speed.py                 # writes results/environment-speed.json and prints the table
    pip install ap_gym==0.7.1                         # first, to measure that peer too; it is skipped where it is not installed

A step is one look of one row: 8x8 pixels of a 28x28 digit, 6 looks an episode, resets included. The contestants take turns for
several rounds, and the median over rounds counts, because machines are noisy.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import hardattn  # registers the ids
from hardattn.console import say
from hardattn.envs import datasets
from hardattn.memory import keep_freed_memory

ROUNDS, SECONDS = 5, 2.0
FILE = Path(__file__).resolve().parent.parent / "results" / "environment-speed.json"
Runner = Callable[[], int]  # plays a little and says how many steps that was


def vector(env_id: str, rows: int) -> Runner:
    """Our vector environment on a fixed action, so that drawing actions costs nothing."""
    env: Any = gym.make_vec(env_id, num_envs=rows, device="cpu", split="train")
    env.reset(seed=0)
    action = env.unwrapped.sample_actions()

    def run() -> int:
        for _ in range(6):
            env.step(action)
        return 6 * rows

    return run


def dummy(rows: int) -> Runner:
    """Stable-baselines3's DummyVecEnv over our single environments: one at a time, each with the same perception."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv([lambda: gym.make("hardattn/RamMnist-v0", device="cpu", split="train")] * rows)
    env.reset()
    action = np.random.default_rng(0).uniform(-1, 1, (rows, 2)).astype(np.float32)

    def run() -> int:
        for _ in range(6):
            env.step(action)
        return 6 * rows

    return run


def peer(rows: int) -> Runner | None:
    """ap_gym's MNIST classification environment over the same digits: glimpses alone, without a perception."""
    try:
        from ap_gym.envs.image import ImageClassificationDataset, ImagePerceptionConfig
        from ap_gym.envs.image_classification import ImageClassificationVectorEnv
    except ImportError:
        return None
    digits = datasets.load("mnist", "train")
    images, labels = digits.images[:, 0].numpy(), digits.labels.numpy()

    class Digits(ImageClassificationDataset):  # type: ignore[misc]
        def _get_num_classes(self) -> int:
            return 10

        def _get_num_channels(self) -> int:
            return 1

        def _get_length(self) -> int:
            return len(images)

        def _get_data_point_batch(self, index: Any) -> Any:
            return images[index], labels[index]

    config = ImagePerceptionConfig(Digits(), sensor_size=(8, 8), step_limit=6)
    env = ImageClassificationVectorEnv(rows, config)
    env.reset(seed=0)
    action = {"action": np.full((rows, 2), 0.1, np.float32), "prediction": np.zeros((rows, 10), np.float32)}

    def run() -> int:
        for _ in range(7):  # six looks, and the step that only resets
            env.step(action)
        return 6 * rows

    return run


def speed(run: Runner) -> float:
    """Steps a second over about SECONDS."""
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        steps += run()
    return steps / (time.perf_counter() - started)


def main() -> None:
    """Measure, write, print."""
    keep_freed_memory()
    contestants: dict[str, Runner | None] = {
        "vector environment, 4096 rows": vector("hardattn/RamMnist-v0", 4096),
        "vector environment, 16384 rows": vector("hardattn/RamMnist-v0", 16384),
        "DummyVecEnv over 64 single environments": dummy(64),
        "raw glimpses, 4096 rows": vector("hardattn/RamMnistRaw-v0", 4096),
        "raw glimpses, 16384 rows": vector("hardattn/RamMnistRaw-v0", 16384),
        "ap_gym 0.7.1, 64 rows": peer(64),
        "ap_gym 0.7.1, 1024 rows": peer(1024),
    }
    running = {name: run for name, run in contestants.items() if run is not None}
    for run in running.values():
        run()
    rounds: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(ROUNDS):
        for name, run in running.items():
            say(f"round {turn + 1} of {ROUNDS}: {name}")
            rounds[name].append(speed(run))
    table = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "hardattn": hardattn.__version__,
        "steps_per_second": {name: round(statistics.median(values)) for name, values in rounds.items()},
        "rounds": {name: [round(value) for value in values] for name, values in rounds.items()},
    }
    FILE.write_text(json.dumps(table, indent=2) + "\n")
    for name, value in table["steps_per_second"].items():
        print(f"{name:42s} {value:>12,}")
    say(f"Numbers in {FILE}. Next: python tools/agents_table.py")


if __name__ == "__main__":
    main()
