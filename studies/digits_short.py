"""Every method of assignment on digit scenes, early in training."""

from studies.common import SHORT, TEACHER, WIDE, digits, width
from studies.runner.definition import Method, Study


def student(name: str, *overrides: str, config: str = "", baseline: str = "") -> Method:
    """A student of the digit scenes' teacher."""
    return digits(name, *overrides, config=config, teacher="teacher", baseline=baseline)


study = Study(
    name="digits_short",
    question="faster",
    overrides=SHORT,
    evaluations=1,
    methods=(
        TEACHER,
        digits("paa"),
        # CoLAD's second network alone, and CoLAD's box loss without the other network.
        digits("paa_wide", width(WIDE), config="paa"),
        digits("paa_unweighted", "model.losses.weight_boxes_by_iou=false", config="paa"),
        student("soft_label", config="soft_label_kl", baseline="paa"),
        student("lad", baseline="paa"),
        student("solad", baseline="paa"),
        # Half of the labels; without and with the other half of the images.
        student("solad_half", "dataloader.train.unlabeled.ratio=0", config="solad_unlabeled"),
        student("solad_unlabeled", baseline="solad_half"),
        student("lad_switch", baseline="lad"),
        digits("colad_stdmean", baseline="paa"),
        digits(
            "colad_stdmean_level",
            "model.switch.scope=level",
            config="colad_stdmean",
            baseline="paa",
        ),
        digits("colad_fisher", baseline="paa"),
        digits("atss"),
        digits("simota"),
        student("simota_lad", baseline="simota"),
        digits("simota_colad", baseline="simota"),
        digits("tal"),
        student("tal_lad", baseline="tal"),
        digits("tal_colad", baseline="tal"),
    ),
)
