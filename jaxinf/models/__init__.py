"""Reference models in flax.linen, their losses, training and weights.

Every model is called as `module.apply(variables, x, train=False)` and returns logits;
`method="features"` returns the penultimate features instead. Images are NHWC.
"""

from jaxinf.models.augment import crop_and_flip, random_crop, random_flip
from jaxinf.models.checkpoints import load_checkpoints
from jaxinf.models.cnn import BatchNormCNN, SmallCNN
from jaxinf.models.losses import cross_entropy, margin, next_token_cross_entropy, squared_error
from jaxinf.models.mlp import MLP
from jaxinf.models.predict import predict
from jaxinf.models.resnet import CifarResNet, PreActResNet18, ResNet18
from jaxinf.models.resnet9 import ResNet9
from jaxinf.models.storage import load_variables, save_variables
from jaxinf.models.train import TrainResult, fit
from jaxinf.models.transformer import Transformer
from jaxinf.models.weights import load_cifar_resnet, variables_from_torch

__all__ = [
    "MLP",
    "BatchNormCNN",
    "CifarResNet",
    "PreActResNet18",
    "ResNet9",
    "ResNet18",
    "SmallCNN",
    "TrainResult",
    "Transformer",
    "crop_and_flip",
    "cross_entropy",
    "fit",
    "load_checkpoints",
    "load_cifar_resnet",
    "load_variables",
    "margin",
    "next_token_cross_entropy",
    "predict",
    "random_crop",
    "random_flip",
    "save_variables",
    "squared_error",
    "variables_from_torch",
]
