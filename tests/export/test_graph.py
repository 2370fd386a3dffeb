"""A detector as one function of tensors: the boxes that NMS starts from, in eager mode."""

import numpy as np
import pytest
import torch
from detectron2.structures import ImageList

from helpers import make_fcos, make_paa, make_retinanet
from lad.export.compare import compare, unmatched
from lad.export.graph import DetectionGraph, suppress, trace
from lad.export.numpy_postprocess import detect
from lad.modeling.heads import ConditionalObjectness, ImplicitObjectness
from lad.modeling.postprocess import NMSSettings

NETWORKS = {
    "paa": make_paa,
    "cop": lambda: make_paa(objectness=ConditionalObjectness(channels=32)),
    "iop": lambda: make_paa(objectness=ImplicitObjectness(channels=32), quality=False),
    "retinanet": make_retinanet,
    "fcos": make_fcos,
}
SIZE = 60, 83  # of an image in an input of 64 x 96
SCORES = ("class_logits.weight", "cls_score.weight", "quality.weight", "ctrness.weight")


def make_network(name):
    """A network whose random scores differ enough to be ranked."""
    network = NETWORKS[name]().eval()
    torch.manual_seed(1)
    for key, value in network.head.named_parameters():
        if key.endswith(SCORES):
            torch.nn.init.normal_(value, std=0.3)
    return network


def make_image(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)


def run(graph, image, size=SIZE):
    with torch.no_grad():
        return graph(image, torch.tensor(size))


@pytest.mark.parametrize("name", NETWORKS)
def test_nms_of_the_boxes_gives_the_networks_detections(name):
    network, image = make_network(name), make_image()
    with torch.no_grad():
        inputs = {"image": image[:, : SIZE[0], : SIZE[1]], "height": SIZE[0], "width": SIZE[1]}
        expected = network([inputs])[0]["instances"]
    settings = network.nms_settings
    boxes, scores, classes = detect(
        *(x.numpy() for x in run(DetectionGraph(network), image)),
        score_threshold=settings.score_thresh,
        nms_iou=settings.nms_thresh,
        max_detections=settings.max_detections,
        score_voting=settings.score_voting,
    )
    boxes = boxes.clip(0, np.array([83, 60] * 2))
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert len(expected) > 0
    np.testing.assert_allclose(boxes[has_area], expected.pred_boxes.tensor, atol=1e-4)
    np.testing.assert_allclose(scores[has_area], expected.scores, atol=1e-6)
    assert (classes[has_area] == expected.pred_classes.numpy()).all()


def test_what_lies_outside_the_image_does_not_matter():
    graph, image = DetectionGraph(make_network("paa")), make_image()
    other = make_image(1)
    other[:, : SIZE[0], : SIZE[1]] = image[:, : SIZE[0], : SIZE[1]]
    for ours, theirs in zip(run(graph, image), run(graph, other), strict=True):
        assert torch.equal(ours, theirs)
    boxes = run(graph, image)[0]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= SIZE[1] and boxes[:, 3].max() <= SIZE[0]


def test_the_number_of_boxes_is_fixed():
    network = make_network("paa")
    network.postprocessor.topk_candidates = 20
    # Levels of 96, 24 and 6 anchors, each with 3 classes.
    assert run(DetectionGraph(network), make_image())[0].shape == (3 * (20 + 20 + 6), 4)
    network = make_network("retinanet")
    network.test_topk_candidates = 200
    # Levels of 9 anchors per cell and 3 classes: 2592, 648 and 162 pairs.
    assert run(DetectionGraph(network), make_image())[0].shape == (200 + 200 + 162, 4)


def test_suppressed_and_missing_boxes_are_rows_of_zeros():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [-9, -9, 0, 0]])
    scores = torch.tensor([0.6, 0.9, 0.7, 0.04])
    classes = torch.tensor([1, 1, 2, 0])
    found = suppress(boxes, scores, classes, NMSSettings(0.05, 0.6, 4, True))
    assert found[0].tolist() == [[0, 0, 10, 9], [0, 0, 10, 9], [0] * 4, [0] * 4]
    assert found[1].tolist() == pytest.approx([0.9, 0.7, 0, 0])
    assert found[2].tolist() == [1, 2, -1, -1]
    nothing = suppress(boxes, scores * 0, classes, NMSSettings(0.05, 0.6, 2, True))
    assert (nothing[1].tolist(), nothing[2].tolist()) == ([0, 0], [-1, -1])


@pytest.mark.parametrize("name", ["paa", "retinanet", "fcos"])
def test_a_trace_takes_any_size_and_leaves_the_network_as_it_was(name):
    network = make_network(name)
    graph = DetectionGraph(network)
    before = run(graph, make_image())
    program = trace(graph, None, 32).module()
    for height, width in ((64, 96), (160, 64)):
        image = torch.nn.functional.interpolate(make_image()[None], (height, width))[0]
        for ours, theirs in zip(
            run(program, image, (height, 50)), run(graph, image, (height, 50)), strict=True
        ):
            assert torch.equal(ours, theirs)
    for ours, theirs in zip(run(graph, make_image()), before, strict=True):
        assert torch.equal(ours, theirs)


