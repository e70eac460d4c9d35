"""Faults done to processes: each effect is verified, and no process outlives its owner."""

import sys

import psutil

from adledger.loadtest.lab.processes import Process, gone, pause, resume

SLEEP = (sys.executable, "-c", "print('up', flush=True); input()")


def test_a_process_is_paused_resumed_and_killed(tmp_path):
    """The effect of each of SIGSTOP, SIGCONT and SIGKILL is verified."""
    process = Process(SLEEP, tmp_path / "log", piped=True)
    assert process.popen.stdout.readline() == b"up\n"
    assert pause(process.pid)
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    assert resume(process.pid)
    assert not gone(process.pid)
    process.kill()
    assert gone(process.pid)
    assert process.exit_code == -9
    assert not pause_of_the_dead(process.pid)
    process.popen.stdin.close()
    process.popen.stdout.close()


def pause_of_the_dead(pid):
    try:
        return pause(pid)
    except ProcessLookupError:
        return False


def test_a_paused_process_can_be_stopped(tmp_path):
    """`stop` resumes it first, so it ends in order and not by force."""
    process = Process(
        (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"), tmp_path / "log"
    )
    while b"up" not in (tmp_path / "log").read_bytes():
        pass
    pause(process.pid)
    assert process.stop()
    assert process.exit_code == -15


def test_settings_of_the_environment_stay_out(tmp_path, monkeypatch):
    """A process gets the settings of its run alone, not those of the surrounding shell."""
    monkeypatch.setenv("ADLEDGER_DATABASE", "production")
    process = Process(
        (sys.executable, "-c", "import os; print([n for n in os.environ if 'ADLEDGER' in n])"),
        tmp_path / "log",
    )
    assert process.popen.wait(30) == 0
    assert (tmp_path / "log").read_text().strip() == "[]"
