"""The filter of system calls, instruction by instruction, for each machine: what it answers to a call.

A machine runs the filter of its own alone, and the kernel never says what it would have answered to others.
"""

import importlib.util
import struct
import sys
from pathlib import Path

import pytest

from fusion.grading import sandbox
from fusion.grading.sandbox import calls

ALLOW, KILL, NOT_PERMITTED, ABSENT = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
THREAD = 0x00010000
LOAD, JUMP_EQUAL, JUMP_SET, JUMP_GREATER, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
OTHERS = {"x86_64": "aarch64", "aarch64": "x86_64"}


@pytest.fixture
def kernel(monkeypatch):
    """The module as a process of the sandbox imports it, beside `calls`."""
    monkeypatch.setitem(sys.modules, "calls", calls)
    spec = importlib.util.spec_from_file_location("kernel", Path(sandbox.__file__).with_name("kernel.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=sorted(calls.ARCHITECTURES))
def answer(request, kernel):
    """A function of a call's number and arguments (and of another machine's name) that runs the filter."""
    machine = calls.ARCHITECTURES[request.param]

    def run(number, *arguments, audit_number=machine.audit_number):
        data = struct.pack("=IIQ6Q", number, audit_number, 0, *arguments, *[0] * (6 - len(arguments)))
        return run_filter(kernel._filter(machine), data)

    run.machine, run.name = machine, request.param
    return run


def run_filter(program, data):
    """Interpret the instructions of the kernel's packet filter, as far as there are five of them."""
    lines, place, loaded = list(struct.iter_unpack("=HBBI", program)), 0, None
    while True:
        code, if_true, if_false, value = lines[place]
        place += 1
        if code == RETURN:
            return value
        if code == LOAD:
            (loaded,) = struct.unpack_from("=I", data, value)
            continue
        holds = {JUMP_EQUAL: loaded == value, JUMP_SET: bool(loaded & value), JUMP_GREATER: loaded >= value}[code]
        place += if_true if holds else if_false


def test_every_forbidden_call_fails_and_others_go_through(answer):
    forbidden = answer.machine.forbidden
    assert len(forbidden) > 70
    assert {name for name, number in forbidden.items() if answer(number) != NOT_PERMITTED} == set()
    special = {answer.machine.clone, calls.CLONE3, *forbidden.values()}
    assert {number for number in range(500) if number not in special and answer(number) != ALLOW} == set()


def test_threads_may_be_started_and_processes_not(answer):
    assert answer(answer.machine.clone, THREAD | 0x3D0F00) == ALLOW
    assert answer(answer.machine.clone, 17) == NOT_PERMITTED
    assert answer(calls.CLONE3, 1, 88) == ABSENT  # so that libc takes clone, whose flags can be seen


def test_fcntl_may_not_have_signals_sent(answer):
    assert {command for command in range(20) if answer(answer.machine.fcntl, 3, command) == NOT_PERMITTED} == {
        8,
        10,
        15,
    }


def test_calls_by_the_numbers_of_another_machine_end_the_process(answer):
    others = calls.ARCHITECTURES[OTHERS[answer.name]]
    assert answer(0, audit_number=others.audit_number) == KILL
    assert answer(0, audit_number=0x40000003) == KILL  # i386, which an x86-64 process can call by int 0x80
    assert answer(0x40000000 + 57) == KILL  # fork of the x32 interface


def test_two_connected_streams_of_this_machine_are_the_only_sockets(answer):
    number = answer.machine.forbidden["socketpair"]
    kinds = [(family, kind) for family in range(20) for kind in (*range(8), 0o2000001, 0o2000002, 0o4001, 0o2004001)]
    allowed = {each for each in kinds if answer(number, *each) == ALLOW}
    assert allowed == {(1, 1), (1, 0o2000001)}
    assert {answer(number, *each) for each in kinds if each not in allowed} == {NOT_PERMITTED}
    for name in (
        "socket",
        "connect",
        "bind",
        "listen",
        "accept",
        "accept4",
        "sendmsg",
        "sendmmsg",
        "recvmsg",
        "setsockopt",
    ):
        assert answer(answer.machine.forbidden[name], 1, 1) == NOT_PERMITTED
