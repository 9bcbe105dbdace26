"""Values far from the others: flagged, never dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OUTLIER_Z = 3.5
"""Modified z beyond which a value is flagged [Iglewicz & Hoaglin 1993]."""


def outliers(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Flags of the values whose modified z, by the median absolute deviation, exceeds 3.5. Flagged, never dropped.

    Where more than half of the values are equal the mean absolute deviation stands in; where all are, none is flagged.

    >>> outliers(np.array([10.0, 11.0, 9.0, 10.5, 9.5, 40.0])).tolist()
    [False, False, False, False, False, True]
    """
    if not len(values):
        return np.zeros(0, dtype=np.bool_)
    away = np.abs(values - np.median(values))
    scale = float(np.median(away)) / 0.6745 or float(away.mean()) * 1.253314
    return away > OUTLIER_Z * scale if scale else np.zeros(len(values), dtype=np.bool_)
