"""Assigners for any detector or pair of detectors: ``model = use_tal(paa_small())``."""

from detectron2.config import LazyCall as L

from lad.assignment.atss import ATSSAssigner
from lad.assignment.costs import PAACost, QualityFocalCost
from lad.assignment.paa import PAAAssigner
from lad.assignment.simota import SimOTAAssigner
from lad.assignment.tal import TALAssigner
from lad.engine.setup import class_key


def use(model, assigner, **options):
    """Gives a detector, or both networks of a method, an assigner of the given class."""
    networks = [model.student, model.teacher] if "student" in model else [model]
    for network in networks:
        number = "${.." + class_key(network) + "}"
        network.assigner = L(assigner)(num_classes=number, **options)
    return model


def use_paa(model, cost=PAACost):
    """Uses PAA, our detectors' default, e.g. in place of RetinaNet's or FCOS's static rule."""
    return use(model, PAAAssigner, cost=L(cost)())


def use_gfl_paa(model):
    """Uses PAA with a cost for GFL's scores, which hold the quality."""
    return use_paa(model, QualityFocalCost)


def use_atss(model):
    """Uses ATSS: static, not for label assignment distillation."""
    return use(model, ATSSAssigner)


def use_simota(model):
    """Uses YOLOX's SimOTA."""
    return use(model, SimOTAAssigner)


def use_tal(model):
    """Uses TOOD's task-aligned assignment."""
    return use(model, TALAssigner)
