"""The field's distillation losses on digit scenes: alone, and on top of LAD."""

from studies.runner.definition import Method, Study

LOSSES = ("pkd", "bckd", "crosskd", "pgd")

study = Study(
    name="digits_losses",
    question="faster",
    overrides=("train.max_iter=400",),
    evaluations=2,
    methods=(
        Method("teacher", "digits/teacher.py", ("train.max_iter=700",), seeds=(0,)),
        Method("paa", "digits/paa.py"),
        Method("lad", "digits/lad.py", teacher="teacher", baseline="paa"),
        *(
            Method(f"{base}_{loss}", f"digits/{base}_{loss}.py", teacher="teacher", baseline=base)
            for base in ("paa", "lad")
            for loss in LOSSES
        ),
        Method("gfl_teacher", "digits/gfl_teacher.py", ("train.max_iter=700",), seeds=(0,)),
        Method("gfl", "digits/gfl.py"),
        Method("gfl_ld", "digits/gfl_ld.py", teacher="gfl_teacher", baseline="gfl"),
        Method("gfl_lad", "digits/gfl_lad.py", teacher="gfl_teacher", baseline="gfl"),
        Method("gfl_lad_ld", "digits/gfl_lad_ld.py", teacher="gfl_teacher", baseline="gfl_lad"),
    ),
)
