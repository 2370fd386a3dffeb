"""SoLAD: ResNet-50 from PAA-Swin-B, 12 epochs.

The teacher is the student of table 8's LAD training, exported by

    cd output/lad/switch_swin_b_from_cop_x101_dcn_3x_ms
    python ../../../tools/export_network.py model_final.pth student.pth
"""

from ..common.models.backbones import paa_swin
from ..common.models.distillation import solad
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r50_1x import dataloader, lr_multiplier, optimizer, train

model = solad(paa_resnet(50), paa_swin("B"))
model.student_checkpoint = RESNET[50]
model.teacher_checkpoint = "output/lad/switch_swin_b_from_cop_x101_dcn_3x_ms/student.pth"
train.update(init_checkpoint="", output_dir="output/solad/r50_from_swin_b_1x")
