"""Where tensors may live."""

import torch

from htsr.errors import InputError


def check_device(device: "str | torch.device") -> None:
    """Refuse a device that is not there.

    Args:
        device: As torch names it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.

    Raises:
        InputError: If torch does not know it, or cannot compute there.
    """
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(err).split("\n")[0][:120]
        raise InputError(
            f"expected a device of this machine ({', '.join(there)}), got device={str(device)!r}: {reason}"
        ) from err
