r"""Trains or evaluates a detector: the one entry for every config.

Examples:
    python train_net.py --config-file configs/digits/paa.py train.max_iter=100
    python train_net.py --config-file configs/paa/r50_1x.py --num-gpus 8 train.amp.enabled=True
    python train_net.py --config-file configs/quick/paa.py --data FOLDER
    torchrun --nproc_per_node 2 train_net.py --config-file configs/digits/paa.py
    python train_net.py --config-file configs/digits/paa.py --eval-only \
        train.init_checkpoint=output/digits/paa/model_final.pth
"""

from lad.engine.run import main

if __name__ == "__main__":
    main(examples=__doc__)
