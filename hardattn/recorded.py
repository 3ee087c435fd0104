"""An update recorded once and replayed, so that a thousand small operations no longer wait for Python.

On a GPU it becomes a CUDA graph, on a CPU a program of torch's interpreter (`written_down.py`). A replay repeats what the device
did, and nothing that Python decided. So an update plays one batch and changes its state in place, and what is decided anew each
time stays outside: which examples come next (`world.deal()`), how far digits spread (`world.reach`) and the step sizes
(`agent.schedule()`).
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from hardattn.envs.errors import HardattnError
from hardattn.written_down import Program, WritingDown

Metrics = Mapping[str, float | Tensor]

ONE_AT_A_TIME = threading.Lock()  # recording begins by waiting for the whole device, which spoils another thread's recording
WARM_UP = 3  # updates that run as they are first: optimisers make their state, libraries choose their kernels


class Recorded:
    """`update()`: run as it is a few times, then recorded, then replayed. On a GPU, call it on a stream of its own (`own_stream`).

    `generators` are those that it draws from besides torch's own. Whatever tensors it returns lie in the graph's memory: the next
    replay overwrites them. On a GPU an update that cannot be recorded raises HardattnError; on a CPU it runs from Python, and
    `refused` says why.
    """

    def __init__(self, update: Callable[[], Metrics], generators: list[torch.Generator], device: torch.device | str) -> None:
        self.update, self.generators = update, generators
        self.on_gpu = torch.device(device).type == "cuda"
        self.calls = 0
        self.key: Hashable = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.program: Program | None = None
        self.refused = ""
        self.metrics: Metrics = {}

    def __call__(self, key: Hashable = None) -> Metrics:
        """One update. `key` stands for what Python decides in it: when that changes, it is recorded anew."""
        self.calls += 1
        before, self.key = self.key, key
        if self.calls <= WARM_UP:
            return self.update()
        return self._on_gpu(key == before) if self.on_gpu else self._on_cpu(key == before)

    def _on_gpu(self, as_before: bool) -> Metrics:
        if self.graph is None or not as_before:
            self.graph, self.metrics = None, {}  # their memory goes to the next graph
            self.graph = self._record()
        self.graph.replay()
        return self.metrics

    def _on_cpu(self, as_before: bool) -> Metrics:
        if not as_before:
            self.program = None  # and so it stays while the key changes from call to call: recording costs a few updates' time
        if self.program is not None:
            try:
                return self.program()
            except RuntimeError as error:
                self.program, self.refused = None, str(error).strip()
                return self.update()  # whose own error, if it has one, tells more
        if not as_before or self.refused:
            return self.update()
        with WritingDown() as writing:
            metrics = self.update()
        self.program = writing.program(metrics)
        self.refused = writing.refused
        return metrics

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            # thread_local: what other threads ask of the device does not spoil the recording.
            with ONE_AT_A_TIME, torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self.metrics = self.update()
        except Exception as error:
            reason = " ".join(str(error).split())
            raise HardattnError(f"an update could not be recorded ({reason}); run it from Python: --set recorded=off") from error
        return graph


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """On a GPU, a stream apart from the default one, on which nothing can be recorded; elsewhere nothing."""
    if torch.device(device).type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
