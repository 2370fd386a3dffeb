"""LGD of Detectron2's Mask R-CNN with instance masks, Swin-T: 270,000 iterations.

The released config trains LGD's modules with SGD; here AdamW trains all, theirs with its decay.
"""

from lad.engine.optimizer import distillation_params

from ..common.models.backbones import swin
from ..common.models.distillation import lgd
from ..common.models.rcnn import mask_rcnn
from ..common.weights import SWIN
from .retinanet_swin_t_3x_ms import dataloader, lr_multiplier, optimizer, train

model = lgd(
    mask_rcnn(swin("T")), context=False, detach_appearance=True, masks=True, start=30_000 / 270_000
)
model.student_checkpoint = SWIN["T"]
dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
dataloader.evaluator.tasks = ["bbox", "segm"]
optimizer.params._target_ = distillation_params
optimizer.params.distill_losses = dict(weight_decay=1e-4)
train.output_dir = "output/lgd/mask_rcnn_swin_t_3x_ms"
