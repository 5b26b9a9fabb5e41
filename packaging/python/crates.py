"""The crates in a program, from cargo's own description of them."""

import json

from workspace import ROOT, output


def linked(program, target):
    """The packages that are linked into a program, without this project's own.

    Build scripts, procedural macros and crates for tests are left out: nothing of them is in the program.
    """
    described = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target,
                                  cwd=ROOT))
    packages = {(package["name"], package["version"]): package for package in described["packages"]}
    tree = output("cargo", "tree", "--locked", "--package", program, "--target", target,
                  "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}", cwd=ROOT)
    names = sorted({tuple(line.split()[:2]) for line in tree.splitlines()})
    found = [packages[name, version.removeprefix("v")] for name, version in names]
    return [package for package in found if package["source"] is not None]
