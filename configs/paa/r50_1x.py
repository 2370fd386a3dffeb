"""PAA, ResNet-50, 12 epochs."""

from ..common.data.coco import dataloader
from ..common.models.paa import paa_resnet
from ..common.optim import SGD as optimizer
from ..common.schedule import MAX_ITER_1X, schedule_1x
from ..common.train import train
from ..common.weights import RESNET

model = paa_resnet(50)
lr_multiplier = schedule_1x()
train.update(init_checkpoint=RESNET[50], max_iter=MAX_ITER_1X, output_dir="output/paa/r50_1x")
