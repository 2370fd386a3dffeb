"""CoLAD of COP-X101 and PAA-R50: one decision per object and level (released code)."""

from .cop_x101_from_r50_2x_ms_stdmean import dataloader, lr_multiplier, model, optimizer, train

model.switch.scope = "level"
train.output_dir = "output/colad/cop_x101_from_r50_2x_ms_stdmean_level"
