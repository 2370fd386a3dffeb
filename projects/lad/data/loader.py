"""A training loader determined by (seed, position in training).

The batches of N processes are slices of one process' batches, the number of workers changes
nothing, and a run that starts at batch b continues as an uninterrupted run does.
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from lad.data.images import ImageMapper, UnreadableImage

logger = logging.getLogger(__name__)


TRIES = 100  # draws to replace an image that cannot be read


class SeededBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields this rank's slice of each global batch, without end, as (image, augmentation seed).

    An epoch is ``ceil(n / total_batch_size)`` batches. Its images are shuffled, then batched within
    their group. The groups' remainders form mixed batches, the last one filled up with images of
    the same epoch. The batches are then shuffled. So an epoch has every image once, and fewer than
    ``total_batch_size`` of them twice.

    Args:
        groups: (n,) integers; images of the same group share batches, e.g. by aspect ratio.
        total_batch_size: images per batch over all ranks.
        seed: determines the order and the augmentation seeds.
        rank: which slice of each batch to yield.
        world_size: number of slices.

    Raises:
        ValueError: if there is no image, or the batch cannot be divided among the ranks.
    """

    def __init__(
        self,
        *,
        groups: Sequence[int],
        total_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(groups) == 0:
            raise ValueError("the training dataset is empty: name one that has images")
        if total_batch_size < 1 or total_batch_size % world_size:
            raise ValueError(
                f"total_batch_size={total_batch_size} cannot be divided among {world_size} "
                f"processes: use a positive multiple of {world_size}"
            )
        self._groups = np.asarray(groups)
        self._total_batch_size = total_batch_size
        self._seed = seed
        self._per_rank = total_batch_size // world_size
        self._rank = rank
        self._start = 0

    def set_start(self, batch_index: int) -> None:
        """Makes the next iterator start at this global batch; 0 is the start of training."""
        if batch_index < 0:
            raise ValueError(f"batch_index={batch_index}: it has to be 0 or more")
        self._start = batch_index

    def epoch_batches(self, epoch: int) -> np.ndarray:
        """Returns the image indices of an epoch as (batches, total_batch_size) int64."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._groups))
        size = self._total_batch_size
        full, leftovers = [], []
        for group in np.unique(self._groups):
            members = order[self._groups[order] == group]
            num_full = len(members) // size * size
            full.append(members[:num_full])
            leftovers.append(members[num_full:])
        rest = np.concatenate(leftovers)
        filler = np.resize(order, -len(rest) % size)
        batches = np.concatenate([*full, rest, filler]).reshape(-1, size)
        return batches[rng.permutation(len(batches))]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches_per_epoch = -(-len(self._groups) // self._total_batch_size)
        epoch, first = divmod(self._start, batches_per_epoch)
        while True:
            for batch, images in enumerate(self.epoch_batches(epoch)[first:], start=first):
                position = (epoch * batches_per_epoch + batch) * self._total_batch_size
                mine = range(self._rank * self._per_rank, (self._rank + 1) * self._per_rank)
                yield [(int(images[i]), self._augmentation_seed(position + i)) for i in mine]
            epoch, first = epoch + 1, 0

    def _augmentation_seed(self, position: int) -> int:
        return int(np.random.SeedSequence([self._seed, position]).generate_state(1)[0])


class Unlabeled(NamedTuple):
    """Images without labels.

    Attributes:
        records: dataset dicts without annotations, with ``unlabeled=True``.
        ratio: how many of them go with each labeled image of a batch.
    """

    records: list[dict]
    ratio: float


class MixedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of labeled images and, behind them, of unlabeled ones.

    Args:
        labeled: yields images of the dataset's first part.
        unlabeled: yields images of its second part, counted from 0.
        num_labeled: size of the first part.
    """

    def __init__(
        self, labeled: SeededBatchSampler, unlabeled: SeededBatchSampler, num_labeled: int
    ) -> None:
        self._samplers = labeled, unlabeled
        self._num_labeled = num_labeled

    def set_start(self, batch_index: int) -> None:
        """Makes the next iterator start at this global batch; 0 is the start of training."""
        for sampler in self._samplers:
            sampler.set_start(batch_index)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for labeled, unlabeled in zip(*self._samplers, strict=True):
            yield labeled + [(image + self._num_labeled, seed) for image, seed in unlabeled]


class SeededMapDataset(Dataset):
    """Maps dataset dicts with a random state seeded by the index (image, seed).

    An image that cannot be read is replaced by another one, drawn from the same seed, so that
    neither the number of workers nor a resumed run changes what is trained on. The model input then
    names it and the reason in "unreadable".

    Args:
        dataset: sequence of dataset dicts.
        mapper: called with one dataset dict; may use Python's, NumPy's and PyTorch's global CPU
            generators, whose states are restored afterwards.
    """

    def __init__(self, dataset: Sequence[dict], mapper: Callable[[dict], Any]) -> None:
        self._dataset = dataset
        self._mapper = mapper
        # Labeled images come first, and each is replaced by one of its kind.
        self._num_labeled = sum("unlabeled" not in record for record in dataset)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, item: tuple[int, int]) -> Any:
        index, seed = item
        unreadable: dict[str, str] = {}
        for chosen in self._choices(index, seed):
            record = self._dataset[chosen]
            if record.get("file_name") in unreadable:
                continue
            try:
                with seeded(seed):
                    mapped = self._mapper(record)
            except UnreadableImage as error:
                unreadable[record["file_name"]] = str(error)
                continue
            return {**mapped, "unreadable": unreadable} if unreadable else mapped
        raise UnreadableImage(next(iter(unreadable.values())))

    def _choices(self, index: int, seed: int) -> Iterator[int]:
        """Yields an image, and others to replace it."""
        yield index
        labeled = index < self._num_labeled
        first, end = (0, self._num_labeled) if labeled else (self._num_labeled, len(self))
        yield from np.random.default_rng([seed, index]).integers(first, end, size=TRIES).tolist()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and PyTorch's CPU generators, and restores them afterwards."""
    # torch.manual_seed would seed the GPUs as well.
    torch_generator = torch.default_generator
    states = random.getstate(), np.random.get_state(), torch_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    torch_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch_generator.set_state(states[2])


