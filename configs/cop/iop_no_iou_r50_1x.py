"""PAA with implicit objectness (IOP) without the IoU branch, ResNet-50, 12 epochs."""

from ..common.models.paa import iop, paa_resnet
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = iop(paa_resnet(50), quality=False)
train.output_dir = "output/cop/iop_no_iou_r50_1x"
