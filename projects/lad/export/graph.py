"""A detector as one function of tensors: pixels in, a fixed number of boxes out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from lad.modeling.network import DenseNetwork
from lad.modeling.postprocess import NMSSettings

NMS_BOXES = 5000  # best boxes that NMS inside the file starts from


class DetectionGraph(nn.Module):
    """Normalization, network, fusion of scores, top-k per level, decoding and clipping.

    Args:
        network: in evaluation mode.
        nms: suppress inside, without score voting; else the boxes that NMS starts from come out.
    """

    def __init__(self, network: DenseNetwork, *, nms: bool = False):
        super().__init__()
        self.network = network
        self.nms = nms

    def forward(self, image: Tensor, image_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (n, 4) boxes in pixels of the input, (n,) scores and (n,) int64 classes.

        Args:
            image: (3, H, W) uint8 pixels; what lies outside the image does not matter.
            image_size: (2,) int64 height and width of the image in its top left corner.
        """
        predictions = self.network.predict(self.features(image, image_size))
        selected = self.network.select_boxes(predictions, image_size[None])
        boxes, scores, classes = (x[0] for x in selected[:3])
        if self.nms:
            boxes, scores, classes = suppress(boxes, scores, classes, self.network.nms_settings)
        return boxes, scores, classes

    def features(self, image: Tensor, image_size: Tensor) -> list[Tensor]:
        """Returns the head's inputs, with a batch dimension of 1; arguments as of `forward`."""
        network = self.network
        pixels = (image - network.pixel_mean) / network.pixel_std
        height, width = image.shape[-2:]
        inside = (torch.arange(height) < image_size[0])[:, None]
        inside = inside & (torch.arange(width) < image_size[1])
        # Detectron2 pads the normalized pixels by 0.
        maps = network.backbone(torch.where(inside, pixels, 0.0)[None])
        return [maps[name] for name in network.head_in_features]


def suppress(
    boxes: Tensor, scores: Tensor, classes: Tensor, settings: NMSSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise NMS with a fixed number of results.

    Args:
        boxes: (n, 4).
        scores: (n,).
        classes: (n,).
        settings: score voting is left out.

    Returns:
        (d, 4) boxes, (d,) scores and (d,) classes of ``max_detections`` rows, best first. Rows
        without a detection have score 0, class -1 and a box of zeros.
    """
    scores = torch.where(scores > settings.score_thresh, scores, 0.0)
    scores, best = scores.topk(torch.sym_min(NMS_BOXES, scores.shape[0]))
    boxes, classes = boxes[best], classes[best]
    # All others become one box, of which NMS leaves one; a second one that is always there makes
    # the two results that torch.export expects of NMS.
    others = boxes.new_tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]])
    found = torch.cat([scores > 0, torch.zeros(2, dtype=torch.bool)])
    scores, classes = F.pad(scores, (0, 2)), F.pad(classes, (0, 2))
    boxes = torch.cat([torch.where(found[:-2, None], boxes, others[0]), others])
    classes = torch.where(found, classes, -1)
    apart = boxes + (classes * (boxes.max() + 1))[:, None]
    keep = nms(apart, scores, settings.nms_thresh)
    number = settings.max_detections
    keep = torch.cat([keep, keep.new_full((number,), -1)])[:number]
    found = (keep >= 0) & found[keep]
    boxes = torch.where(found[:, None], boxes[keep], 0.0)
    return boxes, torch.where(found, scores[keep], 0.0), torch.where(found, classes[keep], -1)


def trace(
    graph: DetectionGraph, size: tuple[int, int] | None, multiple: int
) -> torch.export.ExportedProgram:
    """Exports a graph.

    Args:
        graph: on the CPU, in evaluation mode.
        size: height and width of the input; None for any multiples of ``multiple``.
        multiple: of the sizes.

    Raises:
        ValueError: if the network cannot be traced.
    """
    height, width = size or (10 * multiple, 12 * multiple)
    example = torch.zeros(3, height, width, dtype=torch.uint8), torch.tensor([height, width])
    dynamic: dict | None = None
    if size is None:
        rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        dynamic = {"image": {1: multiple * rows, 2: multiple * columns}, "image_size": None}
    try:
        with torch.no_grad():
            program = torch.export.export(graph, example, dynamic_shapes=dynamic)
    except Exception as error:  # torch.export has many
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "; choose a fixed size" if size is None else ""
        raise ValueError(f"torch.export cannot trace the network{remedy}: {reason}") from error
    for node in program.graph.nodes:  # the file is not to hold the paths of this machine
        node.meta.pop("stack_trace", None)
    return program
