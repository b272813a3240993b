"""What no compiled step may hold, on any number of devices."""

import re

COLLECTIVES = r"all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"


def check(text: str, *, groups: bool = False, largest: int = 3) -> None:
    """Fails where a program, `step.lower(...).compile().as_text()`, is not as it was meant to be.

    Args:
      text: the program for several devices.
      groups: whether grouped convolutions belong to the architecture.
      largest: side of the largest window that may be moved over a dilated input, or reversed. JAX's own derivatives of
        a strided convolution have such windows as large as the image, slow to compute.
    """
    assert "all-reduce" in text
    collectives = set(re.findall(COLLECTIVES, text))
    assert not collectives, collectives
    convolutions = [line for line in text.splitlines() if re.search(r"\bconvolution\(", line)]
    assert convolutions
    for line in convolutions:
        assert groups or not re.search(r"(feature|batch)_group_count=(?!1\b)\d", line), line
        if "lhs_dilate" in line or "rhs_reversal" in line:
            window = re.search(r"window=\{size=([\dx]+)", line).group(1)
            assert max(map(int, window.split("x"))) <= largest, line
