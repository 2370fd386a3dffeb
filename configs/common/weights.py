"""Paths of initial weights. None are shipped: put them there, or override the key."""

# ImageNet weights under torchvision's own file names (IMAGENET1K_V1, as the papers').
RESNET = {
    18: "weights/resnet18-f37072fd.pth",
    50: "weights/resnet50-0676ba61.pth",
    101: "weights/resnet101-63fe2227.pth",
}
RESNEXT101_32X8D = "weights/resnext101_32x8d-8ba56ff5.pth"
RESNEXT101_64X4D = "weights/resnext101_64x4d-173b62eb.pth"

# ImageNet-1K weights under their authors' file names; timm's files of these models do as well.
SWIN = {
    "T": "weights/swin_tiny_patch4_window7_224.pth",
    "S": "weights/swin_small_patch4_window7_224.pth",
    "B": "weights/swin_base_patch4_window7_224.pth",
}
