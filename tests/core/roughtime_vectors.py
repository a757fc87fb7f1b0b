"""The malfeasance report of draft-ietf-ntp-roughtime-19, Appendix B: of three exchanges the first is a day ahead.

Each request is that of the server's key and the nonce, with version 1 alone.
"""

from base64 import b64decode
from typing import NamedTuple

from ntpaudit.core import roughtime


class Exchange(NamedTuple):
    """One exchange: the server's long-term key, the client's random value, and both packets."""

    key: bytes
    rand: bytes | None
    request: bytes
    reply: bytes


def _exchange(key: str, rand: str | None, nonce: str, *reply: str) -> Exchange:
    fields = {
        roughtime.VER: (1).to_bytes(4, "little"),
        roughtime.SRV: roughtime.digest(b"\xff" + b64decode(key)),
        roughtime.NONC: b64decode(nonce),
        roughtime.TYPE: bytes(4),
        roughtime.ZZZZ: bytes(912),
    }
    request = roughtime.pack(roughtime.encode(fields))
    return Exchange(b64decode(key), b64decode(rand) if rand else None, request, b64decode("".join(reply)))


REPORT = (
    _exchange(
        "FnDyLV/68ephhLdFJbdEGCdkVvpXDaVe5PYvRDdlOOY=",
        None,
        "MGH2UGU3otTJ7rOCGKpJYzDI2bQi5zFDFbfNMyvCPh0=",
        "Uk9VR0hUSU2UAQAABwAAAEAAAABgAAAAZAAAAGQAAADAAAAAWAE",
        "AAFNJRwBOT05DVFlQRVBBVEhTUkVQQ0VSVElORFhBWL64CToGs4v/4UtfN/80HLFiA09vG",
        "IDRP/zTjcTj8/1DlZWCsVja6RlfwaYnc1wfJqThfhcuSDonrTGyKngBMGH2UGU3otTJ7rO",
        "CGKpJYzDI2bQi5zFDFbfNMyvCPh0BAAAABQAAAAQAAAAIAAAAEAAAABQAAABWRVIAUkFES",
        "U1JRFBWRVJTUk9PVAEAAAADAAAAQ0u4aQAAAAABAAAAc86AWYB/O3Kxzsx4d5P5cbSOftJ",
        "UA8bWVtVrQ3tc+b0CAAAAQAAAAFNJRwBERUxFI2B5tbj5ePjVKYE0PAL1NmgZOAsqh/E2f",
        "rom9Ol5BAnVcLje0C6exbXY8hE3dRvYV01Alru8Ocle+jOZT5r8AwMAAAAgAAAAKAAAAFB",
        "VQktNSU5UTUFYVKqljhhqi4A54vW20e+slwViPyxybNnqKXzimIiIUHQMaBCvaQAAAADYy",
        "d9pAAAAAAAAAAA=",
    ),
    _exchange(
        "l9cdSuR8dFxtG9aJo9pWzUXaX8pftNG4UDC45Qk3znc=",
        "v/DirVBRQLGtictYD7mN3px02UlMT4J3haTRomt1NNM=",
        "/ffmRs1Nlyxgsz3qjvvItu+9GTV+bZNAHjIrFs/WPN4=",
        "Uk9VR0hUSU2UAQAABwAAAEAAAABgAAAAZAAAAGQAAADAAAAAWAE",
        "AAFNJRwBOT05DVFlQRVBBVEhTUkVQQ0VSVElORFj+2I02cCBAfDYzP+8znW6bICqVrAF23",
        "xNLfM+Qycmkpfp1+BQSb4l/6mRll66l2VIfPSQzigl2V5OJgQzGEBcG/ffmRs1Nlyxgsz3",
        "qjvvItu+9GTV+bZNAHjIrFs/WPN4BAAAABQAAAAQAAAAIAAAAEAAAABQAAABWRVIAUkFES",
        "U1JRFBWRVJTUk9PVAEAAAADAAAAw/m2aQAAAAABAAAAS8ROJoXIPSlO9yN+uREb+/UiOJJ",
        "qCjx3VWZ/vD2FqBMCAAAAQAAAAFNJRwBERUxFw0MFQMiDoHySot8rlnV83Vqaa3qTrAY15",
        "W1TzqNuAurOvreNw08BfUwxF7BQ/b/JCwCQcqtD5uRYsvikvuyLCwMAAAAgAAAAKAAAAFB",
        "VQktNSU5UTUFYVCQs/eCxtWjVrXyse0SeojyZdNFkOwe3B3nLHtHJZK/9gRCvaQAAAADxy",
        "d9pAAAAAAAAAAA=",
    ),
    _exchange(
        "lRhHag6fn2wZQ6idy10ChgpRgks3gvdMM2hWNeJNgXg=",
        "lMvMVoLsakxc5ZmMzEFQ8hh1FaDo2gCXXIX/L4QPSxQ=",
        "vgO4ggK+gJZPAJq6kF9w4TBX5GoFYHovUlQaf6i3z70=",
        "Uk9VR0hUSU2UAQAABwAAAEAAAABgAAAAZAAAAGQAAADAAAAAWAE",
        "AAFNJRwBOT05DVFlQRVBBVEhTUkVQQ0VSVElORFg8MlhdCJeQ2qzN6b9q646W9kB+XmAdS",
        "g7ToU1gj3AD8AP8eCHfduMBE0E8j4/LqWIr72zWQx8Y1U/1uxs97yMAvgO4ggK+gJZPAJq",
        "6kF9w4TBX5GoFYHovUlQaf6i3z70BAAAABQAAAAQAAAAIAAAAEAAAABQAAABWRVIAUkFES",
        "U1JRFBWRVJTUk9PVAEAAAADAAAAw/m2aQAAAAABAAAA6ho4+0Cml+VJbqU7hsF717uusV2",
        "HYvRbU9CdjJE/Zn0CAAAAQAAAAFNJRwBERUxFM9Fvq8T9kOrxcS7jviCPHe44HX/75Je1h",
        "afPJ0f8NoASy29EgD7C0c/LMxXiXxEwyuxYTPN9oseAr9XIt68uDwMAAAAgAAAAKAAAAFB",
        "VQktNSU5UTUFYVMxBDiNG247IO4onsGcjFHsA3vP+arl+s0lBLhXw0c1RlBCvaQAAAAAEy",
        "t9pAAAAAAAAAAA=",
    ),
)
