"""Label assignment: candidates, their costs, and the labels made from them."""
