"""SoLAD on half of the digit scenes' labels; the other half of the images without theirs."""

from .solad import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.part = [0, 2]
dataloader.train.unlabeled.update(names="digits_train", part=[1, 2])
train.output_dir = "output/digits/solad_unlabeled"
