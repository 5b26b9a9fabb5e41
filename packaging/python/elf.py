"""What a program asks of the system that it is started on."""

import re
import struct

# The numbers of the ELF header, and the names that the kernel (`uname -m`) and Debian have for the architecture.
MACHINES = {62: ("x86_64", "amd64"), 183: ("aarch64", "arm64")}


class NotAProgram(ValueError):
    """A file is no program for Linux on an architecture that packages are made for."""


def architecture(path):
    """The architecture of a program, as the kernel and as Debian call it."""
    with open(path, "rb") as file:
        header = file.read(20)
    if header[:6] != b"\x7fELF\x02\x01":
        raise NotAProgram(f"{path} is not a 64-bit ELF file")
    machine = struct.unpack("<H", header[18:20])[0]
    if machine not in MACHINES:
        raise NotAProgram(f"{path} is for the machine {machine}; known are x86-64 and arm64")
    return MACHINES[machine]


def libc(path):
    """The oldest version of glibc that has every symbol a program asks for, as a pair of numbers."""
    with open(path, "rb") as file:
        found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", file.read())
    if not found:
        raise NotAProgram(f"{path} asks for no symbol of glibc: it is linked statically or with another C library")
    return max((int(major), int(minor)) for major, minor in found)
