"""Check that torch can compute on a device before any work starts."""

import torch


def check_device(device: "str | torch.device") -> None:
    """Raise a ValueError that lists this machine's devices if torch cannot compute on ``device``."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(err).split("\n")[0][:120]
        raise ValueError(
            f"expected a device of this machine ({', '.join(available)}), got device={str(device)!r}: {reason}"
        ) from err
