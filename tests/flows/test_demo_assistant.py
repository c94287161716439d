"""`llama demo assistant`: the example of the project's purpose, in a process of its own, with the network shut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import llamakit


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LLAMA_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(llamakit.__file__).parents[1])
    command = [sys.executable, "-m", "llamakit", "demo", "assistant", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_summary_action_items_and_an_invitation_without_any_connection(tmp_path):
    result = run(tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["network"] == {"connections_opened": 0, "attempts_refused": []}
    assert "team meeting" in told["summary"] and "slides" in told["summary"]
    assert any(item.startswith("Tom: send the slides") for item in told["action_items"])
    (event,) = told["events"]
    assert event["title"] == "Team meeting" and event["start"] == "15:00" and "Maria" in event["people"]
    file = (tmp_path / event["path"]).read_text()
    assert "SUMMARY:Team meeting" in file and "DTSTART:" in file
    assert [path.name for path in tmp_path.glob("*.ics")] == ["team-meeting.ics"]


def test_a_thread_of_ones_own_is_shown_as_a_conversation(tmp_path):
    (tmp_path / "chat.txt").write_text(
        "Lena: an old message\n\nIsaac: Hello!\nSteve: Are you free for the brunch on Friday at 11 am?\nIsaac: Sure.\n"
    )
    result = run(tmp_path, "--thread", "chat.txt", "--last", "3", "--event", "brunch")
    assert "an old message" not in result.stdout and "The last 3 messages" in result.stdout
    assert "You: Send a calendar invitation for the brunch." in result.stdout
    assert "Connections opened: 0. Attempts refused: 0." in result.stdout
    assert "create_event" in result.stdout and list(tmp_path.glob("*.ics")), result.stdout + result.stderr


def test_misuse_is_told(tmp_path):
    absent = run(tmp_path, "--thread", "absent.txt")
    assert absent.returncode == 2 and "no file absent.txt" in absent.stderr
    nowhere = run(tmp_path, "--out", "nowhere")
    assert nowhere.returncode == 2 and "make it first" in nowhere.stderr
