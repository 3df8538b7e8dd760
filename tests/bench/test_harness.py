"""Libraries under test are kept apart, take turns, and may crash."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from bench import harness
from bench.harness import Apart, Contest, Report, RivalError, summary


class Subject:
    """Answers, raises, prints, dies or hangs, as its name says."""

    def __init__(self, name: str) -> None:
        if name == "broken":
            raise ImportError("no such library")
        self.name = name

    def work(self, amount: int) -> int:
        if self.name == "raises":
            raise ValueError("can't")
        if self.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        print("chatter of a library")
        return amount * 2

    def pid(self) -> int:
        return os.getpid()

    def hang(self) -> None:
        signal.pause()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "OUT", tmp_path)
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, str(Path(__file__).parent)]))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def subject() -> type:
    """The class under a name that a spawned process can import."""
    import test_harness

    return test_harness.Subject


def lines(report: Report) -> list[dict]:
    return [json.loads(line) for line in report.path.read_text().splitlines()]


def test_a_subject_answers_from_another_process() -> None:
    apart = Apart(subject(), "a")
    assert apart.call("work", 21) == 42
    assert apart.call("pid") != os.getpid()
    apart.close()


def test_a_hanging_subject_is_ended_after_its_time() -> None:
    apart = Apart(subject(), "a")
    with pytest.raises(RivalError, match="no answer"):
        apart.call("hang", timeout=0.2)
    apart.close()


def test_a_contest_goes_on_without_those_that_fail(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report("contest")
    with Contest(report, subject(), ["a", "broken", "raises", "dies", "b"]) as contest:
        assert dict(contest.round("work", 1)) == {"a": 2, "b": 2}
        assert [name for name, _ in contest.round("work", 1)] == ["b", "a"]  # turns rotate
        assert [name for name, _ in contest.round("work", 1)] == ["a", "b"]
    failed = {line["subject"]: line["failed"] for line in lines(report) if "failed" in line}
    assert failed == {
        "broken": "ImportError: no such library",
        "raises": "ValueError: can't",
        "dies": "process ended with code -9",
    }
    assert "chatter" not in capfd.readouterr().out  # JSON lines alone


def test_a_report_begins_with_the_environment_and_cuts_its_floats() -> None:
    report = Report("figures")
    report.line(qps=1234.56789, nested={"a": [0.123456789]})
    first, second = lines(report)
    assert {"cpu", "cores", "python", "packages"} <= first["environment"].keys()
    assert second == {"qps": 1234.6, "nested": {"a": [0.12346]}}


def test_a_summary_is_the_median_between_its_bounds() -> None:
    assert summary(iter([3.0, 1.0, 2.0])) == {"median": 2.0, "min": 1.0, "max": 3.0}
