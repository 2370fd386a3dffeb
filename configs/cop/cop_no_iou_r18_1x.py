"""PAA with conditional objectness (COP) without the IoU branch, ResNet-18, 12 epochs."""

from ..common.models.paa import cop, paa_resnet
from ..paa.r18_1x import dataloader, lr_multiplier, optimizer, train

model = cop(paa_resnet(18), quality=False)
train.output_dir = "output/cop/cop_no_iou_r18_1x"
