"""Contrastive training of a CLIP from scratch, on arrays of images and tokens."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, UInt8

from jaxinf.errors import InputError, check_examples, check_key
from jaxinf.models.clip.config import CLIPConfig
from jaxinf.models.clip.model import CLIP, TrainedCLIP
from jaxinf.models.clip.preprocess import Preprocess
from jaxinf.models.train import fit
from jaxinf.typing import AnyArray, Batch, Params, PyTree

# logits are not scaled by more than this
_LARGEST_SCALE = 100.0


class ContrastiveTraining(NamedTuple):
    """What training leaves.

    Attributes:
        model: the trained CLIP.
        losses: float32[num_epochs], mean loss during each epoch, in nats.
    """

    model: TrainedCLIP
    losses: np.ndarray


@dataclass(frozen=True)
class ContrastiveLoss:
    """Symmetric InfoNCE of a batch of pairs, one number per pair: every other pair is a negative.

    Half the cross-entropy of finding an image's own text among the batch's, and half that of
    finding a text's own image. The temperature is learnt, as exp(−`logit_scale`), and never below
    0.01. Compared by value, so that training the same module again compiles nothing.

    Attributes:
        module: the CLIP.
        preprocess: whose `normalise` images go through.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        ICML 2021, figure 3.
    """

    module: CLIP
    preprocess: Preprocess

    def __call__(
        self, params: Params, state: PyTree, batch: Batch, *, train: bool
    ) -> tuple[Float[jax.Array, " B"], PyTree]:
        """Losses float[B] of `{"images": [B, S, S, 3], "tokens": [B, T]}`, and the new state."""
        images = self.preprocess.normalise(batch["images"])
        variables = {"params": params, **state}
        changing = list(state) if train else False

        def towers(module: CLIP, images: jax.Array, tokens: jax.Array) -> tuple[jax.Array, ...]:
            image, text = module.encode_image(images, train=train), module.encode_text(tokens)
            return image, text, jnp.exp(module.logit_scale)

        found: Any = self.module.apply(
            variables, images, batch["tokens"], method=towers, mutable=changing
        )
        (image, text, scale), moved = found if train else (found, state)
        logits = jnp.minimum(scale, _LARGEST_SCALE) * image @ text.T
        own = jnp.arange(logits.shape[0])
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return (entropy(logits, own) + entropy(logits.T, own)) / 2, {**state, **moved}


def train_clip(
    config: CLIPConfig,
    images: UInt8[AnyArray, "N S S 3"],
    tokens: Int[AnyArray, "N T"],
    *,
    key: jax.Array,
    num_epochs: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 1,
    progress: bool = False,
) -> ContrastiveTraining:
    """Train a CLIP from random weights by the contrastive loss of its paper.

    No augmentation. The same arguments give the same weights.

    Args:
        config: the architecture.
        images: uint8[N, S, S, 3] at the size of the image tower; normalised by the statistics of
            `Preprocess`, on the device.
        tokens: int[N, T], T at most the context length.
        key: random key of the weights and the order of the pairs.
        num_epochs: passes over the pairs.
        batch_size: pairs that are told apart at once; the last N mod `batch_size` of an epoch's
            order are left out.
        learning_rate: peak of the default optimiser: Adam, the rate rising linearly over the
            first tenth of the steps and falling to 0 along a cosine.
        optimizer: another one, in place of it.
        checkpoints: folder; a killed run goes on from its last checkpoint. See `fit`.
        checkpoint_every: epochs between checkpoints.
        progress: show a bar on stderr.

    Returns:
        `ContrastiveTraining`.

    Raises:
        InputError: for images of another size or type, tokens that are no integers, out of the
            vocabulary or too many, unequal numbers of both, a batch of one, or as
            `jaxinf.models.fit`.

    Example:
        >>> from jaxinf.models.clip import TextConfig, TransformerConfig, VisionTransformerConfig
        >>> stack = TransformerConfig(width=8, layers=1, heads=2, mlp_width=8, activation="gelu")
        >>> config = CLIPConfig(embed_dim=8,
        ...     vision=VisionTransformerConfig(image_size=8, patch_size=8, transformer=stack),
        ...     text=TextConfig(context_length=3, vocab_size=9, transformer=stack))
        >>> shades = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.uint8(80)
        >>> tokens = np.array([[7, n, 8] for n in range(4)])
        >>> done = train_clip(config, np.tile(shades, (1, 8, 8, 3)), tokens, batch_size=4,
        ...     key=jax.random.key(0), num_epochs=20, learning_rate=0.01)
        >>> bool(done.losses[-1] < done.losses[0])
        True
    """
    check_key(key)
    _check(config, images, tokens, batch_size)
    data = {"images": np.asarray(images), "tokens": np.asarray(tokens, np.int32)}
    start_key, fit_key = jax.random.split(key)
    start = untrained_clip(config, key=start_key)
    module, size = start.module, config.vision.image_size
    state = {name: part for name, part in start.variables.items() if name != "params"}
    if optimizer is None:
        steps = max(2, num_epochs * (len(data["tokens"]) // batch_size))
        optimizer = _adam(learning_rate, steps)
    done = fit(
        ContrastiveLoss(module, Preprocess(size=size, resize_to=size)),
        start.variables["params"],
        state,
        data,
        optimizer=optimizer,
        num_epochs=num_epochs,
        batch_size=batch_size,
        key=fit_key,
        checkpoints=checkpoints,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    trained = TrainedCLIP({"params": done.params, **done.state}, module)
    return ContrastiveTraining(trained, done.losses)


def untrained_clip(config: CLIPConfig, *, key: jax.Array, dtype: Any = jnp.float32) -> TrainedCLIP:
    """A CLIP with random weights: where training starts, and a control that never saw a pair.

    Args:
        config: the architecture.
        key: random key of the weights.
        dtype: of the computation.

    Returns:
        `TrainedCLIP`, in name only.

    Raises:
        InputError: for what is no key.
    """
    check_key(key)
    module = CLIP(config, dtype)
    start: Any = _start
    return TrainedCLIP(start(module)(key), module)


@functools.lru_cache(maxsize=8)
def _start(module: CLIP) -> Any:
    """The compiled initialisation of a module."""
    size = module.config.vision.image_size
    shapes = {"images": (1, size, size, 3), "tokens": (1, module.config.text.context_length)}

    def init(key: jax.Array) -> PyTree:
        images = jnp.zeros(shapes["images"])
        return module.init(key, images, jnp.zeros(shapes["tokens"], jnp.int32))

    # run once: compiling it well takes longer than it runs
    return jax.jit(init, compiler_options={"xla_backend_optimization_level": 0})


@functools.lru_cache(maxsize=32)
def _adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """The same object for the same settings, since `fit` compiles once for each."""
    warm = max(1, steps // 10)
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm, steps))


def _check(config: CLIPConfig, images: Any, tokens: Any, batch_size: int) -> None:
    check_examples({"images": images, "tokens": tokens}, "pairs")
    size, text = config.vision.image_size, config.text
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
        raise InputError(
            f"images are {images.dtype}{list(images.shape)}: uint8[N, {size}, {size}, 3] is needed"
        )
    whole = np.asarray(tokens)
    if whole.dtype.kind not in "iu" or whole.ndim != 2 or whole.shape[1] > text.context_length:
        raise InputError(
            f"tokens are {whole.dtype}{list(whole.shape)}: int[N, T] is needed, T at most "
            f"{text.context_length}"
        )
    if whole.min() < 0 or whole.max() >= text.vocab_size:
        raise InputError(
            f"tokens lie in {whole.min()} to {whole.max()}: the vocabulary has 0 to "
            f"{text.vocab_size - 1}"
        )
    if batch_size < 2:
        raise InputError(f"batch_size is {batch_size}: a pair alone has no others to be told from")
