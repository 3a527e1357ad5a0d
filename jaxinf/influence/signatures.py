"""Signatures: what two examples share when they are the same, nearly the same, or overlap.

The trivial baselines of duplicate detection. A signature is a short row of integers, computed on
the host; `signature_match` scores every training example by the share of entries that it has in
common with the query's:

| signature | share of equal entries |
|---|---|
| `content_hashes` | 1 for the same bytes, else 0 |
| `perceptual_hashes` | 1 − Hamming distance / 64, for images |
| `minhash_signatures` | estimates the Jaccard similarity of two texts' shingles |
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8, UInt32
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_examples, require_extra
from jaxinf.influence.attributor import Attributor
from jaxinf.influence.queries import as_groups
from jaxinf.typing import Batch, Params, PyTree

# a Mersenne prime: products of two numbers below 2³¹ and their sums fit in 64 bits
_PRIME = (1 << 31) - 1
_BITS = 64


class SignatureState(NamedTuple):
    """Signatures [K, n, S] and the weights [K, n] of a group's members."""

    signatures: jax.Array
    weights: jax.Array


def signature_match(
    signatures: Callable[[Batch], jax.Array] = lambda batch: batch,
) -> Attributor:
    """Share of the entries of two signatures that are equal.

    Sign: higher = more alike, 0 to 1. Nothing here knows of a model: params are not looked at.

    Cost: no forward pass; K · B · S comparisons per batch.

    Args:
        signatures: `batch -> int[B, S]`, such as `lambda batch: batch["hash"]`.

    Returns:
        An `Attributor` without a loss: call it with `params=()`. A group's score is the mean over
        its members.

    Raises:
        InputError: while scoring, for signatures that are not integers [B, S].

    Example:
        >>> rows = content_hashes(np.array([[1, 2], [3, 4], [1, 2]]))
        >>> method = signature_match()
        >>> method.score(method.prepare((), rows[:1]), rows).tolist()
        [[1.0, 0.0, 1.0]]
    """

    def read(batch: Batch) -> jax.Array:
        found = jnp.asarray(signatures(batch))
        if found.ndim != 2 or not jnp.issubdtype(found.dtype, jnp.integer):
            raise InputError(
                f"signatures are {found.dtype}{list(found.shape)}: int[B, S] is needed"
            )
        return found

    def prepare(params: Params, queries: PyTree, train: Any = None) -> SignatureState:
        groups = as_groups(queries)
        flat = read(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), groups.examples))
        return SignatureState(flat.reshape(*groups.weights.shape, -1), jnp.asarray(groups.weights))

    def score(state: SignatureState, batch: PyTree) -> jax.Array:
        found = read(batch)

        def of_query(one: SignatureState) -> jax.Array:
            equal = one.signatures[:, None] == found[None]
            return one.weights @ jnp.mean(equal, axis=2, dtype=one.weights.dtype)

        return jax.lax.map(of_query, state)

    return Attributor(prepare, score, None, None, lambda k: 0.0, "signature_match")


def content_hashes(examples: PyTree) -> UInt32[np.ndarray, "N 4"]:
    """128 bits of BLAKE2b over the bytes of each example, all leaves together.

    Args:
        examples: pytree of arrays with leading axis N, or a sequence of strings.

    Returns:
        uint32[N, 4]; equal rows are equal examples, but for one chance in 2¹²⁸ per pair.

    Raises:
        InputError: for leaves without a common leading axis.

    Example:
        >>> a, b, c = content_hashes(["one", "two", "one"])
        >>> bool((a == c).all()), bool((a == b).any())
        (True, False)
    """
    if _are_texts(examples):
        rows = [text.encode() for text in examples]
    else:
        count = check_examples(examples, "examples")
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(examples)]
        rows = [
            b"".join(np.ascontiguousarray(a[i]).tobytes() for a in leaves) for i in range(count)
        ]
    digests = [hashlib.blake2b(row, digest_size=16).digest() for row in rows]
    return np.frombuffer(b"".join(digests), np.uint32).reshape(len(rows), 4)


def perceptual_hashes(images: ArrayLike) -> UInt8[np.ndarray, "N 64"]:
    """The 64 bits of `imagehash.phash`, which small changes of an image leave alone.

    Args:
        images: uint8[N, H, W], [N, H, W, 1] or [N, H, W, 3].

    Returns:
        uint8[N, 64] of 0 and 1.

    Raises:
        InputError: for other shapes or types.
        MissingExtraError: imagehash or Pillow is not installed.

    Example:
        >>> perceptual_hashes(np.zeros((2, 8, 8), np.uint8)).shape
        (2, 64)
    """
    pictures = np.asarray(images)
    if pictures.ndim == 4 and pictures.shape[3] == 1:
        pictures = pictures[..., 0]
    if pictures.dtype != np.uint8 or (pictures.ndim, *pictures.shape[3:]) not in ((3,), (4, 3)):
        raise InputError(
            f"images are {pictures.dtype}{list(pictures.shape)}: uint8[N, H, W, 3] is needed"
        )
    phash = require_extra("imagehash", "membership").phash
    from_array = require_extra("PIL.Image", "membership").fromarray
    bits = [phash(from_array(picture)).hash.ravel() for picture in pictures]
    return np.asarray(bits, np.uint8).reshape(len(pictures), _BITS)


def minhash_signatures(
    texts: Sequence[str], *, num_hashes: int = 128, shingle: int = 3, seed: int = 0
) -> Int[np.ndarray, "N S"]:
    """MinHash of each text's shingles: the share of equal entries estimates Jaccard similarity.

    Args:
        texts: N texts; case, punctuation and spacing do not count.
        num_hashes: S; the standard error of a similarity is at most ½ / √S.
        shingle: words that are taken together; texts with fewer words are one shingle.
        seed: of the hash functions; signatures of one seed can be compared.

    Returns:
        int32[N, S].

    Raises:
        InputError: for what is no sequence of strings, or counts that are not positive.

    Example:
        >>> a, b = minhash_signatures(["A red cat sat.", "a RED cat  sat"])
        >>> bool((a == b).all())
        True

    Reference: Broder, On the Resemblance and Containment of Documents, 1997.
    """
    from jaxinf.datasets.words import split_words

    if not _are_texts(texts):
        raise InputError("minhash_signatures takes a sequence of strings")
    if num_hashes < 1 or shingle < 1:
        raise InputError(f"num_hashes is {num_hashes} and shingle {shingle}: at least 1 each")
    rng = np.random.default_rng(seed)
    slope = rng.integers(1, _PRIME, num_hashes, dtype=np.uint64)
    offset = rng.integers(0, _PRIME, num_hashes, dtype=np.uint64)
    found = np.empty((len(texts), num_hashes), np.int32)
    for row, text in zip(found, texts, strict=True):
        words = split_words(text)
        starts = range(max(1, len(words) - shingle + 1))
        shingles = {" ".join(words[i : i + shingle]) for i in starts}
        digests = b"".join(hashlib.blake2b(s.encode(), digest_size=4).digest() for s in shingles)
        numbers = np.frombuffer(digests, np.uint32).astype(np.uint64) % _PRIME
        row[:] = ((numbers[:, None] * slope[None] + offset[None]) % _PRIME).min(axis=0)
    return found


def _are_texts(examples: Any) -> bool:
    if isinstance(examples, str) or not isinstance(examples, Sequence):
        return False
    return all(isinstance(text, str) for text in examples)
