"""The software bill of materials of a program, in the format of CycloneDX 1.5: what is linked into it, and nothing else."""

import datetime
import json
import re
import uuid

import crates
from workspace import ROOT


def checksums():
    """The SHA-256 of each crate's source, by name and version, from Cargo.lock."""
    text = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    pattern = r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = [^\n]+\nchecksum = "([0-9a-f]{64})"'
    return {(name, version): digest for name, version, digest in re.findall(pattern, text)}


def component(package, digests):
    name, version = package["name"], package["version"]
    purl = f"pkg:cargo/{name}@{version}"
    entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if (name, version) in digests:
        entry["hashes"] = [{"alg": "SHA-256", "content": digests[name, version]}]
    if package["license"]:
        # Older crates separate a choice of licences by a slash.
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def document(program, version, target, mtime):
    """The document as text; equal inputs give equal bytes."""
    digests = checksums()
    components = [component(package, digests) for package in crates.linked(program, target)]
    purl = f"pkg:generic/{program}@{version}?target={target}"
    unique = uuid.uuid5(uuid.NAMESPACE_URL, purl + json.dumps(components))
    when = datetime.datetime.fromtimestamp(mtime, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{unique}",
        "version": 1,
        "metadata": {
            "timestamp": when,
            "component": {
                "type": "application", "bom-ref": purl, "name": program, "version": version, "purl": purl,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": purl, "dependsOn": [entry["bom-ref"] for entry in components]}],
    }, indent=1) + "\n"
