"""Methods on one or two detectors: ``model = lad(paa_resnet(50), paa_resnet(101))``."""

from detectron2.config import LazyCall as L

from lad.assignment.indicators import Fisher, StdMean
from lad.assignment.switch import RoleSwitch
from lad.engine.role_switch import RoleSwitchHook
from lad.engine.schedule import FreezeBackbone
from lad.engine.setup import class_key
from lad.modeling.distill_losses.bckd import BCKD
from lad.modeling.distill_losses.crosskd import CrossKD
from lad.modeling.distill_losses.ld import LD
from lad.modeling.distill_losses.lgd import LGD, LabelGuidedTeacher
from lad.modeling.distill_losses.pgd import PGD
from lad.modeling.distill_losses.pkd import PKD
from lad.modeling.distill_losses.soft_label import SoftLabelLoss
from lad.modeling.distillation import LAD, CoLAD, Distillation, SoftLabel

ROLE_SWITCH_HOOK = L(RoleSwitchHook)(output_dir="${train.output_dir}")
FREEZE_HOOK = L(FreezeBackbone)(until=1 / 9)  # LGD's, of its 2x schedule


def soft_label_loss(kind="kl", gamma=0.5, class_weight=10.0, min_iou=0.1):
    """The soft-label loss; its defaults are those of pure soft-label distillation."""
    return L(SoftLabelLoss)(kind=kind, gamma=gamma, class_weight=class_weight, min_iou=min_iou)


def lgd_loss(student, channels=256, start=1 / 6, until=1.0, **teacher):
    """LGD of this student, whose features have so many channels.

    The student is distilled after a sixth of the training, as in the paper's 2x. Further arguments
    are those of the label-guided teacher.
    """
    number = "${....student." + class_key(student) + "}"
    return L(LGD)(
        teacher=L(LabelGuidedTeacher)(channels=channels, num_classes=number, **teacher),
        start=start,
        until=until,
    )


# Losses between two networks, as their papers set them: edit a copy. LD needs box distributions.
LOSSES = {
    "pkd": L(PKD)(),
    "bckd": L(BCKD)(),
    "crosskd": L(CrossKD)(),
    "pgd": L(PGD)(),
    "ld": L(LD)(),
}


def distillation(student, distill_losses, teacher=None):
    """A student on its own labels with distillation losses."""
    return L(Distillation)(
        student=student,
        teacher=teacher,
        student_checkpoint="",
        teacher_checkpoint="",
        distill_losses=list(distill_losses),
    )


def lgd(student, **options):
    """LGD alone; options as for `lgd_loss`."""
    return distillation(student, [lgd_loss(student, **options)])


def soft_label(student, teacher, loss=None):
    """Pure soft-label distillation."""
    return L(SoftLabel)(
        student=student,
        teacher=teacher,
        student_checkpoint="",
        teacher_checkpoint="",
        distill_losses=[loss or soft_label_loss()],
    )


def lad(student, teacher, distill_losses=(), switch=None):
    """Label assignment distillation."""
    return L(LAD)(
        student=student,
        teacher=teacher,
        student_checkpoint="",
        teacher_checkpoint="",
        switch=switch,
        distill_losses=list(distill_losses),
    )


def solad(student, teacher):
    """LAD plus soft labels."""
    return lad(student, teacher, [soft_label_loss(class_weight=2.0, min_iou=0.5)])


def colad(student, teacher, switch):
    """Collaborative LAD: both networks are trained."""
    return L(CoLAD)(
        student=student,
        teacher=teacher,
        student_checkpoint="",
        teacher_checkpoint="",
        switch=switch,
    )


def stdmean_switch(scope="iteration"):
    """A switch by std/mean of the costs."""
    return L(RoleSwitch)(indicator=L(StdMean)(), scope=scope)


def fisher_switch(scope="iteration"):
    """A switch by the Fisher score of the costs' two-Gaussian fits."""
    return L(RoleSwitch)(indicator=L(Fisher)(), scope=scope)
