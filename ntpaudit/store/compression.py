"""Texts as the history stores them: compressed, with what such texts have in common known beforehand."""

import zlib

_COMMON = (
    '[{"id":"unsynced","severity":"warning","level":"high","message":"the kernel says that its clock is not synchroni'
    'sed, and no time daemon steers it: at 50 ppm it is 1 s off in 5.6 h","remedy":"let exactly one time daemon run, '
    'and let it reach its servers on UDP 123","controls":["ISO/IEC 27001 A.8.17","PCI DSS 10.6.2","NIST SP 800-53 AU-'
    '8","NIST SP 800-53 SC-45"]},{"id":"daemon-count","severity":"warning","level":"medium","message":"no time daemon'
    ' steers this clock: nothing corrects it","remedy":"enable exactly one time daemon and mask the others","controls'
    '":["CIS Benchmark 2.3.1.1","DISA STIG V-270645"]},{"id":"source-quorum","severity":"ok","level":"low","message":'
    '"2 sources: it takes 4 to outvote one that is wrong (RFC 8633, section 3.2)","remedy":"name at least 4 servers t'
    'hat do not depend on each other, in two places","controls":["CIS Controls 8.4","NIST SP 800-53 SC-45(2)","FedRAM'
    'P SC-45"]},{"id":"unreachable-sources","severity":"ok","level":"low","message":"1 of 3 sources did not answer: n'
    'tp4.example.net (timeout)","remedy":"check names, routes and firewalls (UDP 123 out), or drop servers that are g'
    'one","controls":["PCI DSS 10.6.2","CIS Controls 8.4"]}]{"host":{"name":"web1","machine_id":"9acd8acde5f6db1d76b6'
    '745180b65386","boot_id":"efb6fbfe8de4ab47558298e214b044d7","timezone":"Europe/Amsterdam","zone_offset_s":3600,"r'
    'tc_local":false,"clocksource":"tsc","container":null},"taken":{"realtime_ns":1795015000703668545,"monotonic_ns":'
    '1015000542384065,"raw_ns":1015000357829892,"boottime_ns":1015000542384065,"width_ns":63},"sources":[{"name":"ntp'
    '1.example.net","address":"192.0.2.11","port":123,"outcome":[{"reply":{"leap":0,"stratum":1,"poll":6,"precision":'
    '-21,"root_delay":232,"root_dispersion":467,"reference_id":"47505300","reference":17197065105547410824,"received"'
    ':17197065375360380479,"transmitted":17197065375360474053,"warnings":[]},"stamps":{"sent_ns":1795015000302116790,'
    '"arrived_ns":1795015000303658945,"before":{"realtime_ns":1795015000302123615,"monotonic_ns":1015000140839135,"ra'
    'w_ns":1014999956284962,"boottime_ns":1015000140839135,"width_ns":164},"after":{"realtime_ns":1795015000303668545'
    ',"monotonic_ns":1015000142384065,"raw_ns":1014999957829892,"boottime_ns":1015000142384065,"width_ns":191},"times'
    'tamping":"kernel"},"received_ns":1795015000302832499,"transmitted_ns":1795015000302854285,"offset_ns":-44476,"de'
    'lay_ns":1520369,"interval":{"earliest_ns":-9724170,"latest_ns":9635219}}],"discarded":{},"is_own":false},{"name"'
    ':"ntp2.example.net","address":"198.51.100.7","port":123,"outcome":[{"reply":{"leap":0,"stratum":2,"poll":6,"prec'
    'ision":-21,"root_delay":277,"root_dispersion":1002,"reference_id":"0a000103","reference":17197065353735737206,"r'
    'eceived":17197065375339644007,"transmitted":17197065375339748908,"warnings":[]},"stamps":{"sent_ns":179501500029'
    '2452065,"arrived_ns":1795015000303650248,"before":{"realtime_ns":1795015000292454738,"monotonic_ns":101500013117'
    '0258,"raw_ns":1014999946616085,"boottime_ns":1015000131170258,"width_ns":159},"after":{"realtime_ns":17950150003'
    '03668545,"monotonic_ns":1015000142384065,"raw_ns":1014999957829892,"boottime_ns":1015000142384065,"width_ns":128'
    '},"timestamping":"kernel"},"received_ns":1795015000298004413,"transmitted_ns":1795015000298028837,"offset_ns":-3'
    '4532,"delay_ns":11173759,"interval":{"earliest_ns":-23048146,"latest_ns":22979083}}],"discarded":{},"is_own":fal'
    'se}],"kernel":{"state":0,"status":8193,"offset_s":1.1763102115845389e-05,"frequency_ppm":12.223341885440748,"max'
    'error_s":0.07115160697754137,"esterror_s":4.952902958728036e-05,"tai_s":37},"daemons":[{"name":"chronyd","pid":8'
    '12,"disciplines":true}]}{"schema":"ntpaudit.record/1","software":{"version":"0.2.0","config_sha256":"569c803601a'
    '5ba50ad38835eddd6ff552fa73207237751aa4462ebfc5f915ef0"},"host":{"name":"web1","site":"ams","env":"prod","machine'
    '_id":"9acd8acde5f6db1d76b6745180b65386","boot_id":"efb6fbfe8de4ab47558298e214b044d7"},"time":{"utc":"2026-11-18T'
    '15:16:40.703627016Z","host":"2026-11-18T15:16:40.703668545Z","boottime_ns":1015000542384065},"kind":"network","a'
    'ge_s":0.0,"severity":"ok","confirmed":true,"verdict":"within","profile":{"name":"log-integrity","warning_s":0.1,'
    '"critical_s":1.0,"judged_on":"offset"},"offset":{"estimate_s":-4.1529e-05,"earliest_s":-0.009744424,"latest_s":0'
    '.009655473,"bound_s":0.009744424,"direction":"ahead"},"agreement":{"sources":2,"usable":2,"agreeing":2,"tolerate'
    'd_liars":0},"drift":{"frequency_ppm":0.07852294244744584,"raw_frequency_ppm":12.301864827888194,"skew_ppm":0.002'
    '2167598166559516,"samples":51,"breach":{"pessimistic_s":null,"central_s":null,"optimistic_s":null,"guaranteed_s"'
    ':19805.111520000002,"free_running":true,"calibrated":false}},"sources":[{"name":"ntp1.example.net","address":"19'
    '2.0.2.11","port":123,"status":"agreeing","reason":null,"offset_s":-4.4476e-05,"earliest_s":-0.009744424,"latest_'
    's":0.009655473,"delay_s":0.001520369,"root_delay_s":0.0035400390625,"root_dispersion_s":0.0071258544921875,"root'
    '_distance_s":0.009679695,"stratum":1,"leap":0,"reference_id":"GPS","precision_s":4.76837158203125e-07,"timestamp'
    'ing":"kernel","authenticated":false},{"name":"ntp2.example.net","address":"198.51.100.7","port":123,"status":"ag'
    'reeing","reason":null,"offset_s":-3.4532e-05,"earliest_s":-0.023068337,"latest_s":0.022999274,"delay_s":0.011173'
    '759,"root_delay_s":0.0042266845703125,"root_dispersion_s":0.015289306640625,"root_distance_s":0.023013615,"strat'
    'um":2,"leap":0,"reference_id":"10.0.1.3","precision_s":4.76837158203125e-07,"timestamping":"kernel","authenticat'
    'ed":false}],"kernel":{"available":true,"synchronised":true,"state":0,"status":8193,"offset_s":1.1763102115845389'
    'e-05,"frequency_ppm":12.223341885440748,"maxerror_s":0.07115160697754137,"esterror_s":4.952902958728036e-05,"tai'
    '_s":37},"daemons":[{"name":"chronyd","pid":812,"disciplines":true}],"host_clock":{"timezone":"Europe/Amsterdam",'
    '"zone_offset_s":3600,"rtc_local":false,"clocksource":"tsc","container":null},"findings":[{"id":"source-quorum","'
    'severity":"ok","level":"low","message":"2 sources: it takes 4 to outvote one that is wrong (RFC 8633, section 3.'
    '2)","remedy":"name at least 4 servers that do not depend on each other, in two places","controls":["CIS Controls'
    ' 8.4","NIST SP 800-53 SC-45(2)","FedRAMP SC-45"]}],"agent":{"missed":0,"backlog":0,"oldest_s":null,"failures":0,'
    '"failure":null,"set_aside":0,"store":null}}{"schema":"ntpaudit.record/1","software":{"version":"0.2.0","config_s'
    'ha256":"569c803601a5ba50ad38835eddd6ff552fa73207237751aa4462ebfc5f915ef0"},"host":{"name":"web1","site":"ams","e'
    'nv":"prod","machine_id":"9acd8acde5f6db1d76b6745180b65386","boot_id":"efb6fbfe8de4ab47558298e214b044d7"},"time":'
    '{"utc":"2026-11-18T15:17:41.413009363Z","host":"2026-11-18T15:17:41.413008287Z","boottime_ns":1015061251723807},'
    '"kind":"local","age_s":60.696575487,"severity":"ok","confirmed":true,"verdict":"within","profile":{"name":"log-i'
    'ntegrity","warning_s":0.1,"critical_s":1.0,"judged_on":"offset"},"offset":{"estimate_s":1.076e-06,"earliest_s":-'
    '0.030252108,"latest_s":0.02874596,"bound_s":0.030252108,"direction":"behind"},"agreement":{"sources":3,"usable":'
    '3,"agreeing":3,"tolerated_liars":0},"drift":{"frequency_ppm":-0.009063289597142088,"raw_frequency_ppm":12.298586'
    '15794261,"skew_ppm":0.00247328780139014,"samples":51,"breach":{"pessimistic_s":null,"central_s":null,"optimistic'
    '_s":null,"guaranteed_s":19470.16988,"free_running":true,"calibrated":false}},"sources":[],"kernel":{"available":'
    'true,"synchronised":true,"state":0,"status":8193,"offset_s":-1.1083815715351647e-05,"frequency_ppm":12.316631975'
    '059524,"maxerror_s":0.03441306703723524,"esterror_s":6.309802606858644e-05,"tai_s":37},"daemons":[{"name":"chron'
    'yd","pid":812,"disciplines":true}],"host_clock":{"timezone":"Europe/Amsterdam","zone_offset_s":3600,"rtc_local":'
    'false,"clocksource":"tsc","container":null},"findings":[{"id":"source-quorum","severity":"ok","level":"low","mes'
    'sage":"3 sources: it takes 4 to outvote one that is wrong (RFC 8633, section 3.2)","remedy":"name at least 4 ser'
    'vers that do not depend on each other, in two places","controls":["CIS Controls 8.4","NIST SP 800-53 SC-45(2)","'
    'FedRAMP SC-45"]}],"agent":{"missed":0,"backlog":0,"oldest_s":null,"failures":0,"failure":null,"set_aside":0,"sto'
    're":null}}{"host":{"name":"web1","machine_id":"9acd8acde5f6db1d76b6745180b65386","boot_id":"efb6fbfe8de4ab475582'
    '98e214b044d7","timezone":"Europe/Amsterdam","zone_offset_s":3600,"rtc_local":false,"clocksource":"tsc","containe'
    'r":null},"taken":{"realtime_ns":1795015061413008287,"monotonic_ns":1015061251723807,"raw_ns":1015061066467194,"b'
    'oottime_ns":1015061251723807,"width_ns":137},"sources":[],"kernel":{"state":0,"status":8193,"offset_s":-1.108381'
    '5715351647e-05,"frequency_ppm":12.316631975059524,"maxerror_s":0.03441306703723524,"esterror_s":6.30980260685864'
    '4e-05,"tai_s":37},"daemons":[{"name":"chronyd","pid":812,"disciplines":true}]}'
)
"""Findings, an observation and records, the commonest last. Never changed: texts are stored in its terms."""

