"""Optimizers. Learning rates are those of 16 images per step."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

# The papers': weight decay on every parameter, norms and biases too.
SGD = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(),
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)

# Swin's: no decay on norms and position biases.
AdamW = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(
        weight_decay_norm=0.0,
        overrides=dict(relative_position_bias_table=dict(weight_decay=0.0)),
    ),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
)
