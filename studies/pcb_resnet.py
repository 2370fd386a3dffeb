"""ResNets of the papers' size on pictures: ResNet-18 from ResNet-50, 512 px, random weights.

For a GPU: a step on a CPU takes many seconds. The configs are those for own data, with other
backbones, the papers' width and depth of FPN and towers, and fixed batch, size and length.
"""

from typing import Any

from studies.runner.definition import Method, Study

ITERATIONS = 600
TWICE = f"train.max_iter={2 * ITERATIONS}"
DATA = (
    "train.fit_data=false",
    "dataloader.train.total_batch_size=8",
    "dataloader.train.mapper.augmentations.0.short_edge_length=512",
    "dataloader.test.mapper.augmentations.0.short_edge_length=512",
)


def resnet(depth: int, network: str = "model") -> tuple[str, ...]:
    """Overrides that make a small detector one of the papers' size."""
    return (
        f"{network}.backbone.bottom_up.name=resnet{depth}",
        f"{network}.backbone.out_channels=256",
        f"{network}.head.in_channels=256",
        f"{network}.head.channels=256",
        f"{network}.head.num_convs=4",
    )


def alone(name: str, depth: int, *overrides: str, **options: Any) -> Method:
    """A network on its own labels."""
    return Method(name, "quick/paa.py", (*resnet(depth), *overrides), **options)


def taught(name: str, *overrides: str, config: str = "", baseline: str = "paa") -> Method:
    """ResNet-18 with the teacher."""
    networks = resnet(18, "model.student") + resnet(50, "model.teacher")
    config = f"quick/{config or name}.py"
    return Method(name, config, networks + overrides, teacher="teacher", baseline=baseline)


study = Study(
    name="pcb_resnet",
    question="faster",
    overrides=(f"train.max_iter={ITERATIONS}", *DATA),
    data="pcb",
    methods=(
        alone("teacher", 50, TWICE, seeds=(0,)),
        alone("paa", 18),
        taught("lad"),
        taught("solad"),
        taught("crosskd"),
        taught("lad_crosskd", baseline="crosskd"),
        alone("paa_twice", 18, TWICE, baseline="paa"),
        taught("lad_twice", TWICE, config="lad", baseline="paa_twice"),
        taught("solad_twice", TWICE, config="solad", baseline="paa_twice"),
        taught("crosskd_twice", TWICE, config="crosskd", baseline="paa_twice"),
    ),
)
