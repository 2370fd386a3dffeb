"""PAA with implicit objectness (IOP) without the IoU branch, ResNet-18, 12 epochs."""

from ..common.models.paa import iop, paa_resnet
from ..paa.r18_1x import dataloader, lr_multiplier, optimizer, train

model = iop(paa_resnet(18), quality=False)
train.output_dir = "output/cop/iop_no_iou_r18_1x"
