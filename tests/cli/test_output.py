"""Output of commands before they end, through a pipe or into a file."""

import json
import re
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from support.pictures import png
from support.processes import running_command

from seit.training import prediction
from seit.training.prediction import read_bytes


def written(folder, job, pattern):
    """Return what a running command has printed, once the pattern is in it."""
    text = ""
    for _ in range(600):
        text = (folder / "out").read_text() if (folder / "out").exists() else ""
        if re.search(pattern, text):
            return text
        assert job.is_alive(), (folder / "err").read_text()
        time.sleep(0.1)
    pytest.fail(f"{text!r} was printed after a minute; expected {pattern!r}")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_the_address_is_printed_while_the_page_is_served(pattern_store, tmp_path, form):
    arguments = ["view", str(pattern_store.folder), "--no-open", "--port", "0", "--host", "0.0.0.0"]
    with running_command([*arguments, *form], tmp_path) as job:
        text = written(tmp_path, job, r"\}\n" if form else r"token=[\w-]{32}\n")
        url = json.loads(text)["url"] if form else text.strip()
        port, query = urlsplit(url).port, urlsplit(url).query
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"/?{query}")
        assert connection.getresponse().status == 303
        connection.close()


def test_predictions_are_printed_before_later_files_are_read(tiny_run, tmp_path, monkeypatch):
    first, last, may_read = (tmp_path / name for name in ("1.png", "2.png", "may-read"))
    for path in (first, last):
        path.write_bytes(png(0))

    def wait(instance):
        while instance.key == str(last) and not may_read.exists():
            time.sleep(0.05)
        return read_bytes(instance)

    monkeypatch.setattr(prediction, "read_bytes", wait)
    monkeypatch.setattr(prediction, "EVAL_BATCH", 1)
    folder = tmp_path / "output"
    with running_command(["predict", str(tiny_run), str(first), str(last)], folder) as job:
        text = written(folder, job, r"1\.png\n")
        assert str(last) not in text
        may_read.touch()
        job.join(60)
        assert job.exitcode == 0
    assert str(last) in (folder / "out").read_text()
