"""Whether what is installed is what the locks say. Run: python -m docs.audit [--offline]

1. Every package of the locks has one version and hashes.
2. Every dependency of pyproject.toml is in the lock, within its bounds.
3. What is installed is what the lock says.
4. Licences are known and accepted.
5. Images and jars have versions.
6. OSV (https://osv.dev) is asked for known vulnerabilities of the locked versions.

1 to 5 need no network, and fail the audit. When OSV cannot be asked, the audit says so and does not fail.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from docs import licences
from docs.licences import ROOT, locked, normal

OSV = "https://api.osv.dev/v1/querybatch"
OSV_TIMEOUT_S = 30.0
LOCKS = tuple(ROOT / "requirements" / f"{name}.txt" for name in ("run", "dev"))
IMAGE = re.compile(r"^(?:FROM|\s*image:) +(\S+)", re.MULTILINE)
DEPENDENCIES = "{*}dependencies/{*}dependency"
OWN_IMAGE = "credits-ledger:"


def lock_faults(lock: Path) -> list[str]:
    """Lines of a lock that are not a package with one version and its hashes."""
    wrong = []
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip()):
        first = block.splitlines()[0]
        if not licences.LOCKED.match(first):
            wrong.append(f"{lock.name}: {first!r} has no single version")
        elif not re.search(r"--hash=sha256:[0-9a-f]{64}\b", block):
            wrong.append(f"{lock.name}: {first.split()[0]} has no hash")
    return wrong


def missing(project: str, lock: Path, extra: str = "") -> list[str]:
    """Dependencies of pyproject.toml that the lock does not have, or in another version."""
    table = tomllib.loads(project)["project"]
    wanted = [*table["dependencies"], *(table["optional-dependencies"][extra] if extra else [])]
    have: dict[str, list[str]] = {}
    for name, version, _ in locked(lock):
        have.setdefault(name, []).append(version)
    return [
        f"{lock.name}: {each} is not in it: run `make lock`"
        for each in map(Requirement, wanted)
        if not any(each.specifier.contains(version, prereleases=True) for version in have.get(normal(each.name), []))
    ]


def differing(lock: Path) -> list[str]:
    """Installed packages whose version the lock does not have."""
    versions: dict[str, set[str]] = {}
    for name, version, _ in locked(lock):
        versions.setdefault(name, set()).add(version)
    wrong = []
    for name, wanted in versions.items():
        try:
            found = distribution(name).version
        except PackageNotFoundError:
            continue  # for another system or Python
        if found not in wanted:
            wanted_versions = " or ".join(sorted(wanted))
            wrong.append(f"{name} {found} is installed, {lock.name} says {wanted_versions}: run `make install`")
    return wrong


def images() -> tuple[list[str], list[str]]:
    """Images without a version; images with a version and without a digest."""
    found = {
        image
        for name in ("Dockerfile", "docker-compose.yml")
        for image in IMAGE.findall((ROOT / name).read_text(encoding="utf-8"))
        if not image.startswith(OWN_IMAGE)
    }
    unpinned = [each for each in found if not re.search(r":[^/:@]*\d[^/:@]*(@sha256:[0-9a-f]{64})?$", each)]
    return sorted(unpinned), sorted(each for each in found if "@sha256:" not in each)


def jars() -> list[str]:
    """Dependencies of the pom without a version of their own."""
    pom = ElementTree.parse(ROOT / "streams" / "local" / "pom.xml").getroot()
    managed = {each.findtext("{*}artifactId") for each in pom.iterfind(".//{*}dependencyManagement//{*}dependency")}
    own = {each.findtext("{*}artifactId"): each.findtext("{*}version") for each in pom.iterfind(DEPENDENCIES)}
    return [f"pom.xml: {name} has no version" for name, version in own.items() if not version and name not in managed]


def vulnerable(url: str = OSV) -> list[str]:
    """Locked versions with a known vulnerability. Raises OSError or ValueError when nobody answers."""
    names = sorted({(name, version) for lock in LOCKS for name, version, _ in locked(lock)})
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in names]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=OSV_TIMEOUT_S) as answer:
        results = json.load(answer)["results"]
    return [
        f"{name} {version}: {', '.join(each['id'] for each in found['vulns'])}"
        for (name, version), found in zip(names, results, strict=True)
        if found.get("vulns")
    ]


def offline_faults() -> list[str]:
    """Everything that can be checked without asking anybody."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    run, dev = LOCKS
    found = [fault for lock in LOCKS for fault in lock_faults(lock)]
    found += missing(project, run) + missing(project, dev, "dev") + differing(dev)
    found += licences.faults(licences.packages()) + [f"image {each} has no version" for each in images()[0]] + jars()
    return found


def main(arguments: list[str]) -> int:
    """The exit status."""
    faults = offline_faults()
    unasked = []
    if "--offline" in arguments:
        unasked.append("known vulnerabilities: not asked for (--offline)")
    else:
        try:
            faults += vulnerable()
        except (OSError, ValueError, KeyError) as error:
            unasked.append(f"known vulnerabilities: OSV cannot be asked ({error})")
    by_name = images()[1]
    if by_name:
        unasked.append(f"images are named by version and not by digest: {', '.join(by_name)}")
    for each in faults:
        print(f"fault        {each}")
    for each in unasked:
        print(f"not checked  {each}")
    print(f"{len(locked(LOCKS[1]))} packages with hashes, {len(licences.packages())} licences, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
