"""CoLAD with TAL and the indicator std/mean."""

from ..common.models.assigners import use_tal
from .colad_stdmean import dataloader, lr_multiplier, model, optimizer, train

model = use_tal(model)
train.output_dir = "output/digits/tal_colad"
