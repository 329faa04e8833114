"""A process and all that it has started: found in whatever session, and killed."""

import subprocess
import time
from pathlib import Path

import pytest
from process_tree import descendants, kill_tree


def test_descendants_are_found_whatever_their_commands_are_called(tmp_path):
    for pid, name, parent in ((2, "a", 1), (3, "b) S 9 (", 2), (4, "c", 3), (5, "d", 1), (6, "e", 2)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 0 0\n")
    assert sorted(descendants(2, tmp_path)) == [3, 4, 6]
    assert descendants(5, tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no proc file system")
def test_what_has_left_the_session_is_killed_too():
    with subprocess.Popen(["bash", "-c", "setsid sleep 60 & sleep 60"]) as process:
        until = time.monotonic() + 20
        while len(found := descendants(process.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(found) == 2
        kill_tree(process.pid)
        assert process.wait(10) == -9
    while any(is_alive(pid) for pid in found):
        assert time.monotonic() < until, found
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """A process that has ended stays a zombie until somebody waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
