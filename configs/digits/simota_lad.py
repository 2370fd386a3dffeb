"""LAD with SimOTA: the digit scenes' PAA teacher makes its costs."""

from ..common.models.assigners import use_simota
from .lad import dataloader, lr_multiplier, model, optimizer, train

model = use_simota(model)
train.output_dir = "output/digits/simota_lad"
