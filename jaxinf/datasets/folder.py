"""Folders of images, one subfolder per class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxinf.datasets.arrays import Examples
from jaxinf.errors import InputError, require_extra


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples with their class names, and what could not be read.

    Attributes:
        examples: `{"x": uint8[N, H, W, 3], "y": int32[N]}`.
        classes: name of each label.
        files: file of each row, relative to the folder.
        skipped: `(file, reason)` for each file that is no image or a damaged one.
    """

    examples: Examples
    classes: tuple[str, ...]
    files: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def read_image_folder(path: str | Path, size: int | tuple[int, int] | None = None) -> Dataset:
    """Read every image below a folder; the name of the first subfolder is its class.

    Classes are numbered in the order of their names, and images lie in the order of theirs.
    Hidden files are passed over. A file that cannot be decoded does not stop the reading: it is
    left out, and named in `skipped` with the reason.

    Args:
        path: the folder, such as `train` with `train/cat/1.png`, `train/dog/2.jpg`.
        size: height and width (or one number for both) to which every image is resized
            (bilinear). Without it all images must already have one size.

    Returns:
        Images as RGB, uint8 as stored.

    Raises:
        InputError: no such folder, no class subfolders, no readable image, images of unequal
            size without `size`, or a size that is not positive.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> read_image_folder("no/such/folder")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such/folder: no such folder
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    height_width = (size, size) if isinstance(size, int) else size
    if height_width is not None and (len(height_width) != 2 or min(height_width) < 1):
        raise InputError(f"size is {size}: give one positive number, or (height, width)")
    classes = tuple(
        sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    if not classes:
        raise InputError(f"{root}: no subfolders in it; one folder per class is needed")
    images, labels, files, skipped = [], [], [], []
    for label, name in enumerate(classes):
        for file in sorted((root / name).rglob("*")):
            relative = file.relative_to(root)
            if not file.is_file() or any(part.startswith(".") for part in relative.parts):
                continue
            image = _read_image(file, height_width)
            if isinstance(image, str):
                skipped.append((relative.as_posix(), image))
                continue
            if images and image.shape != images[0].shape:
                raise InputError(
                    f"{root}: {relative.as_posix()} is {image.shape[0]}x{image.shape[1]} and "
                    f"{files[0]} {images[0].shape[0]}x{images[0].shape[1]}: give size=(height, "
                    "width) to resize them all"
                )
            images.append(image)
            labels.append(label)
            files.append(relative.as_posix())
    if not images:
        raise InputError(f"{root}: no readable image in it ({len(skipped)} files skipped)")
    examples = {"x": np.stack(images), "y": np.asarray(labels, np.int32)}
    return Dataset(examples, classes, tuple(files), tuple(skipped))


def _read_image(file: Path, height_width: tuple[int, int] | None) -> np.ndarray | str:
    """Pixels of one file, or why it cannot be read."""
    image = require_extra("PIL.Image", "cli")
    try:
        with image.open(file) as opened:
            colour = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        # Pillow repeats the whole path in some messages: the file is named beside the reason
        return str(error).replace(str(file), file.name)
    if height_width is not None:
        height, width = height_width
        colour = colour.resize((width, height), image.Resampling.BILINEAR)
    return np.asarray(colour)
