"""Which images and clips a protocol can be had of: their number, their kind and their size."""

from collections.abc import Iterable

from gan_jax.errors import UserError
from gan_jax.evaluate import protocols
from gan_jax.evaluate.protocols import Protocol
from gan_jax.features import lpips, networks
from gan_jax.metrics import sliced_wasserstein, structural_similarity


def check_reals(protocol: Protocol, count: int, dataset, shape: tuple[int, ...]) -> None:
    """Raises UserError where a protocol cannot be had of so many reals, or of their shape beside the images' own."""
    of = f"{dataset.name}/{dataset.split}"
    if protocol.network not in ("", *networks.FITTED):
        networks.check_channels(dataset.shape, of)
    if protocol.kind == "swd" and tuple(dataset.shape) != tuple(shape):
        raise UserError(f"metrics={protocol.name}: of images {tuple(shape)} against reals {tuple(dataset.shape)} of "
                        f"{of}; expected one shape")
    least = max(protocol.options.get("neighbours", 0) + 1, 2)
    if count < least:
        raise UserError(f"metrics={protocol.name}: against {count} reals of {of}; expected {least} or more")
    if protocol.kind == "swd" and count != protocol.samples:
        raise UserError(f"metrics={protocol.name}: {of} has {count} images, and it compares {protocol.samples} with as "
                        f"many: list swd{count}")
    check_shape(protocol, dataset.shape)


def check_kind(protocol: Protocol, shape: tuple[int, ...]) -> None:
    """Raises UserError where a protocol looks at images, and there are clips (T, H, W, C), or the other way round."""
    network = protocol.network.partition(networks.PATCHES)[0]
    is_of_clips = protocol.kind in protocols.OF_CLIPS or network in networks.OF_CLIPS
    is_of_any = protocol.kind in (*protocols.PAIRED, *protocols.OF_IMAGES) and not is_of_clips
    if len(shape) == 4 and not (is_of_clips or is_of_any):
        what = f" by {network}" if network else ""
        raise UserError(
            f"metrics={protocol.name}: looks at images{what}, and these are clips of {shape[0]} frames; expected some "
            f"of fd, kd, prdc, classes with config.evaluation.features={networks.CLIPS!r}, "
            f"{', '.join(protocols.OF_IMAGES)}, fvd2048_16f; or, where each clip has a target, psnr, ssim, l1"
        )
    if len(shape) == 3 and is_of_clips:
        what = f" by {network}" if network else ""
        raise UserError(f"metrics={protocol.name}: looks at clips{what}, and these are images; set "
                        "config.data.frames, or list others")


def check_shape(protocol: Protocol, shape: tuple[int, ...]) -> None:
    """Raises UserError where a protocol cannot be had of images (H, W, C), or clips of such."""
    check_kind(protocol, shape)
    frames = protocol.options.get("frames", 0)
    if frames > shape[0]:
        raise UserError(f"metrics={protocol.name}: of {frames} frames, and these clips have {shape[0]}; expected as "
                        "many or more")
    lowest, (height, width) = sliced_wasserstein.LOWEST, shape[-3:-1]
    if protocol.kind == "swd" and (height != width or height < lowest or height & (height - 1)):
        raise UserError(f"metrics={protocol.name}: of images {height}x{width}; expected squares, their side a power of "
                        f"two from {lowest} on")
    if protocol.kind == "msssim" and (height % 16 or width % 16):
        raise UserError(f"metrics={protocol.name}: of images {height}x{width}; expected sides of multiples of 16")
    side = protocol.options.get("patch", 0)
    if "patch" in protocol.options and not 8 <= side <= min(height, width):
        raise UserError(f"metrics={protocol.name}: of patches of {side}x{side} of images {height}x{width}; expected "
                        f"patches of 8x8 to the images' size, such as pfid{protocol.samples}x8")
    least = lpips.LEAST["vgg"] * (2 if protocol.options.get("crop") else 1)  # the crop has half of a face's side
    if protocol.kind == "ppl" and (height != width or height < least):
        raise UserError(f"metrics={protocol.name}: of images {height}x{width}; expected squares of {least}x{least} or "
                        "larger")


def check_pairs(names: Iterable[str], shape: tuple[int, ...], border: int) -> None:
    """Raises UserError where one of these metrics of `PAIRED` cannot be had of images (H, W, C), or clips of such, less
    their border."""
    height, width, channels = shape[-3:]
    leasts = structural_similarity.LEAST | {f"lpips_{net}": least for net, least in lpips.LEAST.items()}
    for name in names:
        if border < 0:
            raise UserError(f"metrics={name}: config.evaluation.border={border}; expected 0 or more")
        least = leasts[name] + (2 * border if name in protocols.BORDERED else 0)
        if min(height, width) < least:
            without = f", with a border of {border}" if name in protocols.BORDERED and border else ""
            raise UserError(f"metrics={name}: of images {height}x{width}; expected {least}x{least} or larger{without}")
        if name.endswith("_y") and channels != 3:
            raise UserError(f"metrics={name}: of images with {channels} channel{'s' * (channels != 1)}; Y is that of "
                            f"RGB: list {name.removesuffix('_y')}, or set config.data.channels=3")
