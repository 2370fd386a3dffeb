"""Every method of assignment on digit scenes, early in training."""

from studies.runner.definition import Method, Study


def student(name: str, *overrides: str, config: str = "", baseline: str = "") -> Method:
    """A student of the digit scenes' teacher."""
    file = f"digits/{config or name}.py"
    return Method(name, file, overrides, teacher="teacher", baseline=baseline)


def alone(name: str, *overrides: str, config: str = "", baseline: str = "") -> Method:
    """A method without a trained teacher."""
    return Method(name, f"digits/{config or name}.py", overrides, baseline=baseline)


study = Study(
    name="digits_short",
    question="faster",
    overrides=("train.max_iter=400",),
    evaluations=1,
    methods=(
        Method("teacher", "digits/teacher.py", ("train.max_iter=700",), seeds=(0,)),
        alone("paa"),
        # CoLAD's second network alone, and CoLAD's box loss without the other network.
        alone("paa_wide", "model.backbone.bottom_up.width=48", config="paa"),
        alone("paa_unweighted", "model.losses.weight_boxes_by_iou=false", config="paa"),
        student("soft_label", config="soft_label_kl", baseline="paa"),
        student("lad", baseline="paa"),
        student("solad", baseline="paa"),
        # Half of the labels; without and with the other half of the images.
        student("solad_half", "dataloader.train.unlabeled.ratio=0", config="solad_unlabeled"),
        student("solad_unlabeled", baseline="solad_half"),
        student("lad_switch", baseline="lad"),
        alone("colad_stdmean", baseline="paa"),
        alone(
            "colad_stdmean_level",
            "model.switch.scope=level",
            config="colad_stdmean",
            baseline="paa",
        ),
        alone("colad_fisher", baseline="paa"),
        alone("atss"),
        alone("simota"),
        student("simota_lad", baseline="simota"),
        alone("simota_colad", baseline="simota"),
        alone("tal"),
        student("tal_lad", baseline="tal"),
        alone("tal_colad", baseline="tal"),
    ),
)
