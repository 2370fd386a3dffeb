"""LAD with TAL: the costs are those of the digit scenes' PAA teacher."""

from ..common.models.assigners import use_tal
from .lad import dataloader, lr_multiplier, model, optimizer, train

model = use_tal(model)
train.output_dir = "output/digits/tal_lad"