def test_a_network_that_cannot_be_traced_is_one_line():
    network = make_network("paa")
    network.backbone.forward = lambda x: {"p3": x[x > 0.5]}
    with pytest.raises(
        ValueError, match="torch.export cannot trace the network; choose a fixed"
    ) as e:
        trace(DetectionGraph(network), None, 32)
    assert "\n" not in str(e.value)


class InPyTorch:
    """A "file" that runs the graph in PyTorch and may change what comes out."""

    def __init__(self, graph, change=lambda name, value: value):
        self.graph, self.change = graph, change
        self.pad = lambda pixels: pixels

    def run(self, image, size):
        outputs = run(self.graph, torch.from_numpy(image), size)
        names = ("boxes", "scores", "classes")
        return tuple(self.change(n, x.numpy()) for n, x in zip(names, outputs, strict=True))

    def detect(self, pixels):
        settings = self.graph.network.nms_settings
        return detect(
            *self.run(pixels, pixels.shape[1:]),
            score_threshold=settings.score_thresh,
            nms_iou=settings.nms_thresh,
            max_detections=settings.max_detections,
            score_voting=settings.score_voting,
        )


@pytest.mark.parametrize("name", ["paa", "fcos"])
def test_comparison_takes_rows_in_any_order_of_nearly_equal_scores(name):
    graph, pixels = DetectionGraph(make_network(name)), make_image().numpy()

    def turn(name, value):
        return value[::-1].copy()

    found = compare(InPyTorch(graph, turn), graph, [pixels])
    assert found.sizes == ((64, 96),) and found.detections > 0
    assert compare(InPyTorch(graph), graph, []) == ((), 0, 0)


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        ("boxes", lambda x: x + np.float32(0.02)),
        ("scores", lambda x: x + np.float32(2e-4)),
        ("classes", lambda x: (x + 1) % 3),
        ("boxes", lambda x: x * np.float32("nan")),
    ],
)
def test_comparison_names_the_tensor_that_differs(wrong, change):
    graph = DetectionGraph(make_network("paa"))
    file = InPyTorch(graph, lambda name, x: change(x) if name == wrong else x)
    with pytest.raises(ValueError, match=f"^{wrong} differ at an input of 64 x 96: .* rows; row "):
        compare(file, graph, [make_image().numpy()])


def test_comparison_sees_wrong_shapes_and_wrong_detections():
    graph, pixels = DetectionGraph(make_network("paa")), make_image().numpy()
    file = InPyTorch(graph, lambda _, x: x[:-1])
    with pytest.raises(ValueError, match=r"^boxes: shape \(377, 4\), PyTorch has \(378, 4\) at"):
        compare(file, graph, [pixels])
    file = InPyTorch(graph)
    file.detect = lambda _: tuple(x[1:] for x in InPyTorch.detect(file, pixels))
    with pytest.raises(ValueError, match="^detections differ at .*, 1 of PyTorch's .* are missing"):
        compare(file, graph, [pixels])


def test_selection_may_differ_only_where_scores_are_equal_at_the_cut():
    network = make_network("paa")
    network.postprocessor.topk_candidates = 20
    graph = DetectionGraph(network)

    def lose(row):
        """The file has another anchor there, with other boxes."""

        def change(name, value):
            value = value.copy()
            if name == "boxes":
                value[3 * row : 3 * row + 3] += 5
            return value

        return InPyTorch(graph, change)

    pixels = make_image().numpy()
    with pytest.raises(ValueError, match="boxes differ"):
        compare(lose(18), graph, [pixels])
    file = lose(19)  # the last of the first level
    file.detect = InPyTorch(graph).detect
    assert compare(file, graph, [pixels]).boxes == 138


def test_rows_are_compared_as_sets():
    ours = np.array([[0.0, 0, 9, 9], [1, 1, 5, 5]]), np.array([0.5, 0.2]), np.array([0, 1])
    near = ours[0][::-1] + 0.009, ours[1][::-1] - 9e-5, ours[2][::-1]
    assert len(unmatched(ours, near)) == 0
    assert unmatched(ours, (near[0], near[1], np.array([1, 2]))).tolist() == [0]
    assert unmatched(ours, tuple(x[:0] for x in ours)).tolist() == [0, 1]
    assert len(unmatched(tuple(x[:0] for x in ours), ours)) == 0


def test_the_padding_is_that_of_detectron2():
    network, image = make_network("paa"), make_image()
    inner = image[:, : SIZE[0], : SIZE[1]]
    images = network.preprocess_image([{"image": inner}])
    assert isinstance(images, ImageList) and images.tensor.shape[-2:] == (64, 96)
    with torch.no_grad():
        expected = network.extract(images)
        features = DetectionGraph(network).features(image, torch.tensor(SIZE))
    for ours, theirs in zip(features, expected, strict=True):
        assert torch.equal(ours, theirs)
