"""PAA, ResNet-50, 36 epochs, multi-scale."""

from ..common.data.coco_ms import dataloader
from ..common.models.paa import paa_resnet
from ..common.optim import SGD as optimizer
from ..common.schedule import MAX_ITER_3X, schedule_3x
from ..common.train import train
from ..common.weights import RESNET

model = paa_resnet(50)
lr_multiplier = schedule_3x()
train.update(init_checkpoint=RESNET[50], max_iter=MAX_ITER_3X, output_dir="output/paa/r50_3x_ms")
