"""Pulls that are killed, cut off, disturbed or not alone: nothing comes twice in vain, and nothing wrong stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.model.oci import LAYER_TAR, Descriptor
from minidock.registry import download, session
from minidock.registry.retry import Patience
from tests.conftest import Minidock
from tests.integration.registry.conftest import Puller
from tests.integration.registry.evilreg import EvilRegistry, Exchange, Layer, layer

BIG = layer({"big": os.urandom(4 << 20)})
SMALL = layer({"small": b"content"})
BLOB = f"blobs/{BIG.digest}"
HALF = len(BIG.data) // 2


def _half(exchange: Exchange, then: Callable[[Exchange], object] = Exchange.hang_up) -> None:
    """The first half of what is left of the layer, then nothing."""
    start = _start(exchange)
    size = len(BIG.data) - start
    if start:
        said = f"bytes {start}-{len(BIG.data) - 1}/{len(BIG.data)}"
        exchange.head(206, Content_Length=str(size), Content_Range=said)
    else:
        exchange.head(200, Content_Length=str(size))
    exchange.send(BIG.data[start : start + size // 2])
    then(exchange)


def _start(exchange: Exchange) -> int:
    return int(exchange.asked.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def _ranges(evil: EvilRegistry) -> list[str]:
    return [asked.headers.get("range", "") for asked in evil.asked if BLOB in asked.path]


def _until(condition: Callable[[], object]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


def test_a_pull_goes_on_where_a_killed_one_ended(evil: EvilRegistry, puller: Puller, command: Minidock) -> None:
    evil.image("a", SMALL, BIG)
    evil.on(BLOB, lambda e: _half(e, Exchange.stall), times=1)
    with command.popen("pull", f"{evil.host}/a") as process:
        _until(lambda: puller.partial().get(BIG.digest, 0) == HALF)
        process.kill()
        process.communicate()
    assert command.out("images", "-q") == ""
    sent = evil.sent
    done = command("pull", f"{evil.host}/a")
    assert _ranges(evil) == ["", f"bytes={HALF}-"]
    assert len(BIG.data) - HALF <= evil.sent - sent < len(BIG.data) - HALF + 5000
    assert "Status: Downloaded newer image" in done.stdout
    assert puller.partial() == {}
    assert command.out("image", "verify").endswith(": ok")


def test_a_pull_that_is_killed_anywhere_leaves_nothing_wrong(
    evil: EvilRegistry, puller: Puller, command: Minidock
) -> None:
    """Killed at instants that go from its beginning past its end; what comes in vain is a block for each kill."""
    layers = [layer({f"f{number}": os.urandom(300_000)}) for number in range(6)]
    evil.image("a", *layers)
    before = time.monotonic()
    command("pull", f"{evil.host}/a")
    whole = time.monotonic() - before
    command("rmi", f"{evil.host}/a")
    evil.sent = 0
    for number in range(12):
        with command.popen("pull", f"{evil.host}/a") as process:
            time.sleep(whole * number / 10)
            process.kill()
            process.communicate()
        assert not command("image", "verify").stdout.replace(": ok\n", "").count("\n")
    done = command("pull", f"{evil.host}/a")
    assert "Digest: sha256:" in done.stdout
    assert command.out("image", "verify").endswith(": ok")
    assert puller.partial() == {}
    assert evil.sent < sum(len(one.data) for one in layers) + 12 * (1 << 20)


def test_pulls_at_once_fetch_each_layer_once(evil: EvilRegistry, command: Minidock) -> None:
    evil.image("a", SMALL, BIG)

    def when_all_are_there(exchange: Exchange) -> None:
        _until(lambda: len(evil.paths("manifests")) == 20)
        evil.serve(exchange)

    evil.on(BLOB, when_all_are_there)
    pulls = [command.popen("pull", f"{evil.host}/a") for _ in range(20)]
    for pull in pulls:
        out, err = pull.communicate(timeout=60)
        assert pull.returncode == 0, err
        assert b"Digest: sha256:" in out
    assert len(_ranges(evil)) == 1
    assert len(evil.paths(f"blobs/{SMALL.digest}")) == 1
    assert command.out("image", "verify").endswith(": ok")


def test_a_lost_connection_is_no_end(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", BIG)
    evil.on(BLOB, _half, times=3)
    found = puller(f"{evil.host}/a", tries=2)[0]
    assert len(_ranges(evil)) == 4
    assert found.fetched == len(BIG.data)
    # It went on each time: what failed before does not count.
    assert puller.waits == [0.5, 0.5, 0.5]


def test_a_few_bytes_each_time_are_no_progress(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", BIG)

    def drop(exchange: Exchange) -> None:
        start = _start(exchange)
        said = f"bytes {start}-{len(BIG.data) - 1}/{len(BIG.data)}"
        exchange.head(206 if start else 200, Content_Length=str(len(BIG.data) - start), Content_Range=said)
        exchange.send(BIG.data[start : start + 100])
        exchange.hang_up()

    evil.on(BLOB, drop)
    error = puller.refuse(f"{evil.host}/a", tries=4)
    assert f"the connection ended too early, after 400 of {len(BIG.data)} bytes" in error.message
    assert error.hint == "pull again: it goes on from there"
    assert len(_ranges(evil)) == 4
    evil.clear()
    assert puller(f"{evil.host}/a")[0].fetched == len(BIG.data) - 400


def test_a_layer_that_drips_is_given_up(evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a byte now and then keeps nobody for ever."""
    monkeypatch.setattr(download, "_WINDOW", 0.2)
    evil.image("a", BIG)

    def drip(exchange: Exchange) -> None:
        exchange.head(200, Content_Length=str(len(BIG.data)))
        for byte in BIG.data:
            exchange.send(bytes([byte]))
            if exchange.registry.closing.wait(0.01):
                return

    evil.on(BLOB, drip)
    error = puller.refuse(f"{evil.host}/a", tries=2)
    assert "it comes too slowly: " in error.message
    assert len(_ranges(evil)) == 2


