"""The device program, run by a small interpreter and compared with what the writes of cgroup v1 would mean."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.kernel import bpf

Rule = tuple[bool, str, int | None, int | None, str]
ACCESS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}


def run(code: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Interpret the instructions that the assembler emits; anything else is a failure."""
    bits = sum(ACCESS[letter] for letter in access)
    context = struct.pack("<III", bits << 16 | TYPES[kind], major, minor)
    registers = [0] * 11
    instructions = list(struct.iter_unpack("<BBhi", code))
    position = 0
    while True:
        opcode, where, offset, value = instructions[position]
        target, source = where & 15, where >> 4
        position += 1
        if opcode == 0x61:
            assert source == 1, "words are loaded from the context only"
            registers[target] = struct.unpack_from("<I", context, offset)[0]
        elif opcode == 0xB7:
            registers[target] = value
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0x57:
            registers[target] &= value
        elif opcode == 0x77:
            registers[target] >>= value
        elif opcode == 0x15:
            position += offset if registers[target] == value else 0
        elif opcode == 0x55:
            position += offset if registers[target] != value else 0
        elif opcode == 0x95:
            return registers[0] == 1
        else:
            pytest.fail(f"unexpected opcode {opcode:#x}")


def model(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> bool:
    """Each kind of access is decided by the last rule that speaks of the device and of it."""

    def decide(letter: str) -> bool:
        for allow, rule_kind, rule_major, rule_minor, rule_access in reversed(rules):
            meant = rule_kind in {"a", kind} and rule_major in {None, major} and rule_minor in {None, minor}
            if meant and letter in rule_access:
                return allow
        return False

    return all(decide(letter) for letter in access)


def test_no_rule_denies_everything() -> None:
    assert not run(bpf.assemble([]), "c", 1, 3, "r")


def test_later_rules_win_for_each_kind_of_access() -> None:
    code = bpf.assemble([(True, "c", 1, 7, "rwm"), (False, "c", 1, 7, "w")])
    assert run(code, "c", 1, 7, "r")
    assert not run(code, "c", 1, 7, "w")
    assert not run(code, "c", 1, 7, "rw"), "one denied kind of access denies the whole"


def test_access_may_be_gathered_from_several_rules() -> None:
    code = bpf.assemble([(True, "c", 5, None, "r"), (True, "c", 5, 0, "w")])
    assert run(code, "c", 5, 0, "rw")
    assert not run(code, "c", 5, 1, "rw")


def test_types_do_not_mix() -> None:
    code = bpf.assemble([(True, "b", 8, 0, "rwm")])
    assert run(code, "b", 8, 0, "rwm")
    assert not run(code, "c", 8, 0, "r")


numbers = st.none() | st.integers(0, 3)
accesses = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters)))
rules_of = st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), numbers, numbers, accesses), max_size=12)


@given(rules_of, st.sampled_from("bc"), st.integers(0, 4), st.integers(0, 4), accesses)
def test_program_agrees_with_the_model(rules: list[Rule], kind: str, major: int, minor: int, access: str) -> None:
    assert run(bpf.assemble(rules), kind, major, minor, access) == model(rules, kind, major, minor, access)


def test_unknown_access_is_refused() -> None:
    with pytest.raises(KeyError):
        bpf.assemble([(True, "c", 1, 3, "x")])
