"""PAA with conditional objectness (COP) without the IoU branch, ResNet-50, 12 epochs."""

from ..common.models.paa import cop, paa_resnet
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = cop(paa_resnet(50), quality=False)
train.output_dir = "output/cop/cop_no_iou_r50_1x"
