"""CoLAD (std/mean): ResNet-18 and ResNet-50 from ImageNet weights, 12 epochs.

Table 6 does not say whether R50 was pre-trained on COCO. For a pre-trained one set
model.teacher_checkpoint=output/paa/r50_1x/model_final.pth.
"""

from ..common.models.distillation import ROLE_SWITCH_HOOK, colad, stdmean_switch
from ..common.models.paa import paa_resnet
from ..common.weights import RESNET
from ..paa.r18_1x import dataloader, lr_multiplier, optimizer, train

model = colad(paa_resnet(18), paa_resnet(50), stdmean_switch())
model.student_checkpoint = RESNET[18]
model.teacher_checkpoint = RESNET[50]
train.update(init_checkpoint="", hooks=[ROLE_SWITCH_HOOK])
train.output_dir = "output/colad/r18_r50_1x_stdmean"
