"""Training settings derived from the number of rows, so that a project file needs none.

Measured on breast cancer (569 rows), adult census (32,561) and New York flights (217,727); the
figures stand in docs and in the benchmark, the rules here.
"""

from __future__ import annotations

import math

SMALLEST_BATCH, LARGEST_BATCH = 32, 4096
WEIGHT_DECAY = 1e-4
WARM_UP_FRAC = 0.05
"""Share of all steps in which the learning rate rises from 0 to its peak."""
CLIP_NORM = 1.0
"""Gradients are shortened to this length."""
STEPS_AN_EPOCH = 400


def batch_size(rows: int, workers: int = 1) -> int:
    """Rows per step over all workers: a power of two, near rows / `STEPS_AN_EPOCH`.

    An epoch then has 400 to 800 steps from 12,800 rows on, and fewer below; each worker has at
    least `SMALLEST_BATCH` rows if there are so many.

    >>> [batch_size(n) for n in (500, 30_000, 220_000, 5_000_000)]
    [32, 64, 512, 4096]
    >>> batch_size(500, workers=4)
    128
    """
    wanted = max(rows / STEPS_AN_EPOCH, 1)
    power = 1 << math.floor(math.log2(wanted))
    return min(LARGEST_BATCH, max(SMALLEST_BATCH * workers, power))


def learning_rate(batch: int) -> float:
    """Peak learning rate of AdamW: 5e-4 to 512 rows a step, then with the root of the batch.

    Adam's step has the size of its gradient's sign, so noise, and with it the best rate, goes
    with the square root of the batch (Malladi et al.: "On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms", 2022). Below 512 the rows are few and so are the steps: the rate stays,
    and is twice that for the smallest batch, whose epochs have a few dozen steps (measured).

    >>> [round(learning_rate(n), 6) for n in (32, 64, 512, 2048, 4096)]
    [0.001, 0.0005, 0.0005, 0.001, 0.001414]
    """
    if batch <= SMALLEST_BATCH:
        return 1e-3
    return 5e-4 * math.sqrt(max(batch, 512) / 512)


def patience(rows: int) -> int:
    """Epochs without a better metric before training stops: a quarter of `epochs`, at least 3.

    An epoch of 500 rows is 16 steps: three of them say nothing.

    >>> [patience(n) for n in (500, 30_000, 220_000)]
    [10, 3, 3]
    """
    return max(3, epochs(rows) // 4)


def epochs(rows: int) -> int:
    """Most epochs: 10 at 30,000 rows, fewer of more rows (their square root), 3 to 40.

    The learning rate falls to 0 over just these, so a budget that is far too long costs quality
    and not only time: on flights two, three and four epochs are equally good within the noise of
    seeds, and twelve are worse.

    >>> [epochs(n) for n in (500, 30_000, 220_000, 5_000_000)]
    [40, 10, 3, 3]
    """
    return min(40, max(3, int(10 * math.sqrt(30_000 / max(rows, 1)))))


def budget(rows: int) -> str:
    """`epochs` in the words of the project file.

    >>> budget(220_000)
    '3 epochs'
    """
    return f"{epochs(rows)} epochs"
