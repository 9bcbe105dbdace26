"""The Universal Scalability Law, fitted: what queueing (sigma) and coherence (kappa) take from each added stream.

X(N) = lambda*N / (1 + sigma*(N-1) + kappa*N*(N-1)), by least squares on ln X with sigma, kappa >= 0 [Gunther, Guerrilla
Capacity Planning, 2007]. Written as ln(X/N) = -ln(a + b*(N-1) + c*N*(N-1)), with a = 1/lambda, b = sigma/lambda,
c = kappa/lambda, what stands in the logarithm is linear. So Gauss and Newton's steps, cut where they overshoot, find
the least squares for each choice of which of b and c are 0; the best of those choices that is allowed is the fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadbench.stats import Z, normal
from loadbench.stats.blocks import reach

Reals = NDArray[np.float64]

FEWEST_LOADS = 6
# Root mean square of the residuals of ln X: below the first a law fits, beyond the second it does not; between them
# the levels' own intervals say whether chance alone is that large.
FITS, MISFIT = 0.06, 0.1
SAMPLES = 1000
SEED = 20070101
# The chance at which residuals of a law that fits count as a misfit.
CLEAR = 0.05
STEPS, HALVINGS = 40, 12
_FREE = ((0, 1, 2), (0, 1), (0, 2), (0,))


@dataclass(frozen=True, slots=True)
class Usl:
    """A fitted law.

    Attributes:
        lambda_per_s: Throughput of one stream.
        sigma, kappa: At least 0.
        measured_to: The most that was in flight: beyond it the law says nothing.
        rms: Of the residuals of ln X: 0.02 is 2 %.
        ci95: 95 % intervals of "lambda_per_s", "sigma", "kappa" and "peak_n"; an end of the peak that lies beyond
            `measured_to` is None.
    """

    lambda_per_s: float
    sigma: float
    kappa: float
    measured_to: float
    rms: float
    ci95: dict[str, tuple[float | None, float | None]]

    @property
    def peak_n(self) -> float | None:
        """Streams with the most throughput, sqrt((1-sigma)/kappa); None where that lies beyond what was measured."""
        n = float(_peak(np.array([self.sigma]), np.array([self.kappa]))[0])
        return _within(n, self.measured_to)

    def x_per_s(self, n: float) -> float | None:
        """Throughput at n in flight; None beyond what was measured: the law is no crystal ball.

        >>> Usl(50.0, 0.1, 0.0, 16.0, 0.0, {}).x_per_s(11.0), Usl(50.0, 0.1, 0.0, 16.0, 0.0, {}).x_per_s(17.0)
        (275.0, None)
        """
        if not 0 < n <= self.measured_to:
            return None
        return self.lambda_per_s * n / (1 + self.sigma * (n - 1) + self.kappa * n * (n - 1))


def fit(n: Sequence[float], x_per_s: Sequence[float], samples: int = SAMPLES) -> Usl:
    """The law that fits best, and how sure its parameters are.

    Intervals by refitting: each sample is the fitted curve with noise of its own, whose spread is drawn from what the
    residuals allow (their sum of squares over chi-square with 3 fewer degrees of freedom than points); with the spread
    itself taken for certain, 7 levels would give intervals that are a third too narrow.

    Args:
        n: Mean number in flight, of at least 6 different loads.
        x_per_s: Throughput there, > 0.
        samples: Refitted curves.

    Raises:
        ValueError: If there are fewer loads, or a figure that is not above 0.
    """
    streams, x = np.asarray(n, dtype=np.float64), np.asarray(x_per_s, dtype=np.float64)
    if len(np.unique(streams)) < FEWEST_LOADS or not (streams > 0).all() or not (x > 0).all():
        raise ValueError(f"the law needs {FEWEST_LOADS} different loads and throughputs above 0")
    basis = np.column_stack((np.ones_like(streams), streams - 1, streams * (streams - 1)))
    y = np.log(x / streams)
    [found] = _solve(basis, y[np.newaxis])
    fitted = -np.log(basis @ found)
    squares = float(np.square(y - fitted).sum())
    random = np.random.default_rng(SEED)
    spread = np.sqrt(squares / random.chisquare(len(x) - 3, samples))
    refitted = _solve(basis, fitted + spread[:, np.newaxis] * random.standard_normal((samples, len(x))))
    measured_to = float(streams.max())
    lambdas, sigmas, kappas = _parameters(refitted)
    peaks = _ends(_peak(sigmas, kappas))
    lambda_per_s, sigma, kappa = (float(column[0]) for column in _parameters(found[np.newaxis]))
    return Usl(
        lambda_per_s=lambda_per_s,
        sigma=sigma,
        kappa=kappa,
        measured_to=measured_to,
        rms=math.sqrt(squares / len(x)),
        ci95={
            "lambda_per_s": _ends(lambdas),
            "sigma": _ends(sigmas),
            "kappa": _ends(kappas),
            "peak_n": (_within(peaks[0], measured_to), _within(peaks[1], measured_to)),
        },
    )


def fits(law: Usl, n: Sequence[float], x_per_s: Sequence[float], log_halves: Sequence[float | None]) -> bool:
    """Whether the law is that of the levels at all: it is one of queueing and coherence, and has no hard edge.

    Four slots give a straight line and a ceiling; what is fitted to them has a peak that nobody measured. Superlinear
    throughput has no such law, and lambda comes out too high by half.

    Args:
        n, x_per_s: What was fitted.
        log_halves: Half the 95 % interval of each ln X, None where it is not known.
    """
    if law.rms <= FITS or law.rms > MISFIT:
        return law.rms <= FITS
    squares = 0.0
    for streams, x, half in zip(n, x_per_s, log_halves, strict=True):
        fitted = law.x_per_s(streams)
        if fitted is None or not half:
            return True
        squares += (math.log(x / fitted) / (half / Z)) ** 2
    freedom = len(n) - 3
    return squares / freedom <= reach(freedom, normal(CLEAR))


def _solve(basis: Reals, y: Reals) -> Reals:
    """The best allowed (a, b, c) for each row of y = ln(X/N)."""
    scale = basis.max(axis=0)  # the last column grows as N squared: unscaled, the first would lose its digits
    best = np.zeros((len(y), 3))
    least = np.full(len(y), np.inf)
    for free in _FREE:
        columns = basis[:, free] / scale[list(free)]
        found, squares = _unbounded(columns, y)
        better = (squares < least) & (found >= 0).all(axis=1)
        least[better] = squares[better]
        best[better] = 0.0
        best[np.ix_(better, np.array(free))] = found[better] / scale[list(free)]
    return best


def _unbounded(columns: Reals, y: Reals) -> tuple[Reals, Reals]:
    """Least squares of y + ln(columns @ theta) for each row of y, whatever the signs; and the sums of squares."""
    weights = np.exp(y)  # relative errors: the sum is that of N/X = columns @ theta, in units of N/X
    theta = _least(columns * weights[..., np.newaxis], np.ones_like(y))
    bad = ~(theta @ columns.T > 0).all(axis=1)
    theta[bad] = 0.0
    theta[bad, 0] = np.exp(-y[bad]).mean(axis=1)
    squares = _squares(columns, theta, y)
    for _ in range(STEPS):
        d = theta @ columns.T
        step = _least(columns / d[..., np.newaxis], y + np.log(d))
        size = np.ones(len(y))
        for _ in range(HALVINGS):
            tried = theta - size[:, np.newaxis] * step
            after = _squares(columns, tried, y)
            worse = ~(after <= squares)
            if not worse.any():
                break
            size[worse] /= 2
        moved = after < squares
        theta[moved], gained = tried[moved], squares[moved] - after[moved]
        squares[moved] = after[moved]
        if not moved.any() or gained.max() < 1e-14:
            break
    return theta, squares


def _least(j: Reals, r: Reals) -> Reals:
    """Ordinary least squares of each r against its j."""
    q, triangle = np.linalg.qr(j)
    turned = np.swapaxes(q, -1, -2) @ r[..., np.newaxis]
    try:
        found: Reals = np.linalg.solve(triangle, turned)[..., 0]
    except np.linalg.LinAlgError:  # a row whose columns are one and the same to the last digit
        found = (np.linalg.pinv(j) @ r[..., np.newaxis])[..., 0]
    return found


def _squares(columns: Reals, theta: Reals, y: Reals) -> Reals:
    d = theta @ columns.T
    with np.errstate(invalid="ignore", divide="ignore"):
        squares: Reals = np.square(y + np.log(d)).sum(axis=1)
    return np.where(np.isfinite(squares), squares, np.inf)


def _parameters(theta: Reals) -> tuple[Reals, Reals, Reals]:
    a, b, c = theta.T
    return 1 / a, b / a, c / a


def _peak(sigma: Reals, kappa: Reals) -> Reals:
    """N* of each law; infinite where throughput never falls, at least 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n: Reals = np.sqrt(np.maximum(1 - sigma, 0.0) / kappa)
    return np.where(kappa > 0, np.maximum(n, 1.0), np.where(sigma < 1, np.inf, 1.0))


def _ends(values: Reals) -> tuple[float, float]:
    """The middle 95 % by nearest rank, without arithmetic between values: one may be infinite."""
    ascending = np.sort(values)
    last = len(ascending) - 1
    return float(ascending[math.floor(0.025 * last)]), float(ascending[math.ceil(0.975 * last)])


def _within(n: float, measured_to: float) -> float | None:
    return n if n <= measured_to else None
