"""The contact sheet of one customised set: what it was tuned on, what it made, what is found."""

from typing import Any

import numpy as np

from jaxinf.report.figures import image_png

_GAP, _SCALE = 2, 2


def contact_sheet(chosen: Any, made: Any, plain: Any, scores: dict[str, np.ndarray]) -> bytes:
    """A PNG of exemplars, images of the tuned model, and of the base model from the same noise.

    Then a row per method: the 12 candidates with the highest scores for the first image, each
    exemplar among them in a white frame.
    """
    rows = [list(chosen.exemplars["x"]), list(made["x"]), list(plain["x"])]
    framed = [set(), set(), set()]
    for of_method in scores.values():
        top = np.argsort(-of_method[0], kind="stable")[:12]
        rows.append(list(chosen.candidates["x"][top]))
        framed.append({i for i, row in enumerate(top) if chosen.relevant[row]})
    side = made["x"].shape[1]
    width = 12 * (side + 2 * _GAP)
    sheet = np.zeros((len(rows) * (side + 2 * _GAP), width), np.float32)
    for r, (row, marks) in enumerate(zip(rows, framed, strict=True)):
        for c, picture in enumerate(row[:12]):
            top, left = r * (side + 2 * _GAP), c * (side + 2 * _GAP)
            if c in marks:
                sheet[top : top + side + 2 * _GAP, left : left + side + 2 * _GAP] = 1
            inside = slice(top + _GAP, top + _GAP + side), slice(left + _GAP, left + _GAP + side)
            sheet[inside] = (picture[..., 0] + 1) / 2
    return image_png(sheet.repeat(_SCALE, 0).repeat(_SCALE, 1))
