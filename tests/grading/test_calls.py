"""Numbers of system calls against the kernel's own headers, where they are installed (Debian: linux-libc-dev)."""

import re
from pathlib import Path

import pytest

from fusion.grading.sandbox import calls

INCLUDE = Path("/usr/include")
HEADERS = {
    "x86_64": [INCLUDE / "x86_64-linux-gnu/asm/unistd_64.h", INCLUDE / "asm/unistd_64.h"],
    "aarch64": [INCLUDE / "asm-generic/unistd.h"],  # that of arm64 includes it
}


def definitions(file):
    """Names and numbers that a header defines."""
    if not file.is_file():
        pytest.skip(f"{file} is not installed")
    found = re.findall(r"#define\s+(\w+)\s+(0[xX]\w+|[1-9]\d*|0)\b", file.read_text())
    return {name: int(number, 0) for name, number in found}


def header(machine):
    """Numbers of an architecture's calls by name."""
    file = next((file for file in HEADERS[machine] if file.is_file()), HEADERS[machine][0])
    found = {
        re.sub("^__NR(?:3264)?_", "", name): number for name, number in definitions(file).items() if "__NR" in name
    }
    return {name: number for name, number in found.items() if name != "syscalls"}


@pytest.fixture(params=sorted(calls.ARCHITECTURES))
def machine(request):
    return request.param


def test_every_number_is_that_of_the_kernels_table(machine):
    numbers, ours = header(machine), calls.ARCHITECTURES[machine]
    named = ours.forbidden | {"clone": ours.clone, "fcntl": ours.fcntl, "clone3": calls.CLONE3}
    newest = max(numbers.values())  # a header knows no later calls than those of its own kernel
    assert len(numbers) > 250
    assert {name: number for name, number in named.items() if numbers.get(name) != number and number <= newest} == {}


def test_no_call_is_forbidden_on_one_machine_alone_that_others_have(machine):
    everywhere = set.union(*(set(each.forbidden) for each in calls.ARCHITECTURES.values()))
    assert everywhere & set(header(machine)) - set(calls.ARCHITECTURES[machine].forbidden) == set()


def test_the_machines_are_called_as_the_kernel_calls_them(machine):
    numbers = definitions(INCLUDE / "linux/elf-em.h")
    marks = 0x80000000 | 0x40000000  # 64 bits, little-endian
    assert calls.ARCHITECTURES[machine].audit_number == numbers[f"EM_{machine.upper()}"] | marks


def test_commands_of_fcntl_that_have_signals_sent_are_forbidden():
    numbers = definitions(INCLUDE / "asm-generic/fcntl.h")
    assert set(calls.FCNTL_FORBIDDEN) == {numbers[name] for name in ("F_SETOWN", "F_SETSIG", "F_SETOWN_EX")}
