"""What nftables must hold so that containers reach the outside: a table of minidock's own, and a way past others.

An accept in a table of one's own never beats another's drop, so each foreign forward chain that would drop gets two
commented rules at its head: docker's DOCKER-USER where there is one, else the base chain itself (ufw's and firewalld's,
or any of policy drop). Only nftables, iptables-nft included, is seen; rules of the legacy iptables are not.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import NetworkError
from minidock.kernel.netlink_nft import DROP, FORWARD, Chain, Nft
from minidock.store import locks

if TYPE_CHECKING:
    from minidock.log import Log

TABLE = "minidock"
_POSTROUTING, _FORWARD = "postrouting", "forward"
_DOCKER_USER = "DOCKER-USER"
_MARK = "minidock: "
_ATTEMPTS = 5
_LEGACY_TABLES = "/proc/net/ip_tables_names"

_IIFNAME = {"meta": {"key": "iifname"}}
_OIFNAME = {"meta": {"key": "oifname"}}
_COUNT: dict[str, Any] = {"counter": None}
_PASS: dict[str, Any] = {"accept": None}


class Firewall(NamedTuple):
    """The rules for one bridge, ``name``, whose network is ``subnet`` (address/length).

    ``stamp_path`` is a file in a volatile directory that remembers which state of the ruleset was found good.
    """

    name: str
    subnet: str
    stamp_path: str

    def ensure(self, log: Log) -> None:
        """See that every rule is there; one message to the kernel when nothing has changed since the last time.

        Raises NetworkError when nftables cannot be used at all; a foreign chain that cannot be changed is a warning.
        """
        try:
            with Nft() as nft:
                if self._stamp(nft.generation()) != _read(self.stamp_path):
                    os.makedirs(os.path.dirname(self.stamp_path), 0o700, exist_ok=True)
                    with locks.exclusive(f"{self.stamp_path}.lock"):
                        self._repair(nft, log)
        except OSError as error:
            raise NetworkError(
                f"cannot set up nftables for {self.name}: {error.strerror}",
                hint="the bridge network needs nftables; --network none and --network host do not",
            ) from None

    def remove(self) -> None:
        """Remove the table and every rule of ours in foreign chains. Raises NetworkError."""
        from minidock.kernel import nftables

        try:
            with Nft() as nft:
                commands = [
                    {"delete": {"rule": {**_place(chain), "handle": rule.handle}}}
                    for chain in nft.chains()
                    if chain.table != TABLE
                    for rule in nft.rules(chain)
                    if rule.comment in self._comments()
                ]
            table = {"table": {"family": "ip", "name": TABLE}}
            nftables.run([*commands, {"add": table}, {"delete": table}])
        except OSError as error:
            raise NetworkError(f"cannot remove the rules for {self.name}: {error.strerror}") from None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.stamp_path)

    def own_commands(self) -> list[dict[str, Any]]:
        """The commands that make minidock's own table anew: masquerading outwards, nothing unasked inwards."""
        table = {"family": "ip", "name": TABLE}
        nat = {"family": "ip", "table": TABLE, "name": _POSTROUTING}
        forward = {"family": "ip", "table": TABLE, "name": _FORWARD}
        address, _, length = self.subnet.partition("/")
        source = _match({"payload": {"protocol": "ip", "field": "saddr"}}, "==", _prefix(address, int(length)))
        inwards = [_match({"meta": {"key": "oifname"}}, "==", self.name), _match(_IIFNAME, "!=", self.name)]
        known = _match({"ct": {"key": "state"}}, "in", ["established", "related"])
        published = _match({"ct": {"key": "status"}}, "in", "dnat")
        return [
            {"add": {"table": table}},
            {"delete": {"table": table}},
            {"add": {"table": table}},
            {"add": {"chain": {**nat, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}},
            {"add": {"chain": {**forward, "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}}},
            self._own_rule(_POSTROUTING, [source, _match(_OIFNAME, "!=", self.name), {"masquerade": None}]),
            self._own_rule(_FORWARD, [*inwards, known, {"accept": None}]),
            self._own_rule(_FORWARD, [*inwards, published, {"accept": None}]),
            self._own_rule(_FORWARD, [*inwards, {"drop": None}]),
        ]

    def _repair(self, nft: Nft, log: Log) -> None:
        from minidock.kernel import nftables
        from minidock.store.files import write_atomic

        refused: set[Chain] = set()
        for _ in range(_ATTEMPTS):
            # Read before the rules are looked at: what changes them meanwhile changes the number, too.
            generation = nft.generation()
            chains = nft.chains()
            own = [] if self._own_is_whole(nft, chains) else self.own_commands()
            if own:
                nftables.run(own)
            closed = [chain for chain in self._closed_chains(nft, chains) if chain not in refused]
            for chain in closed:
                try:
                    nftables.run(self._opening(chain))
                except OSError as error:
                    refused.add(chain)
                    _warn_refused(chain, error, log)
            if not own and not closed:
                break
        else:
            raise OSError(0, "the ruleset changes faster than it can be repaired")
        if not refused:
            _warn_legacy(log)
            write_atomic(self.stamp_path, self._stamp(generation), sync=False)

    def _stamp(self, generation: int) -> bytes:
        return f"{generation} {os.stat('/proc/thread-self/ns/net').st_ino} {self.subnet}\n".encode()

    def _own_is_whole(self, nft: Nft, chains: list[Chain]) -> bool:
        own = {chain.name: chain for chain in chains if (chain.family, chain.table) == ("ip", TABLE)}
        expected = {_POSTROUTING: 1, _FORWARD: 3}
        return own.keys() == expected.keys() and all(
            [rule.comment for rule in nft.rules(own[name])] == [self._own_comment()] * count
            for name, count in expected.items()
        )

    def _closed_chains(self, nft: Nft, chains: list[Chain]) -> list[Chain]:
        """The foreign chains that need our rules and do not have both."""
        closed = []
        for base in chains:
            if base.hook != FORWARD or base.type != "filter" or base.family not in {"ip", "inet"}:
                continue
            if base.table == TABLE and base.family == "ip":
                continue
            rules = nft.rules(base)
            doors = [c for c in chains if (c.family, c.table, c.name) == (base.family, base.table, _DOCKER_USER)]
            if doors:
                rules = nft.rules(doors[0])
            elif base.policy != DROP and not any(rule.drops_all for rule in rules):
                continue
            if not self._comments() <= {rule.comment for rule in rules}:
                closed.append(doors[0] if doors else base)
        return closed

    def _opening(self, chain: Chain) -> list[dict[str, Any]]:
        """Both rules at the head of ``chain``, in a form that iptables-nft can still list."""
        outwards, inwards = self._directions()
        return [
            _rule("insert", _place(chain), [_match(_IIFNAME, "==", self.name), _COUNT, _PASS], outwards),
            _rule("insert", _place(chain), [_match(_OIFNAME, "==", self.name), _COUNT, _PASS], inwards),
        ]

    def _directions(self) -> tuple[str, str]:
        return f"{_MARK}from {self.name}", f"{_MARK}to {self.name}"

    def _comments(self) -> set[str]:
        return set(self._directions())

    def _own_comment(self) -> str:
        return f"{self.name} {self.subnet}"

    def _own_rule(self, chain: str, expressions: list[dict[str, Any]]) -> dict[str, Any]:
        return _rule("add", {"family": "ip", "table": TABLE, "chain": chain}, expressions, self._own_comment())


def _match(left: dict[str, Any], op: str, right: object) -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def _prefix(address: str, length: int) -> dict[str, Any]:
    return {"prefix": {"addr": address, "len": length}}


def _rule(verb: str, place: dict[str, Any], expressions: list[dict[str, Any]], comment: str) -> dict[str, Any]:
    return {verb: {"rule": {**place, "expr": expressions, "comment": comment}}}


def _place(chain: Chain) -> dict[str, Any]:
    return {"family": chain.family, "table": chain.table, "chain": chain.name}


def _warn_refused(chain: Chain, error: OSError, log: Log) -> None:
    place = f"{chain.family} {chain.table} {chain.name}"
    log.warning(f"the firewall's chain {place} drops what containers send, and cannot be changed: {error.strerror}")


def _warn_legacy(log: Log) -> None:
    if "filter" in _read(_LEGACY_TABLES).decode("ascii", "replace").split():
        log.warning(
            "legacy iptables rules are loaded; minidock cannot see them: if containers have no network, allow "
            "forwarding from and to minidock0 there"
        )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
