"""The step size of an optimiser, set anew before each step."""

import torch
from torch import Tensor


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter this step size.

    That of a fused optimiser lives in a tensor, so that a recorded step reads the one of its replay. On a GPU nothing happens while
    a step is being recorded, or each replay would set it back to this one; on a CPU it is written past torch, which records only
    what it does itself.
    """
    for group in optimizer.param_groups:
        device, held = group["params"][0].device, group["lr"]
        if device.type != "cuda":
            if not group.get("fused"):
                group["lr"] = rate
            elif isinstance(held, Tensor) and held.device == device:
                held.numpy()[()] = rate
            else:
                group["lr"] = torch.tensor(rate, dtype=torch.float64)  # a Python float's digits
        elif not torch.cuda.is_current_stream_capturing():
            group["capturable"] = True
            if isinstance(held, Tensor) and held.device == device:
                held.fill_(rate)
            else:
                group["lr"] = torch.tensor(rate, device=device)
