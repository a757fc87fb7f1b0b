"""A time-stamp authority (RFC 3161) made of `openssl ts`, with certificates of any kind."""

import datetime
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.world.packages import environment, library, program

_DAY = datetime.timedelta(days=1)
_USAGE = (ExtendedKeyUsageOID.TIME_STAMPING,)
_SETTINGS = """[tsa]
default_tsa = tests
[tests]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
{certificates}
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
{accuracy}
ess_cert_id_alg = sha256
"""
POLICY = "1.2.3.4.1"


class Authority(NamedTuple):
    """An authority: its folder, and the file with the root certificate that clients are to trust."""

    folder: Path
    roots: Path

    def reply(self, query: bytes, ahead: str | None = None) -> bytes:
        """Let `openssl ts` reply to a query, both in DER; a refusal is one too. `ahead` shifts its clock: `-60h`."""
        asked, answered = self.folder / "query.tsq", self.folder / "reply.tsr"
        asked.write_bytes(query)
        config = str(self.folder / "tsa.cnf")
        _openssl("ts", "-reply", "-config", config, "-queryfile", str(asked), "-out", str(answered), ahead=ahead)
        return answered.read_bytes()

    def signed(self, reply: bytes) -> bytes:
        """Return the statement of another authority's reply, signed by this one, which need not be allowed to."""
        paths = {name: str(self.folder / name) for name in ("other.tsr", "token", "info", "signed")}
        Path(paths["other.tsr"]).write_bytes(reply)
        _openssl("ts", "-reply", "-in", paths["other.tsr"], "-token_out", "-out", paths["token"])
        inform = ["-inform", "DER", "-in", paths["token"], "-out", paths["info"]]
        _openssl("cms", "-verify", "-noverify", "-binary", *inform)
        signer = ["-signer", str(self.folder / "signer.pem"), "-inkey", str(self.folder / "signer.key")]
        how = ["-binary", "-nodetach", "-cades", "-md", "sha256", "-econtent_type", "1.2.840.113549.1.9.16.1.4"]
        _openssl("cms", "-sign", *how, *signer, "-in", paths["info"], "-outform", "DER", "-out", paths["signed"])
        token = Path(paths["signed"]).read_bytes()
        length = (len(token) + 5).to_bytes(2)
        return b"\x30\x82" + length + b"\x30\x03\x02\x01\x00" + token


def authority(
    folder: Path,
    *,
    days: tuple[int, int] = (-1, 1),
    usage: Sequence[x509.ObjectIdentifier] = _USAGE,
    has_intermediate: bool = False,
    digests: str = "sha256, sha512",
    accuracy: str = "accuracy = secs:1, millisecs:500, microsecs:100",
) -> Authority:
    """Make an authority; the signer's certificate is valid from the first of `days` after now to the second."""
    folder.mkdir()
    root_key, middle_key, signer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    top = f"Root {folder.name}"
    root = _certificate(top, root_key, top, root_key)
    issuer, issuer_key = ("Test middle", middle_key) if has_intermediate else (top, root_key)
    signer = _certificate("Test time stamps", signer_key, issuer, issuer_key, days, usage)
    (folder / "root.pem").write_bytes(root)
    (folder / "signer.pem").write_bytes(signer)
    (folder / "middle.pem").write_bytes(_certificate("Test middle", middle_key, top, root_key))
    (folder / "signer.key").write_bytes(signer_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "serial").write_text("1000")
    certificates = f"certs = {folder}/middle.pem" if has_intermediate else ""
    settings = {"folder": folder, "certificates": certificates, "digests": digests, "accuracy": accuracy}
    (folder / "tsa.cnf").write_text(_SETTINGS.format(**settings))
    return Authority(folder, folder / "root.pem")


def openssl_verifies(reply: bytes, data: bytes, roots: Path) -> bool:
    """Return whether `openssl ts` finds a reply valid now, for these data and roots; it writes beside the roots."""
    stamped, answered = roots.parent / "data", roots.parent / "to-verify.tsr"
    stamped.write_bytes(data)
    answered.write_bytes(reply)
    command = ["ts", "-verify", "-in", str(answered), "-data", str(stamped), "-CAfile", str(roots)]
    return _run(*command).returncode == 0


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: tuple[int, int] = (-30, 30),
    usage: Sequence[x509.ObjectIdentifier] | None = None,
) -> bytes:
    """Return a certificate in PEM; without a usage, of an authority that signs others."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.BasicConstraints(usage is None, None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=True)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _openssl(*words: str, ahead: str | None = None) -> None:
    faked = {"LD_PRELOAD": str(library("libfaketime.so.1")), "FAKETIME": ahead} if ahead else {}
    done = _run(*words, **faked)
    if done.returncode:
        raise AssertionError(done.stderr.decode(errors="replace"))


def _run(*words: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    command = [str(program("openssl")), *words]
    return subprocess.run(command, capture_output=True, check=False, env={**environment(), **variables})