@pytest.mark.parametrize("where", ["manifests", BLOB])
def test_a_server_that_says_nothing_is_given_up(
    evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(session, "READ", 0.2)
    evil.image("a", BIG)
    evil.on(where, Exchange.stall)
    assert "there is no answer for" in puller.refuse(f"{evil.host}/a", tries=2).message
    assert len(evil.paths(where)) == 2


def _damaged(puller: Puller, data: bytes) -> None:
    puller.root.ensure()
    folder = Path(puller.root.cache) / "downloads"
    folder.mkdir(exist_ok=True)
    (folder / BIG.digest.removeprefix("sha256:")).write_bytes(data)


PARTS = {
    "its beginning": b"x" * HALF,
    "one bit": BIG.data[:999_999] + bytes([BIG.data[999_999] ^ 1]) + BIG.data[1_000_000:HALF],
    "all of it": bytes(len(BIG.data)),
    "another one's": b"y" * (len(BIG.data) - 1),
}


@pytest.mark.parametrize("form", ["gzip", "plain"])
@pytest.mark.parametrize("case", PARTS)
def test_a_part_that_is_damaged_is_thrown_away_at_once(
    evil: EvilRegistry, puller: Puller, case: str, form: str
) -> None:
    """What lies here may be wrong, and what a registry has right: the pull that finds it asks for all of it."""
    used = BIG if form == "gzip" else layer({"big": BIG.data}, LAYER_TAR)
    evil.image("a", used)
    _damaged(puller, PARTS[case])
    folder = Path(puller.root.cache) / "downloads"
    (folder / BIG.digest.removeprefix("sha256:")).rename(folder / used.digest.removeprefix("sha256:"))
    assert puller(f"{evil.host}/a")[0].fresh
    assert puller.partial() == {}
    assert all(not verdict.problems for verdict in puller.engine.verify())


def test_a_part_that_is_too_long_is_thrown_away(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", BIG)
    _damaged(puller, BIG.data + b"more")
    assert puller(f"{evil.host}/a")[0].fetched == len(BIG.data)
    assert _ranges(evil) == [""]


def test_what_has_come_whole_is_not_asked_for(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", BIG)
    _damaged(puller, BIG.data)
    assert puller(f"{evil.host}/a")[0].fetched == 0
    assert _ranges(evil) == []


def _whole(exchange: Exchange) -> None:
    exchange.answer(200, BIG.data)


def _elsewhere(exchange: Exchange) -> None:
    exchange.answer(206, BIG.data[10:], Content_Range=f"bytes 10-{len(BIG.data) - 1}/{len(BIG.data)}")


def _unsaid(exchange: Exchange) -> None:
    exchange.answer(206, BIG.data)


def _nothing(exchange: Exchange) -> None:
    exchange.answer(416, Content_Range=f"bytes */{len(BIG.data)}")


def _wrong_bytes(exchange: Exchange) -> None:
    start = _start(exchange)
    said = f"bytes {start}-{len(BIG.data) - 1}/{len(BIG.data)}"
    exchange.answer(206, BIG.data[: len(BIG.data) - start], Content_Range=said)


@pytest.mark.parametrize("answer", [_whole, _elsewhere, _unsaid, _nothing, _wrong_bytes])
def test_a_server_that_cannot_begin_there_gives_all(
    evil: EvilRegistry, puller: Puller, answer: Callable[[Exchange], None]
) -> None:
    evil.image("a", BIG)
    _damaged(puller, BIG.data[:HALF])
    evil.on(BLOB, answer, times=1)
    assert puller(f"{evil.host}/a")[0].fresh
    assert _ranges(evil)[0] == f"bytes={HALF}-"
    assert len(_ranges(evil)) == (1 if answer is _whole else 2)
    assert all(not verdict.problems for verdict in puller.engine.verify())


def test_a_layer_that_fails_ends_the_others(evil: EvilRegistry, puller: Puller) -> None:
    """Also one that waits for bytes which never come."""
    evil.image("a", SMALL, BIG)
    stalled: list[bool] = []

    def stall(exchange: Exchange) -> None:
        stalled.append(True)
        exchange.stall()

    def fail(exchange: Exchange) -> None:
        _until(lambda: stalled)
        exchange.answer(200, b"-" * len(SMALL.data))

    evil.on(BLOB, lambda e: _half(e, stall))
    evil.on(f"blobs/{SMALL.digest}", fail)
    assert f"the layer {SMALL.digest} is not what its digest says" in puller.refuse(f"{evil.host}/a").message
    assert not evil.released.is_set()
    assert 0 < puller.partial()[BIG.digest] <= HALF


def test_an_interrupt_ends_a_pull_that_waits(evil: EvilRegistry, puller: Puller, command: Minidock) -> None:
    evil.image("a", BIG)
    evil.on(BLOB, lambda e: _half(e, Exchange.stall))
    with command.popen("pull", f"{evil.host}/a") as process:
        _until(lambda: puller.partial().get(BIG.digest, 0) == HALF)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert not evil.released.is_set()


def test_an_interrupt_ends_a_pull_that_waits_for_another(evil: EvilRegistry, puller: Puller, command: Minidock) -> None:
    evil.image("a", BIG)
    evil.on(BLOB, lambda e: _half(e, Exchange.stall))
    with command.popen("pull", f"{evil.host}/a") as first:
        _until(lambda: puller.partial().get(BIG.digest, 0) == HALF)
        with command.popen("pull", f"{evil.host}/a", stderr=subprocess.STDOUT) as second:
            assert second.stdout is not None
            _until(lambda: len(evil.paths("manifests")) == 2)
            time.sleep(0.3)
            second.send_signal(signal.SIGINT)
            out, _ = second.communicate(timeout=20)
        assert second.returncode == 130
        assert b"Waiting" in out
        first.kill()
        first.communicate()


def test_what_has_come_whole_of_an_image_stays_for_the_next_pull(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", SMALL, BIG)

    def fail(exchange: Exchange) -> None:
        _until(lambda: any(event.state == "Pull complete" for event in puller.events))
        exchange.answer(404)

    evil.on(BLOB, fail, times=1)
    puller.refuse(f"{evil.host}/a")
    puller.events.clear()
    assert puller(f"{evil.host}/a")[0].fetched == len(BIG.data)
    assert ("Already exists", len(SMALL.data)) in [(event.state, event.total) for event in puller.events]
    assert len(evil.paths(f"blobs/{SMALL.digest}")) == 1


def test_row_39_layers_that_are_here_are_no_pair_before_that_was_seen(evil: EvilRegistry, puller: Puller) -> None:
    """Both blobs are here, and an image says that the one unpacks to the other."""
    evil.image("good", SMALL, BIG)
    puller(f"{evil.host}/good")
    evil.image("evil", Layer(SMALL.data, SMALL.media_type, BIG.diff_id))
    assert "and the configuration says" in puller.refuse(f"{evil.host}/evil").message
    plain = layer({"big": BIG.data}, LAYER_TAR)
    evil.image("plain", plain)
    puller(f"{evil.host}/plain")
    evil.image("evil", Layer(BIG.data + b"", BIG.media_type, plain.diff_id), tag="2")
    assert "and the configuration says" in puller.refuse(f"{evil.host}/evil:2").message


def test_an_image_of_layers_that_are_here_fetches_none(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", SMALL, BIG)
    puller(f"{evil.host}/a")
    evil.image("b", BIG, SMALL)
    assert puller(f"{evil.host}/b")[0].fetched == 0
    assert len(_ranges(evil)) == 1


def test_what_nobody_goes_on_with_is_given_up(evil: EvilRegistry, puller: Puller) -> None:
    """After a week; what came later, and what somebody is at, stays."""
    evil.image("a", SMALL)
    puller.root.ensure()
    downloads = download.Downloads(puller.root, Patience())
    names = {name: name * 64 for name in "abc"}
    for name in names.values():
        path = Path(puller.root.cache, "downloads", name)
        path.write_bytes(b"part")
        if name[0] != "c":
            os.utime(path, (0, 0))
    with downloads.claim(Descriptor("", f"sha256:{names['b']}", 9)):
        puller(f"{evil.host}/a")
    assert set(puller.partial()) == {f"sha256:{names['b']}", f"sha256:{names['c']}"}
