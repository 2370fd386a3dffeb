"""CoLAD with SimOTA and the indicator std/mean."""

from ..common.models.assigners import use_simota
from .colad_stdmean import dataloader, lr_multiplier, model, optimizer, train

model = use_simota(model)
train.output_dir = "output/digits/simota_colad"
