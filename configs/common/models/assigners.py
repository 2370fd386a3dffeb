"""Other assigners for any detector or pair of detectors: ``model = use_tal(paa_small())``."""

from detectron2.config import LazyCall as L

from lad.assignment.atss import ATSSAssigner
from lad.assignment.simota import SimOTAAssigner
from lad.assignment.tal import TALAssigner


def use(model, assigner):
    """Gives a detector, or both networks of a method, an assigner of the given class."""
    networks = [model.student, model.teacher] if "student" in model else [model]
    for network in networks:
        network.assigner = L(assigner)(num_classes="${..head.num_classes}")
    return model


def use_atss(model):
    """Adaptive training sample selection: static, not for label assignment distillation."""
    return use(model, ATSSAssigner)


def use_simota(model):
    """YOLOX's simplified optimal transport assignment."""
    return use(model, SimOTAAssigner)


def use_tal(model):
    """TOOD's task-aligned assignment."""
    return use(model, TALAssigner)
