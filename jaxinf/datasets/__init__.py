"""Data sets on disk and embedded, and corruptions whose truth is recorded.

Everything here is numpy on the host (but for `feature_collision`, which descends along a
network's gradients). A set of examples is a dict `{"x": array[N, ...], "y": int32[N]}`; images are
NHWC and keep the dtype they were stored with. Whatever is random takes `seed: int` and draws from
`numpy.random.default_rng(seed)`, so the same seed gives the same rows on every machine.
"""

from jaxinf.datasets.arrays import normalise
from jaxinf.datasets.backdoors import Backdoor, blend_trigger, patch_trigger
from jaxinf.datasets.cifar import cifar_classes, load_cifar10, load_cifar100, read_cifar_batch
from jaxinf.datasets.digits import load_digits, split_digits
from jaxinf.datasets.duplicates import (
    Duplicates,
    PlantedKinds,
    duplicate_within,
    plant_duplicates,
    plant_kinds,
)
from jaxinf.datasets.feature_collision import FeatureCollision, feature_collision
from jaxinf.datasets.feature_noise import FeatureNoise, feature_noise
from jaxinf.datasets.folder import Dataset, read_image_folder
from jaxinf.datasets.idx import load_mnist, read_idx
from jaxinf.datasets.imbalance import Imbalance, class_imbalance
from jaxinf.datasets.irrelevant import Irrelevant, irrelevant_examples
from jaxinf.datasets.label_noise import (
    LabelNoise,
    asymmetric_label_noise,
    class_dependent_label_noise,
    instance_dependent_label_noise,
    symmetric_label_noise,
)
from jaxinf.datasets.npz import read_jpeg_pack, read_npz
from jaxinf.datasets.suppliers import Suppliers, split_into_sources
from jaxinf.datasets.trojans import trojan_square, trojan_watermark

__all__ = [
    "Backdoor",
    "Dataset",
    "Duplicates",
    "FeatureCollision",
    "FeatureNoise",
    "Imbalance",
    "Irrelevant",
    "LabelNoise",
    "PlantedKinds",
    "Suppliers",
    "asymmetric_label_noise",
    "blend_trigger",
    "cifar_classes",
    "class_dependent_label_noise",
    "class_imbalance",
    "duplicate_within",
    "feature_collision",
    "feature_noise",
    "instance_dependent_label_noise",
    "irrelevant_examples",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_mnist",
    "normalise",
    "patch_trigger",
    "plant_duplicates",
    "plant_kinds",
    "read_cifar_batch",
    "read_idx",
    "read_image_folder",
    "read_jpeg_pack",
    "read_npz",
    "split_digits",
    "split_into_sources",
    "symmetric_label_noise",
    "trojan_square",
    "trojan_watermark",
]
