"""SoLAD: ResNet-101 with conditional objectness from PAA-Swin-B, 24 epochs, multi-scale.

The paper does not say whether it was trained multi-scale. For single scale use the loader of
configs/paa/r101_2x.py. The teacher is that of r50_from_swin_b_1x.py.
"""

from ..common.models.backbones import paa_swin
from ..common.models.distillation import solad
from ..common.models.paa import cop, paa_resnet
from ..common.weights import RESNET
from ..paa.r101_2x_ms import dataloader, lr_multiplier, optimizer, train

model = solad(cop(paa_resnet(101)), paa_swin("B"))
model.student_checkpoint = RESNET[101]
model.teacher_checkpoint = "output/lad/switch_swin_b_from_cop_x101_dcn_3x_ms/student.pth"
train.update(init_checkpoint="", output_dir="output/solad/cop_r101_from_swin_b_2x_ms")
