"""The step size of an optimiser, set anew before each step."""

import torch
from torch import Tensor


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter this step size.

    On a GPU it lives in a tensor there, so that a recorded step (a CUDA graph) reads the one of its replay. While one is being
    recorded nothing happens, or each replay would set it back to this one.
    """
    for group in optimizer.param_groups:
        device, held = group["params"][0].device, group["lr"]
        if device.type != "cuda":
            group["lr"] = rate
        elif not torch.cuda.is_current_stream_capturing():
            group["capturable"] = True
            if isinstance(held, Tensor) and held.device == device:
                held.fill_(rate)
            else:
                group["lr"] = torch.tensor(rate, device=device)
