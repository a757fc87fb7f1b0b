"""What findings bear on: the clauses of standards, and techniques of attackers, with how sure we are of each.

A rule has their names. Nothing here is legal advice.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Certainty = Literal["verified", "secondary", "unverified"]

NO_NUMBER = "states no number: the tolerance is set by your organisation"


class Control(NamedTuple):
    """A clause: how sure we are of it, the number that it states, and what else a reader must know."""

    certainty: Certainty
    states: str = ""
    note: str = ""


class Technique(NamedTuple):
    """A technique of an attacker: its name, the version of the catalogue it was checked in, and its limits."""

    name: str
    version: str
    note: str = ""


ISO = "ISO/IEC 27001 A.8.17"
ISO_GUIDE = "ISO/IEC 27002 8.17"
NIS2 = "NIS2 2024/2690 3.2.6"
PCI = "PCI DSS 10.6.2"
PCI_CHANGES = "PCI DSS 10.6.3"
PCI_REVIEWS = "PCI DSS 10.6.3.b"
PCI_FAILURES = "PCI DSS 10.7.3"
PCI_REVIEW = "PCI DSS 10.4"
AU8 = "NIST SP 800-53 AU-8"
AU12 = "NIST SP 800-53 AU-12"
SC45 = "NIST SP 800-53 SC-45"
SC45_REGIONS = "NIST SP 800-53 SC-45(2)"
FEDRAMP = "FedRAMP SC-45"
FEDRAMP_COMPARE = "FedRAMP SC-45(1)"
FINRA = "FINRA 4590"
FINRA_ERRORS = "FINRA 4590(b)"
RTS25 = "RTS 25 Art. 4"
ETSI = "ETSI EN 319 421"
DORA = "DORA RTS 2024/1774 Art. 12(2)(f)"
CERT_IN = "CERT-In Directions 2022"
SRG_NTS = "DISA SRG-OS-000480"
STIG_COMPARE = "DISA STIG V-257945"
STIG_TIMESYNCD = "DISA STIG V-270645"
CIS_TWO = "CIS Controls 8.4"
CIS_THREE = "CIS Controls v7 6.1"
CIS_SOURCES = "CIS Benchmark 2.3"
CIS_DAEMON = "CIS Benchmark 2.3.1.1"
CIS_AUDIT = "CIS Benchmark 6.3.3.4"
ASVS = "OWASP ASVS 16.2.2"
SOC2 = "SOC 2 CC7"
ITM_TIME = "Insider Threat Matrix AF032"

CONTROLS: Mapping[str, Control] = {
    ISO: Control("verified", NO_NUMBER),
    ISO_GUIDE: Control("verified", NO_NUMBER, "for cloud services the difference of clocks is to be recorded"),
    NIS2: Control("verified", NO_NUMBER, "synchronised time sources, to the extent feasible"),
    PCI: Control("verified", NO_NUMBER, "internal systems get time only from designated servers"),
    PCI_CHANGES: Control("verified", note="changes of time settings are logged, monitored and reviewed"),
    PCI_REVIEWS: Control("verified", note="how these changes are logged, monitored and reviewed is examined"),
    PCI_FAILURES: Control("verified", note="failures are recorded with cause, duration and repair"),
    PCI_REVIEW: Control("unverified", note="audit logs are reviewed"),
    AU8: Control("verified", NO_NUMBER),
    AU12: Control("unverified", note="audit records of the events that the organisation selects"),
    SC45: Control("verified", NO_NUMBER),
    SC45_REGIONS: Control("verified", note="a second source in another region"),
    FEDRAMP: Control("verified", note="primary and secondary NIST servers in different regions"),
    FEDRAMP_COMPARE: Control("verified", "compare at least every hour; correct any difference"),
    FINRA: Control("verified", "50 ms for computer clocks that record orders, else 1 s; checked every business day"),
    FINRA_ERRORS: Control("verified", "50 ms, which include the errors of the source, of the network and of the drift"),
    RTS25: Control(
        "verified",
        note="traceability to UTC, reviewed every year; repealed from 2 March 2026 (from a secondary source)",
    ),
    ETSI: Control("verified", "1 s or better"),
    DORA: Control("verified", NO_NUMBER, "a documented reliable reference time source"),
    CERT_IN: Control("secondary", note="servers of NIC or NPL, or servers traceable to them"),
    SRG_NTS: Control("verified", note="NTS in chrony.conf; by ComplianceAsCode's rule chrony_set_nts for RHEL 10"),
    STIG_COMPARE: Control("verified", "compare at least every 24 h"),
    STIG_TIMESYNCD: Control("verified", note="Ubuntu 24.04: systemd-timesyncd must not be installed"),
    CIS_TWO: Control("verified", "at least 2 time sources"),
    CIS_THREE: Control("verified", "at least 3 time sources"),
    CIS_SOURCES: Control("unverified", note="authorised time servers; the number differs by benchmark"),
    CIS_DAEMON: Control(
        "verified", note="one time daemon; benchmarks of other systems than Debian 11 may number it otherwise"
    ),
    CIS_AUDIT: Control(
        "secondary",
        note="changes of date and time are audited; the rules are verified, the number is 4.1.3.4 or 6.2.3.4 elsewhere",
    ),
    ASVS: Control("verified", NO_NUMBER),
    SOC2: Control("unverified"),
}
"""Every clause that a rule names."""

ATTACK_TIMESTOMP = "MITRE ATT&CK T1070.006"
ATTACK_IMPAIR = "MITRE ATT&CK T1562"
ITM_TIME_LINUX = "Insider Threat Matrix AF032.002"
ITM_AUDIT_CLOCK = "Insider Threat Matrix DT156"
ITM_AUDIT_ZONE = "Insider Threat Matrix DT157"

TECHNIQUES: Mapping[str, Technique] = {
    ITM_TIME: Technique("System Time Modification", "as of 2026-05-04"),
    ITM_TIME_LINUX: Technique("Linux System Time Modification", "as of 2026-05-04"),
    ITM_AUDIT_CLOCK: Technique("detection: auditd rules for the clock", "as of 2026-05-04"),
    ITM_AUDIT_ZONE: Technique("detection: auditd rule for /etc/localtime", "as of 2026-05-04"),
    ATTACK_TIMESTOMP: Technique(
        "Timestomp", "version 16.1", "defined for timestamps of files, and used for a changed clock by convention only"
    ),
    ATTACK_IMPAIR: Technique(
        "Impair Defenses",
        "version 18",
        "in version 19 partly T1685 (from a secondary source, not verified)",
    ),
}
"""Every technique that a rule names."""

CERTAINTY: Mapping[Certainty, str] = {
    "verified": "verified in the rule text or a quotation",
    "secondary": "from a secondary source",
    "unverified": "not verified",
}
"""How sure we are of a clause, in words."""
