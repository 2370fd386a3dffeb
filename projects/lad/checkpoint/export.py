"""Export of one network from a two-network checkpoint."""

from __future__ import annotations

import torch

from lad.checkpoint.load import read_weights


def export_network(path: str, network: str, output: str) -> int:
    """Writes one network's weights as a plain detector's checkpoint.

    Args:
        path: checkpoint of a two-network model; averaged weights (EMA) are used if it has them.
        network: "student" or "teacher".
        output: path of the new file.

    Returns:
        The number of weights.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it does not hold that network.
    """
    prefix = f"{network}."
    weights = read_weights(path)
    part = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not part:
        names = sorted({key.split(".")[0] for key in weights})
        raise ValueError(f"it has no {network}: its weights are those of {', '.join(names[:5])}")
    torch.save({"model": part}, output)
    return len(part)