class TrainLoader(DataLoader):
    """An endless DataLoader over a sampler of batches, which counts unreadable images.

    Args:
        dataset: of the images.
        max_unreadable: the share of the images that may be unreadable; one may always be.
        options: of ``DataLoader``.

    Attributes:
        unreadable: a line for each image that could not be read, by its file.
    """

    batch_sampler: SeededBatchSampler | MixedBatchSampler

    def __init__(self, dataset: Dataset, *, max_unreadable: float, **options: Any):
        super().__init__(dataset, **options)
        self.max_unreadable = max_unreadable
        self.unreadable: dict[str, str] = {}

    def set_start(self, batch_index: int) -> None:
        """Makes the next iterator start at this global batch; call it before ``iter()``."""
        self.batch_sampler.set_start(batch_index)

    def __iter__(self) -> Iterator[list[dict]]:  # type: ignore[override]
        self.unreadable = {}
        for batch in super().__iter__():
            for element in batch:
                marks = element.pop("unreadable", {}) if isinstance(element, dict) else {}
                for file, line in marks.items():
                    if file not in self.unreadable:
                        logger.warning(f"Unreadable, another image is taken instead: {line}")
                        self.unreadable[file] = line
            yield batch

    def refusal(self) -> str:
        """Returns an error line if more images are unreadable than may be, else ""."""
        number, total = len(self.unreadable), len(self.dataset)  # type: ignore[arg-type]
        if number <= max(1, self.max_unreadable * total):
            return ""
        return (
            f"{number} of {total} training images cannot be read, more than "
            f"dataloader.train.max_unreadable={self.max_unreadable:g}; the first is "
            f"{next(iter(self.unreadable.values()))}"
        )


