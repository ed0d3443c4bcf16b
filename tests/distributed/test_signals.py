"""Stop signals: the first interrupts, the second ends the process, one that arrives twice counts once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cnnbench.distributed import signals
from cnnbench.distributed.signals import REPEAT_S, STOP_SIGNALS, SignalHandler, handled_by, interruptible, killed_by
from cnnbench.errors import Interrupted

TWICE = f"""
import os, signal, time
from cnnbench.distributed.signals import SignalHandler
with SignalHandler(lambda number: print("second:", number, flush=True)) as handler:
    handler.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({REPEAT_S} + 0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    print("never printed")
"""


def handlers() -> list:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.fixture(autouse=True)
def unchanged_handlers():
    """Checks that each signal has its handler again; one that came, and that the system repeats, is ignored."""
    before = handlers()
    yield
    after = [
        signal.SIG_IGN if number in came() else former for number, former in zip(STOP_SIGNALS, before, strict=True)
    ]
    assert handlers() == after
    signals._received.clear()
    for number, former in zip(STOP_SIGNALS, before, strict=True):
        signal.signal(number, former)


def came() -> list[int]:
    return [number for number in (signal.SIGHUP, signal.SIGXCPU) if number.name in signals._received]


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_handler_gets_the_number_of_the_signal(number):
    received = []
    with handled_by(lambda number, frame: received.append(number)):
        send(number)
    assert received == [number]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_interrupts(number):
    with SignalHandler(lambda number: None) as handler, pytest.raises(KeyboardInterrupt):
        send(number)
    assert handler.received == number


def test_a_held_signal_interrupts_on_release():
    with SignalHandler(lambda number: None) as handler:
        handler.hold()
        send()
        assert handler.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            handler.release()


def test_release_without_a_signal_does_nothing():
    with SignalHandler(lambda number: None) as handler:
        handler.hold()
        handler.release()
        with pytest.raises(KeyboardInterrupt):
            send()


def test_a_signal_that_arrives_twice_at_once_counts_once():
    second = []
    with SignalHandler(second.append) as handler:
        handler.hold()
        send(signal.SIGTERM)
        send(signal.SIGINT)
        time.sleep(0.01)
    assert (handler.received, second) == (signal.SIGTERM, [])


def test_a_second_signal_ends_the_process_with_128_plus_its_number():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, f"second: {int(signal.SIGTERM)}\n")


def test_in_another_thread_the_handlers_stay():
    before, inside = handlers(), []

    def enter() -> None:
        with SignalHandler(lambda number: None):
            inside.append(handlers())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGXCPU"])
def test_a_signal_that_the_system_repeats_counts_once(name):
    second = []
    with SignalHandler(second.append) as handler:
        handler.hold()
        send(getattr(signal, name))
        handler._received_at -= 10 * REPEAT_S
        send(getattr(signal, name))
    assert (handler.received, second) == (getattr(signal, name), [])


def test_sighup_stays_ignored_as_under_nohup():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalHandler(lambda number: None) as handler:
            send(signal.SIGHUP)
        assert (handler.received, signal.getsignal(signal.SIGHUP)) == (0, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize(
    ("name", "text"),
    [("SIGKILL", "killed by SIGKILL; was there enough memory?"), ("SIGSEGV", "killed by SIGSEGV")],
)
def test_a_kill_is_described_by_its_signal(name, text):
    assert killed_by(getattr(signal, name)) == text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_signal_ends_a_command_with_its_number_also_where_a_library_raises_something_else(kind):
    def work() -> None:
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise kind("from a library") from error

    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM$") as found, interruptible():
        work()
    assert found.value.exit_code == 143


def test_an_error_before_any_signal_stays_as_it_is():
    with pytest.raises(ValueError, match="mine"), interruptible():
        raise ValueError("mine")
