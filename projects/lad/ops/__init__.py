"""Pure functions on boxes, scores and process groups; they know nothing of the layers above."""