_DICTIONARIES = {zlib.adler32(common): common for common in (_COMMON.encode(),)}
"""By the number that zlib puts into what it compressed. A better one is added here, and the others stay."""

_WINDOW_BITS = 14  # the dictionary and the longest of records fit, at a quarter of the default's memory and set-up
_PRIMED = zlib.compressobj(6, zlib.DEFLATED, _WINDOW_BITS, 7, zdict=_COMMON.encode())


def pack_text(text: str) -> bytes:
    """Compress a text: zlib's format, with its checksum and its dictionary's (RFC 1950)."""
    compressor = _PRIMED.copy()  # priming takes longer than compressing
    return compressor.compress(text.encode()) + compressor.flush()


def unpack_text(value: str | bytes) -> str:
    """Return a text that was stored, compressed or, by an early version, plain. ValueError where it makes no sense.

    Header and checksum are checked here, not by zlib: that takes half the time, for it would also sum the dictionary.
    """
    if isinstance(value, str):
        return value
    try:
        decompressor = zlib.decompressobj(-_WINDOW_BITS, _DICTIONARIES[int.from_bytes(value[2:6], "big")])
        data = decompressor.decompress(value[6:])
    except (KeyError, zlib.error) as error:
        raise ValueError(f"no text of the history: {error}") from error
    checksum = zlib.adler32(data).to_bytes(4, "big")
    if int.from_bytes(value[:2], "big") % 31 or not decompressor.eof or decompressor.unused_data[:4] != checksum:
        raise ValueError("no text of the history: it is damaged or breaks off")
    return data.decode()
