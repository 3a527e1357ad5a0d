"""CLIP: an image tower and a text tower that map into one space."""

import functools
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxinf.errors import InputError
from jaxinf.models.clip.blocks import AttentionKernel
from jaxinf.models.clip.config import CLIPConfig, ResNetConfig
from jaxinf.models.clip.resnet import ModifiedResNet
from jaxinf.models.clip.text_transformer import TextTransformer
from jaxinf.models.clip.vision_transformer import VisionTransformer
from jaxinf.typing import PyTree


class CLIP(nn.Module):
    """The module: `apply(variables, images, method="encode_image")` and so on.

    Attributes:
        config: both towers.
        dtype: of the computation, float32 or bfloat16; parameters and features are float32.
        kernel: of the attention; None is jax's own choice.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        ICML 2021.

    Example:
        >>> from jaxinf.models.clip import architecture
        >>> model = CLIP(architecture("ViT-B-32", "quick_gelu"))
        >>> images, tokens = jnp.zeros((2, 224, 224, 3)), jnp.zeros((3, 77), jnp.int32)
        >>> init = lambda: model.init_with_output(jax.random.key(0), images, tokens)
        >>> logits, variables = jax.eval_shape(init)
        >>> logits.shape, sum(leaf.size for leaf in jax.tree.leaves(variables))
        ((2, 3), 151277313)
    """

    config: CLIPConfig
    dtype: Any = jnp.float32
    kernel: AttentionKernel = None

    def setup(self):
        """Define the towers and the temperature, which starts at 0.07."""
        config = self.config
        options: tuple[int, Any, AttentionKernel] = (config.embed_dim, self.dtype, self.kernel)
        if isinstance(config.vision, ResNetConfig):
            self.visual = ModifiedResNet(config.vision, config.embed_dim, self.dtype)
        else:
            self.visual = VisionTransformer(config.vision, *options)
        self.text = TextTransformer(config.text, *options)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(np.log(1 / 0.07)), ())

    def encode_image(
        self, images: Float[jax.Array, "B S S 3"], *, normalise: bool = True, train: bool = False
    ) -> Float[jax.Array, "B D"]:
        """Image features float32[B, D].

        Args:
            images: as `preprocess` makes them.
            normalise: give each row unit Euclidean norm.
            train: use the batch's own BatchNorm statistics (ResNets only).

        Raises:
            InputError: for images that are not floating-point, or of another shape.
        """
        side = self.config.vision.image_size
        if images.ndim != 4 or images.shape[1:] != (side, side, 3):
            raise InputError(f"images have shape {images.shape}: pass float[B, {side}, {side}, 3]")
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(f"images are {images.dtype}: pass what `preprocess` returns")
        features = self.visual(images, train)
        return _unit(features) if normalise else features

    def encode_text(
        self, tokens: Int[jax.Array, "B T"], *, normalise: bool = True
    ) -> Float[jax.Array, "B D"]:
        """Text features float32[B, D].

        Args:
            tokens: as `tokenize` makes them, or cut to fewer columns.
            normalise: give each row unit Euclidean norm.

        Raises:
            InputError: for tokens that are not int[B, T], or more than the context length.
        """
        features = self.text(tokens)
        return _unit(features) if normalise else features

    def __call__(
        self,
        images: Float[jax.Array, "B S S 3"],
        tokens: Int[jax.Array, "C T"],
        train: bool = False,
    ) -> Float[jax.Array, "B C"]:
        """Logits: cosine similarity of every image to every text, over the temperature."""
        image_features = self.encode_image(images, train=train)
        return jnp.exp(self.logit_scale) * image_features @ self.encode_text(tokens).T


def _unit(features: Float[jax.Array, "B D"]) -> Float[jax.Array, "B D"]:
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainedCLIP:
    """A CLIP with its variables: a pytree, to be jitted over, replicated or sharded like any.

    Attributes:
        variables: `{"params": ...}`, with "batch_stats" for a ResNet; the leaves of the pytree.
        module: the `CLIP`, static.

    Example:
        >>> from jaxinf.models.clip import TextConfig, TransformerConfig, VisionTransformerConfig
        >>> stack = TransformerConfig(
        ...     width=8, layers=1, heads=2, mlp_width=8, activation="gelu")
        >>> text = TextConfig(context_length=4, vocab_size=9, transformer=stack)
        >>> vision = VisionTransformerConfig(image_size=8, patch_size=4, transformer=stack)
        >>> module = CLIP(CLIPConfig(embed_dim=5, vision=vision, text=text))
        >>> images, tokens = jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 4), jnp.int32)
        >>> variables = jax.jit(module.init)(jax.random.key(0), images, tokens)
        >>> TrainedCLIP(variables, module).encode_text(tokens).shape
        (2, 5)
    """

    variables: PyTree
    module: CLIP = field(metadata={"static": True})

    @functools.partial(jax.jit, static_argnames="normalise")
    def encode_image(
        self, images: Float[jax.Array, "B S S 3"], *, normalise: bool = True
    ) -> Float[jax.Array, "B D"]:
        """Image features float32[B, D]; see `CLIP.encode_image`."""
        return self._apply("encode_image", images, normalise)

    @functools.partial(jax.jit, static_argnames="normalise")
    def encode_text(
        self, tokens: Int[jax.Array, "B T"], *, normalise: bool = True
    ) -> Float[jax.Array, "B D"]:
        """Text features float32[B, D]; see `CLIP.encode_text`."""
        return self._apply("encode_text", tokens, normalise)

    def _apply(self, method: str, x: jax.Array, normalise: bool) -> Any:
        return self.module.apply(self.variables, x, normalise=normalise, method=method)
