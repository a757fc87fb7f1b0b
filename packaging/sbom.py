"""Write the bill of materials: `python packaging/sbom.py [--output dist]`, CycloneDX 1.6 in JSON.

It lists the contents of the package and of `make install`, from their lock, requirements.txt. Two runs on the same
commit give the same file.
"""

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from deb import REPOSITORY, REQUIREMENTS, build_requirements, package_version, source_epoch
from packageurl import PackageURL

_PIN = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M
)
_DIGEST = re.compile("[0-9a-f]{64}")


def main() -> None:
    """Write the file and print where it is."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="the folder to write to")
    print(write(options.parse_args().output))


def write(output: Path) -> Path:
    """Write the bill of materials into a folder, and return its path. SystemExit where it would not be a valid one."""
    text = JsonV1Dot6(_bom()).output_as_string(indent=2)
    if (fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise SystemExit(f"this is no CycloneDX: {fault}")
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"ntpaudit-{package_version()}.cdx.json"
    path.write_text(text + "\n")
    return path


def _bom() -> Bom:
    """Return what there is, with the program at its root."""
    program = Component(
        name="ntpaudit",
        version=package_version(),
        type=ComponentType.APPLICATION,
        bom_ref="ntpaudit",
        purl=PackageURL("generic", name="ntpaudit", version=package_version()),
        licenses=[DisjunctiveLicense(id="MIT")],
    )
    parts = list(_parts())
    bom = Bom(
        components=parts, serial_number=uuid5(NAMESPACE_URL, f"ntpaudit {package_version()} {REQUIREMENTS.read_text()}")
    )
    bom.metadata.timestamp = datetime.fromtimestamp(source_epoch(), UTC)
    bom.metadata.component = program
    bom.register_dependency(program, [part for part in parts if part.scope is ComponentScope.REQUIRED])
    return bom


def _parts() -> Iterator[Component]:
    """Return every pinned package; one that only builds the program is no part of it."""
    builders = {re.split(r"[<>=!~ ]", wanted)[0].lower() for wanted in build_requirements()}
    for pin in _PIN.finditer(REQUIREMENTS.read_text()):
        name, number = pin["name"], pin["version"]
        yield Component(
            name=name,
            version=number,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}@{number}",
            purl=PackageURL("pypi", name=name, version=number),
            scope=ComponentScope.EXCLUDED if name in builders else ComponentScope.REQUIRED,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in _DIGEST.findall(pin["hashes"])],
        )


if __name__ == "__main__":
    main()
