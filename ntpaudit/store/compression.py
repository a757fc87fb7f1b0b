"""Texts as the history stores them: compressed, with what such texts have in common known beforehand."""

import zlib

_COMMON = "".join(
    """\
{"host":{"name":"web1","timezone":"},"taken":{"realtime_ns":17950150,"monotonic_ns":,"raw_ns":,"boottime_ns":
,"width_ns":},"sources":[{"name":","address":","port":123,"outcome":[{"reply":{"leap":0,"stratum":2,"poll":6
,"precision":-2,"root_delay":,"root_dispersion":,"reference_id":","reference":171970,"received":171970
,"transmitted":171970,"warnings":[]},"timestamps":{"sent_ns":17950150,"arrived_ns":17950150
,"before":{"realtime_ns":17950150},"after":{"realtime_ns":17950150},"timestamping":"kernel"},"received_ns":17950150
,"transmitted_ns":17950150,"offset_ns":-,"delay_ns":,"interval":{"earliest_ns":-,"latest_ns":}}],"discarded":{}
,"is_own":false},{"name":"ntp.example.net","kernel":{"state":0"database_clock":{"earliest_s":-,"latest_s":,"age_s":
,"disputed_s":null}
{"schema":"ntpaudit.record/1","software":{"version":"0.","config_sha256":"},"host":{"name":","site":null,"env":null
,"machine_id":","boot_id":"},"time":{"utc":"2026-T:Z","host":"2026-,"boottime_ns":},"kind":"network","age_s":0.0
,"severity":"ok","confirmed":true,"verdict":"within","profile":{"name":"log-integrity","warning_s":0.1
,"critical_s":1.0,"judged_on":"offset"},"offset":{"estimate_s":-0.000,"earliest_s":-0.0,"latest_s":0.0,"bound_s":0.0
,"direction":"behind","max_drift_ppm":50.0},"agreement":{"sources":4,"usable":4,"agreeing":4,"max_falsetickers":1
,"asked":4,"guaranteed":true},"last_poll":{"age_s":,"sources":4,"usable":4,"agreeing":4},"drift":{"frequency_ppm":-0.0
,"raw_frequency_ppm":1,"skew_ppm":0.0,"samples":64,"breach":{"pessimistic_s":null,"central_s":null,"optimistic_s":null
,"guaranteed_s":1,"free_running":true,"calibrated":false},"span_s":},"sources":[],{"name":".example.net","address":"
,"port":123,"status":"agreeing","reason":null,"offset_s":-0.000,"earliest_s":-0.0,"latest_s":0.0,"delay_s":0.0
,"root_delay_s":0.0,"root_dispersion_s":0.0,"root_distance_s":0.0,"stratum":2,"leap":0,"reference_id":"
,"precision_s":9.5367431640625e-07,"timestamping":"kernel","authenticated":false},"kernel":{"available":true
,"synchronised":true,"state":0,"status":8193,"offset_s":-e-05,"frequency_ppm":,"maxerror_s":0.0,"esterror_s":
,"tai_s":37},"daemons":[{"name":"chronyd","pid":,"disciplines":true,"reason":null}],"daemons_hidden":null
,"host_clock":{"timezone":"UTC","zone_offset_s":0,"rtc_local":false,"clocksource":"tsc","container":null}
,"findings":[{"id":","severity":"warning","level":"high","message":","remedy":","controls":["ISO/IEC 27001 A.8.17"
,"PCI DSS 10.6.2","NIST SP 800-53 SC-45"]}],"agent":{"missed":0,"backlog":0,"oldest_s":null,"failures":0
,"failure":null,"set_aside":0,"store":null,"refusals":0,"local_s":60.0},"database_clock":null}""".splitlines()
).encode()
"""An observation and a record with usual values. Never changed, texts are stored in its terms. It halves a history."""

_CLAIMS = "".join(
    """\
"daemons":[{"name":"systemd-timesyncd","pid":,"disciplines":true,"reason":null,"unit":"chrony.service"
,"enabled":"enabled","claim":{"available":true,"boottime_ns":,"is_synchronised":true,"follows":"ntp.example.net"
,"offset_s":-0.000,"bound_s":0.00,"updated_s":,"poll_s":64.0,"stratum":3,"leap":0,"authentication":"none","sources":[]}
,"configuration":null}],"daemons_hidden":null,"time_units":[{"name":"chrony.service","enabled":"enabled","running":true}
],"audit":null,"time_config":null,"cross_check":{"daemon":"chronyd","daemon_offset_s":-0.000,"daemon_bound_s":0.00
,"daemon_excess_s":0.0,"kernel_bound_s":0.0,"kernel_excess_s":0.0},"host_clock":{"timezone":"UTC","zone_offset_s":0
,"controls":[],"numbers":{},"cause":null}]""".splitlines()
).encode()

_DICTIONARIES = (_COMMON, _CLAIMS + _COMMON)
"""Those that stored texts are in terms of; the last one is used now. A new one is added at the end."""

_PRIMED = zlib.compressobj(wbits=13, memLevel=7, zdict=_DICTIONARIES[-1])  # an eighth of the default memory
_BY_HEADER = {zlib.compressobj(wbits=13, memLevel=7, zdict=one).flush()[:6]: one for one in _DICTIONARIES}
"""The dictionaries by the first bytes of the texts, which end in the checksum of the dictionary."""


def pack_text(text: str) -> bytes:
    """Compress a text: zlib's format, with its checksum (RFC 1950)."""
    compressor = _PRIMED.copy()
    return compressor.compress(text.encode()) + compressor.flush()


def unpack_text(value: str | bytes) -> str:
    """Return a text that was stored, compressed or plain. ValueError where it is damaged."""
    if isinstance(value, str):
        return value
    decompressor = zlib.decompressobj(zdict=_BY_HEADER.get(value[:6], _COMMON))
    try:
        data = decompressor.decompress(value)
    except zlib.error as error:
        raise ValueError(f"no text of the history: {error}") from error
    if not decompressor.eof or value[:6] not in _BY_HEADER:
        raise ValueError("no text of the history: it has another dictionary, or breaks off")
    return data.decode()
