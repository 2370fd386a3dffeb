"""Paths of initial weights. None are shipped: put them there, or override the key.

For example: curl -L --create-dirs -o weights/resnet50-0676ba61.pth ADDRESS
"""

# ImageNet weights under torchvision's own file names (IMAGENET1K_V1, as the papers'):
# https://download.pytorch.org/models/resnet18-f37072fd.pth
# https://download.pytorch.org/models/resnet50-0676ba61.pth
# https://download.pytorch.org/models/resnet101-63fe2227.pth
RESNET = {
    18: "weights/resnet18-f37072fd.pth",
    50: "weights/resnet50-0676ba61.pth",
    101: "weights/resnet101-63fe2227.pth",
}
# https://download.pytorch.org/models/resnext101_32x8d-8ba56ff5.pth
RESNEXT101_32X8D = "weights/resnext101_32x8d-8ba56ff5.pth"
# https://download.pytorch.org/models/resnext101_64x4d-173b62eb.pth
RESNEXT101_64X4D = "weights/resnext101_64x4d-173b62eb.pth"

# ImageNet-1K weights under their authors' file names; timm's files of these models do as well:
# https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth
# https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_small_patch4_window7_224.pth
# https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window7_224.pth
SWIN = {
    "T": "weights/swin_tiny_patch4_window7_224.pth",
    "S": "weights/swin_small_patch4_window7_224.pth",
    "B": "weights/swin_base_patch4_window7_224.pth",
}

# Detectors on COCO that can be teachers: name the file in model.teacher_checkpoint.
# MMDetection's PAA of 1x R50 and R101, 3x multi-scale R50 and R101, and LAD of 1x R50 and R101:
# https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r50_fpn_1x_coco/paa_r50_fpn_1x_coco_20200821-936edec3.pth
# https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r101_fpn_1x_coco/paa_r101_fpn_1x_coco_20200821-0a1825a4.pth
# https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r50_fpn_mstrain_3x_coco/paa_r50_fpn_mstrain_3x_coco_20210121_145722-06a6880b.pth
# https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r101_fpn_mstrain_3x_coco/paa_r101_fpn_mstrain_3x_coco_20210122_084202-83250d22.pth
# https://download.openmmlab.com/mmdetection/v2.0/lad/lad_r50_paa_r101_fpn_coco_1x/lad_r50_paa_r101_fpn_coco_1x_20220708_124246-74c76ff0.pth
# https://download.openmmlab.com/mmdetection/v2.0/lad/lad_r101_paa_r50_fpn_coco_1x/lad_r101_paa_r50_fpn_coco_1x_20220708_124357-9407ac54.pth
# Detectron2's RetinaNet of 3x R101 (nine anchors per cell, as its student needs then):
# https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/retinanet_R_101_FPN_3x/190397697/model_final_971ab9.pkl
# LAD's, SoLAD's and CoLAD's from their authors are linked in the tables of
# https://github.com/cybercore-co-ltd/CoLAD
