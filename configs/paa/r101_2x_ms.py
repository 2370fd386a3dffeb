"""PAA, ResNet-101, 24 epochs, multi-scale."""

from ..common.data.coco_ms import dataloader
from ..common.models.paa import paa_resnet
from ..common.optim import SGD as optimizer
from ..common.schedule import MAX_ITER_2X, schedule_2x
from ..common.train import train
from ..common.weights import RESNET

model = paa_resnet(101)
lr_multiplier = schedule_2x()
train.update(init_checkpoint=RESNET[101], max_iter=MAX_ITER_2X, output_dir="output/paa/r101_2x_ms")
