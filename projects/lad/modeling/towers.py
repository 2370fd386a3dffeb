"""The blocks of a head's towers, for losses between their features."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from lad.modeling.network import DenseNetwork


class Block(NamedTuple):
    """A convolution of a tower with its norm and ReLU.

    Attributes:
        before: name of the module whose output goes into the ReLU.
        after: name of the ReLU.
        rest: what follows the output of ``before`` in the tower.
        channels: of the block's output.
    """

    before: str
    after: str
    rest: nn.Sequential
    channels: int


def tower_blocks(network: DenseNetwork, loss: str, minimum: int = 1) -> tuple[list[Block], ...]:
    """Returns the blocks of a head's class tower and box tower.

    Args:
        network: with a head of two towers.
        loss: name of the loss that needs them, for messages.
        minimum: blocks of a tower.

    Raises:
        ValueError: for another head, or fewer blocks.
    """
    if network.towers is None:
        raise ValueError(
            f"{loss}: {type(network).__name__} has no class and box tower whose features could be "
            "compared; use a dense detector, or a loss between the backbones' features such as PKD"
        )
    towers = tuple(_blocks(network.get_submodule(name), name) for name in network.towers)
    shortest = min(map(len, towers))
    if shortest < minimum:
        raise ValueError(
            f"{loss} needs towers of at least {minimum} convolutions, but a head has {shortest}: "
            "set num_convs of the heads of student and teacher"
        )
    return towers


def _blocks(tower: nn.Module, name: str) -> list[Block]:
    layers = list(tower.children())
    blocks, channels = [], 0
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
        elif isinstance(layer, nn.ReLU):
            before, after = f"{name}.{index - 1}", f"{name}.{index}"
            blocks.append(Block(before, after, nn.Sequential(*layers[index:]), channels))
    return blocks
