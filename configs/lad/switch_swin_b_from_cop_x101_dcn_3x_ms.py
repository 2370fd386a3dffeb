"""LAD with dynamic switch: Swin-B from CoLAD's COP-X101-DCN, with Swin's recipe of 36 epochs.

The teacher is the student of that CoLAD training, exported by

    cd output/colad/cop_x101_dcn_from_r50_2x_ms_stdmean
    python ../../../tools/export_network.py model_final.pth student.pth

The indicator is std/mean; table 8 does not name it.
"""

from ..common.data.coco_detr import dataloader
from ..common.models.backbones import paa_resnext101, paa_swin
from ..common.models.distillation import ROLE_SWITCH_HOOK, lad, stdmean_switch
from ..common.models.paa import cop
from ..common.optim import AdamW as optimizer
from ..common.schedule import EPOCH, MAX_ITER_3X, step_schedule
from ..common.train import train
from ..common.weights import SWIN

model = lad(paa_swin("B"), cop(paa_resnext101(dcn=True)), switch=stdmean_switch())
model.student_checkpoint = SWIN["B"]
model.teacher_checkpoint = "output/colad/cop_x101_dcn_from_r50_2x_ms_stdmean/student.pth"
lr_multiplier = step_schedule(max_iter=MAX_ITER_3X, drops=(27 * EPOCH, 33 * EPOCH))
train.update(
    max_iter=MAX_ITER_3X,
    hooks=[ROLE_SWITCH_HOOK],
    output_dir="output/lad/switch_swin_b_from_cop_x101_dcn_3x_ms",
)
