"""Where initial weights are looked for. None is shipped: put them there, or override the key."""

# ImageNet weights under torchvision's own file names (IMAGENET1K_V1, as the papers').
RESNET = {
    18: "weights/resnet18-f37072fd.pth",
    50: "weights/resnet50-0676ba61.pth",
    101: "weights/resnet101-63fe2227.pth",
}