def build_train_loader(
    *,
    dataset: list[dict],
    mapper: Callable[[dict], Any],
    total_batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    aspect_ratio_grouping: bool = True,
    unlabeled: Unlabeled | None = None,
    max_unreadable: float = 0.01,
) -> TrainLoader:
    """Builds the training loader of this process; every rank has to call it.

    Args:
        dataset: dataset dicts in Detectron2's format.
        mapper: turns a dataset dict into a model input, e.g. Detectron2's ``DatasetMapper``.
        total_batch_size: labeled images per iteration over all processes.
        num_workers: loading processes of this rank; 0 loads in the training process.
        seed: of order and augmentation; None or below 0 draws one for all ranks.
        aspect_ratio_grouping: batch images wider than high apart from the others, to save padding;
            needs "width" and "height" in each dataset dict.
        unlabeled: images to add to each batch, behind the others; the model input of each keeps
            ``unlabeled=True``.
        max_unreadable: the share of the images that may be unreadable, see `TrainLoader`.

    Returns:
        An endless loader of ``list[dict]``, each of ``total_batch_size / world size`` elements plus
        the unlabeled ones.

    Raises:
        ValueError: if the dataset is empty, the batch cannot be divided among the ranks, an
            image has no size to group by, or ``max_unreadable`` is no share.
    """
    if not 0 <= max_unreadable <= 1:
        raise ValueError(
            f"dataloader.train.max_unreadable={max_unreadable}: it has to be at least 0 and at "
            "most 1"
        )
    if seed is None or seed < 0:
        seed = comm.shared_random_seed()
    batch_sampler: SeededBatchSampler | MixedBatchSampler
    batch_sampler = labeled = SeededBatchSampler(
        groups=_aspect_ratio_groups(dataset) if aspect_ratio_grouping else [0] * len(dataset),
        total_batch_size=total_batch_size,
        seed=seed,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    records = dataset
    if unlabeled is not None:
        others = _unlabeled_sampler(unlabeled, total_batch_size, seed)
        batch_sampler = MixedBatchSampler(labeled, others, len(dataset))
        records = [*dataset, *unlabeled.records]
    return TrainLoader(
        SeededMapDataset(DatasetFromList(records, copy=False), mapper),
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
        # Without its own generator a DataLoader draws from the global one.
        generator=torch.Generator(),
        max_unreadable=max_unreadable,
    )


def build_evaluation_loader(
    *, dataset: list[dict], mapper: Callable[[dict], Any], num_workers: int = 0
) -> DataLoader:
    """Builds Detectron2's test loader, after a look at the header of each image.

    Args:
        dataset: dataset dicts in Detectron2's format.
        mapper: as for `build_train_loader`; images are looked at if it is an `ImageMapper`.
        num_workers: loading processes of this rank.

    Raises:
        UnreadableImage: for the first image that cannot be used: without it figures are wrong.
    """
    if isinstance(mapper, ImageMapper):
        for record in dataset[comm.get_rank() :: comm.get_world_size()]:
            mapper.check(record)
    return build_detection_test_loader(dataset, mapper=mapper, num_workers=num_workers)


def _unlabeled_sampler(
    unlabeled: Unlabeled, total_batch_size: int, seed: int
) -> SeededBatchSampler:
    number = round(unlabeled.ratio * total_batch_size)
    if number < 1 or number % comm.get_world_size():
        raise ValueError(
            f"dataloader.train.unlabeled.ratio={unlabeled.ratio}: {number} images per batch of "
            f"{total_batch_size} cannot be divided among {comm.get_world_size()} processes"
        )
    return SeededBatchSampler(
        groups=[0] * len(unlabeled.records),
        total_batch_size=number,
        # Another order and other augmentations than the labeled images'.
        seed=int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]),
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )


def _aspect_ratio_groups(dataset: list[dict]) -> list[int]:
    for record in dataset:
        if "width" not in record or "height" not in record:
            raise ValueError(
                f"image {record.get('file_name')} has no 'width' and 'height' in its dataset dict: "
                "add them or set aspect_ratio_grouping=False"
            )
    return [int(record["width"] > record["height"]) for record in dataset]
