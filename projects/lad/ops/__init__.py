"""Functions on boxes, scores and process groups."""
