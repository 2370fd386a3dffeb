"""LAD with SimOTA: the costs are those of the digit scenes' PAA teacher."""

from ..common.models.assigners import use_simota
from .lad import dataloader, lr_multiplier, model, optimizer, train

model = use_simota(model)
train.output_dir = "output/digits/simota_lad"
