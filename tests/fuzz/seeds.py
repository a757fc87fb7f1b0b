"""Octets for each target that it reads to the end: what the daemons and servers sent."""

import json
import struct

from ntpaudit.probes.daemons.chrony_protocol import AUTH_DATA, N_SOURCES, SOURCE_DATA, SOURCE_NAME, TRACKING, Question
from tests.fuzz.targets import ROUGHTIME_REQUEST, joined
from tests.probes import test_dbus, test_mode6, test_ntpd_rs, test_openntpd
from tests.world.roughtime_server import new_signer

_PLACE = b"\x7f\x00\x00\x02" + bytes(12) + b"\x00\x01" + bytes(2)  # 127.0.0.2
_TIME = (0, 1_796_000_000, 0)
_CHRONY = (
    (TRACKING, b"", (_PLACE[:4], _PLACE, 3, 0, *_TIME, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
    (N_SOURCES, b"", (1,)),
    (SOURCE_DATA, bytes(4), (_PLACE, 6, 2, 0, 0, 0, 255, 3, 1, 2, 3)),
    (SOURCE_NAME, _PLACE, (b"ntp1.example.net",)),
    (AUTH_DATA, _PLACE, (2,)),
)


def _reply(question: Question, fields: tuple[object, ...]) -> bytes:
    return struct.pack("!4B6H3I", 6, 2, 0, 0, question.command, question.reply, *[0] * 7) + question.layout.pack(
        *fields
    )


def _asked(daemon: test_mode6.Daemon, *queries: tuple[int, int]) -> bytes:
    parts = []
    for sequence, (operation, association) in enumerate(queries, 1):
        parts += daemon.reply(struct.pack("!BBHHHHH", 0x16, operation, sequence, 0, association, 0, 0))
    return joined(*parts)


SEEDS: dict[str, tuple[bytes, ...]] = {
    "chronyd": (joined(*(_reply(question, fields) for question, _, fields in _CHRONY)),),
    "chrony-service": (
        struct.pack("!I", 1)
        + b"".join(
            struct.pack("!HH", len(data), len(reply := _reply(question, fields))) + data + reply
            for question, data, fields in _CHRONY
        ),
    ),
    "mode6": (
        _asked(test_mode6.Daemon(test_mode6.NTPSEC, {17767: 0xB61A}), (2, 0), (1, 0), (2, 17767)),
        _asked(test_mode6.Daemon(test_mode6.CLASSIC, {56725: 0x961A}), (2, 0), (1, 0), (2, 56725)),
    ),
    "ntpd-rs": tuple(json.dumps(one).encode() for one in (test_ntpd_rs.REPORT_1_4, test_ntpd_rs.REPORT_1_9)),
    "openntpd": tuple(one.encode() for one in (test_openntpd.REPORT, test_openntpd.UNSYNCHRONISED)),
    "roughtime": (
        new_signer().reply(ROUGHTIME_REQUEST),
        new_signer().reply(ROUGHTIME_REQUEST, [bytes([number]) for number in range(20)], 9),
    ),
    "timesyncd": (test_dbus.REAL,),
}
