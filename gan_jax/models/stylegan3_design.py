"""The layers of StyleGAN3's synthesis network: sizes, sampling rates and filters (Karras et al. 2021)."""

import math
from typing import NamedTuple

import numpy as np

from gan_jax.errors import UserError
from gan_jax.layers.conv import Padding, Pair, as_pair
from gan_jax.layers.filtered_lrelu import lowpass_taps
from gan_jax.models.blocks import Size


class Layer(NamedTuple):
    """One synthesis layer. Rates, cutoffs and half-widths are per unit of length, the image's shorter side."""

    name: str  # L<number>_<height>_<features>
    to_rgb: bool
    critical: bool  # its cutoff is half the image's sampling rate
    in_channels: int
    out_channels: int
    in_size: Pair  # height, width, with margins
    out_size: Pair
    in_rate: float
    out_rate: float
    inner_rate: float  # of the nonlinearity
    in_cutoff: float
    out_cutoff: float
    in_half_width: float  # of the transition band
    out_half_width: float
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool  # whether the filter before shrinking is
    padding: Padding  # on the enlarged image
    kernel_size: int


class Design(NamedTuple):
    """The bands of all layers but the input, in order; arrays of num_layers + 1."""

    cutoffs: np.ndarray
    stopbands: np.ndarray
    rates: np.ndarray  # sampling rates
    half_widths: np.ndarray  # of the transition bands


def filter_design(
    side: int,
    *,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband: float = 2**0.3,
) -> Design:
    """The bands of a network whose image has `side` samples per unit (Karras et al. 2021, section 3.2, F and G).

    Cutoffs and stopbands grow geometrically, from the first values to side / 2 and side / 2 * last_stopband,
    which the last num_critical layers and the RGB layer share. A layer's sampling rate is the power of two that
    holds its stopband, side at most; its transition band ends at the stopband or half the rate, whichever is higher.
    """
    share = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    last = side / 2
    cutoffs = first_cutoff * (last / first_cutoff) ** share
    stopbands = first_stopband * (last * last_stopband / first_stopband) ** share
    rates = np.minimum(2 ** np.ceil(np.log2(2 * stopbands)), side)
    return Design(cutoffs, stopbands, rates, np.maximum(stopbands, rates / 2) - cutoffs)


def layer_table(
    resolution: Size,
    channels: int = 3,
    *,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband: float = 2**0.3,
    margin: int = 10,
    kernel_size: int = 3,
    filter_size: int = 6,
    upsampling: int = 2,
    radial_filters: bool = False,
) -> tuple[Layer, ...]:
    """All layers of the synthesis network, the RGB layer last; the arguments are `Generator`'s fields.

    Raises:
      UserError: more critical layers than layers, or a resolution that the layers' rates do not divide.
    """
    size = as_pair(resolution)
    side = min(size)
    if not 0 <= num_critical < num_layers or num_layers < 2:
        raise UserError(
            f"num_critical={num_critical}, num_layers={num_layers}: expected two layers or more, "
            "and at least one that is not critical"
        )
    band = filter_design(
        side,
        num_layers=num_layers,
        num_critical=num_critical,
        first_cutoff=first_cutoff,
        first_stopband=first_stopband,
        last_stopband=last_stopband,
    )
    widths = np.rint(np.minimum(channel_base / 2 / band.cutoffs, channel_max)).astype(int).tolist()
    widths[-1] = channels
    sizes = [tuple(math.ceil(rate * n / side) + 2 * margin for n in size) for rate in band.rates]
    sizes[-2:] = [size, size]

    layers = []
    for i in range(num_layers + 1):
        before, rgb = max(i - 1, 0), i == num_layers
        inner = float(max(band.rates[before], band.rates[i]) * (1 if rgb else upsampling))
        up, down = inner / band.rates[before], inner / band.rates[i]
        if up % 1 or down % 1:
            rates = sorted(set(band.rates.tolist()))
            raise UserError(
                f"resolution {resolution}: sampling rates {rates} of its layers are not multiples of one another; "
                "use a shorter side that is a power of two, or 3 times one"
            )
        up, down, kernel = int(up), int(down), 1 if rgb else kernel_size
        taps = tuple(filter_size * factor if factor > 1 and not rgb else 1 for factor in (up, down))
        pads = zip(sizes[before], sizes[i], strict=True)
        critical = i >= num_layers - num_critical
        layers.append(Layer(
            name=f"L{i}_{sizes[i][0]}_{widths[i]}", to_rgb=rgb, critical=critical,
            in_channels=widths[before], out_channels=widths[i], in_size=sizes[before], out_size=sizes[i],
            in_rate=float(band.rates[before]), out_rate=float(band.rates[i]), inner_rate=inner,
            in_cutoff=float(band.cutoffs[before]), out_cutoff=float(band.cutoffs[i]),
            in_half_width=float(band.half_widths[before]), out_half_width=float(band.half_widths[i]),
            up=up, down=down, up_taps=taps[0], down_taps=taps[1], radial=radial_filters and not critical,
            padding=tuple(_padding(n, m, kernel, up, down, taps) for n, m in pads), kernel_size=kernel,
        ))  # fmt: skip
    return tuple(layers)


def layer_taps(layer: Layer) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Low-pass filters of a layer, after enlarging (K,) and before shrinking (K,) or radial (K, K); None: one tap."""
    up = down = None
    if layer.up_taps > 1:
        up = lowpass_taps(layer.up_taps, layer.in_cutoff, 2 * layer.in_half_width, layer.inner_rate)
    if layer.down_taps > 1:
        width = 2 * layer.out_half_width
        down = lowpass_taps(layer.down_taps, layer.out_cutoff, width, layer.inner_rate, radial=layer.radial)
    return up, down


def _padding(n: int, out: int, kernel: int, up: int, down: int, taps: Pair) -> Pair:
    """(before, after) on the enlarged axis, so that n samples give `out`, centred on each other."""
    total = (out - 1) * down + 1 - (n + kernel - 1) * up + sum(taps) - 2
    low = (total + up) // 2  # up - 1 zeros stand behind the last sample already
    return low, total - low
