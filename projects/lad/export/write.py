"""Writes a detector to a file and proves that the file does what the detector does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from lad.export.compare import Comparison, compare
from lad.export.graph import DetectionGraph, trace
from lad.export.metadata import Metadata
from lad.export.runtime import (
    INPUTS,
    OUTPUTS,
    PT2_METADATA,
    SUFFIXES,
    ExportedDetector,
    is_exported,
    quiet,
    require,
)
from lad.modeling.network import DenseNetwork


class DifferentOutputs(ValueError):
    """An exported file that does not do what its detector does; it has been removed."""


def export_detector(
    network: DenseNetwork, path: Path, metadata: Metadata, images: Iterable[np.ndarray]
) -> Comparison:
    """Exports a detector, if the file gives the same outputs and detections as PyTorch.

    Args:
        network: on the CPU.
        path: .onnx or .pt2, not there yet; it appears at once, complete and checked.
        metadata: of `describe`.
        images: to compare on, (H, W, 3) uint8 RGB.

    Returns:
        What has been compared.

    Raises:
        ValueError: if the network cannot be exported or a package is missing.
        DifferentOutputs: if something differs.
        OSError: if the file exists or cannot be written.
    """
    check_target(path)
    graph = DetectionGraph(network, nms=metadata.nms_inside).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the last step is a rename.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder, path.name)
        with quiet():
            program = trace(graph, metadata.size, metadata.size_multiple)
            write(program, file, metadata)
        try:
            detector = ExportedDetector(file, trusted=True)
            comparison = compare(detector, graph, (detector.prepare(x) for x in images))
        except ValueError as error:
            raise DifferentOutputs(f"{path}: removed, because {error}") from error
        check_target(path)  # it may have appeared meanwhile
        file.rename(path)
    return comparison


def check_target(path: Path) -> None:
    """Raises ValueError or FileExistsError unless a file of this name can be exported."""
    if not is_exported(path):
        raise ValueError(f"{path}: name a file that ends in {' or '.join(SUFFIXES)}")
    if path.exists():
        raise FileExistsError(f"{path} exists: remove it or choose another name")
    if path.suffix == ".onnx":
        require("onnx", "onnxscript", "onnxruntime")


def write(program: torch.export.ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Writes a program of `lad.export.graph.trace` as .onnx or .pt2, by the name of the file.

    Raises:
        ValueError: if an operation has no counterpart in ONNX.
        OSError: if the file cannot be written.
    """
    strings = metadata.to_strings()
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files={PT2_METADATA: json.dumps(strings)})
        return
    import onnx_ir

    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = (str(error.__cause__ or error).splitlines() or [""])[0]
        raise ValueError(f"the network has no ONNX form: {reason}") from error
    assert exported is not None
    model = exported.model
    # What PyTorch notes there, such as its own graph, doubles the size of a small file.
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
    model.metadata_props.update(strings)
    if metadata.size is None:  # short names in place of formulas
        model.graph.inputs[0].shape = onnx_ir.Shape([3, "height", "width"])
        if not metadata.nms_inside:
            for value, last in zip(model.graph.outputs, ([4], [], []), strict=True):
                value.shape = onnx_ir.Shape(["n", *last])
    exported.save(str(path), external_data=False)
