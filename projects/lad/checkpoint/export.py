"""Export of one network from a two-network checkpoint."""

from __future__ import annotations

from lad.checkpoint.read import network_weights, read_weights
from lad.checkpoint.write import write_checkpoint


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
    part = network_weights(read_weights(path), network)
    write_checkpoint({"model": part}, output)
    return len(part)
