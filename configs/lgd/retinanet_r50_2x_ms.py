"""LGD of Detectron2's RetinaNet, ResNet-50: 180,000 iterations, multi-scale.

The recipe of all rows here. ``model.distill_losses=[]`` trains the baseline.
"""

from ..common.data.coco import dataloader
from ..common.models.backbones import resnet
from ..common.models.detectron2 import retinanet_p3_p7
from ..common.models.distillation import FREEZE_HOOK, lgd
from ..common.optim import SGD as optimizer
from ..common.schedule import step_schedule
from ..common.train import train
from ..common.weights import RESNET

model = lgd(retinanet_p3_p7(resnet(50)))
model.student_checkpoint = RESNET[50]
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=list(range(640, 801, 32)), sample_style="choice"
)
lr_multiplier = step_schedule(max_iter=180_000, drops=(120_000, 160_000), warmup_iters=1000)
train.update(
    max_iter=180_000,
    clip_grad=dict(enabled=True, type="value", max=1.0),
    hooks=[FREEZE_HOOK],
    output_dir="output/lgd/retinanet_r50_2x_ms",
)
