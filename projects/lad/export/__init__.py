"""Export of detectors as ONNX or PyTorch programs, and how they are run."""
