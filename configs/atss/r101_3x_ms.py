"""ATSS (with the IoU branch), ResNet-101, 36 epochs, multi-scale: the teacher of pgd/atss_*.py."""

from ..common.models.assigners import use_atss
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r50_3x_ms import dataloader, lr_multiplier, optimizer, train

model = use_atss(paa_resnet(101))
model.losses.box_weight = 2.0
train.update(init_checkpoint=RESNET[101], output_dir="output/atss/r101_3x_ms")
