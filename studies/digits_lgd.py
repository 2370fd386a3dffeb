"""Label-guided self-distillation on digit scenes, with PAA, LAD, RetinaNet and FCOS."""

from studies.runner.definition import Method, Study

study = Study(
    name="digits_lgd",
    question="faster",
    overrides=("train.max_iter=400",),
    evaluations=1,
    methods=(
        Method("teacher", "digits/teacher.py", ("train.max_iter=700",), seeds=(0,)),
        Method("paa", "digits/paa.py"),
        Method("paa_lgd", "digits/paa_lgd.py", baseline="paa"),
        Method("lad", "digits/lad.py", teacher="teacher"),
        Method("lad_lgd", "digits/lad_lgd.py", teacher="teacher", baseline="lad"),
        Method("retinanet", "digits/retinanet.py"),
        Method("retinanet_lgd", "digits/retinanet_lgd.py", baseline="retinanet"),
        Method("fcos", "digits/fcos.py"),
        Method("fcos_lgd", "digits/fcos_lgd.py", baseline="fcos"),
    ),
)
