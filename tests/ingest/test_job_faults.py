"""The tokenize job as a real process: killed, interrupted, out of disk space, started twice.

Each disturbed job is run again, and its store compared, byte for byte, with an undisturbed one.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from support.disks import READ_ONLY, mount_disk
from support.files import tree
from support.jobs import flawed
from support.processes import exit_codes, fork, fork_recorded, running_command

from seit.cli import main
from seit.stores import verify_store

NUM_IMAGES = 2400
OPTIONS = ("--size", "64", "--codes", "64", "--shard-samples", "1024", "--json")
PACKED = ("--codec", "packed")
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """2,400 tiny pictures and a few that cannot be read: three shards of train and one of val."""
    return flawed(tmp_path_factory.mktemp("corpus"), NUM_IMAGES, 5)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """Every byte of the store of a job that nothing disturbed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    main(command(corpus, store)[3:])
    assert verify_store(store).ok
    assert len((store / "skipped.jsonl").read_text().splitlines()) == 5
    return tree(store)


def command(source, store, *options, codec=PACKED):
    words = [sys.executable, "-m", "seit", "tokenize", str(source), str(store)]
    return [*words, *OPTIONS, *codec, *options]


def running(source, store, *, codec=PACKED):
    """The job as a process, whose output goes to files beside the store."""
    return running_command(command(source, store, codec=codec)[3:], store.parent / "output")


def ended(job, store):
    """Wait for a job: its exit code, stdout and stderr."""
    job.join(WAIT_SECONDS)
    folder = store.parent / "output"
    return job.exitcode, (folder / "out").read_text(), (folder / "err").read_text()


def interrupted_at(name, source, store):
    """Run the job in this process, with Ctrl-C at the moment it opens a file of this name."""

    def hook(event, arguments):
        if event == "open" and str(arguments[0]).endswith(name):
            signal.raise_signal(signal.SIGINT)

    sys.addaudithook(hook)
    main(command(source, store)[3:])


def default_signals():
    """A shell that starts jobs in the background has them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(source, store, codec=PACKED):
    """Run the job to its end: the JSON object that it prints."""
    words = command(source, store, codec=codec)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def finish_here(capsys, source, store):
    """The same without a process of its own, which saves the seconds that one takes to start."""
    capsys.readouterr()
    main(command(source, store)[3:])
    return json.loads(capsys.readouterr().out)


def wait_until(job, reached):
    """Poll until ``reached()``; False when the job ended before."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        if job.exitcode is not None:
            return False
        assert time.monotonic() < deadline, "the job takes too long"
        time.sleep(0.0005)
    return True


def one_error(stderr):
    """The last line of ``stderr``, the only one that says what went wrong."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning: ")]
    bad = [line for line in lines if line.startswith(("error", "interrupted", "Traceback", " "))]
    assert bad == lines[-1:], stderr
    return bad[0]


def done_names(store):
    return {path.stem for path in (store / ".tokenize" / "done").glob("*.json")}


MOMENTS = {
    "fit": lambda store: (store / ".tokenize" / "lock").exists(),
    "first shard": lambda store: (store / "train" / "00000.tar.partial").exists(),
    "between shards": lambda store: "train-00000" in done_names(store),
    "last shard": lambda store: (store / "val" / "00000.tar.partial").exists(),
    "sealing": lambda store: (store / "codebook.safetensors").exists(),
    "card": lambda store: (store / "store.json").exists(),
    "packed card": lambda store: (store / ".tokenize" / "packed" / "store.json").exists(),
    "coded shard": lambda store: (store / "train" / "00000.tar").exists(),
}


def kill_at(moment, source, store, codec=PACKED):
    """Run the job and `kill -9` it at a moment; whether it lived to see it and died of it."""
    with running(source, store, codec=codec) as job:
        reached = wait_until(job, lambda: MOMENTS[moment](store))
        job.kill()
        job.join()
        return reached and job.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(corpus, undisturbed, tmp_path):
    """One store, one `kill -9` in the fit, in a shard, between shards and around sealing each."""
    store = tmp_path / "store"
    for _ in range(3):
        assert kill_at("fit", corpus, store)
        if not (store / ".tokenize" / "job.json").exists():
            break
        shutil.rmtree(store)  # the fit was over before the kill came
    else:
        pytest.fail("the fit was too quick to be hit")
    assert kill_at("first shard", corpus, store)
    assert (store / ".tokenize" / "job.json").exists()
    assert not (store / "store.json").exists()
    assert kill_at("between shards", corpus, store)
    assert "train-00000" in done_names(store)
    first_shard = (store / "train" / "00000.tar").stat().st_mtime_ns
    killed = kill_at("sealing", corpus, store)
    if killed and not (store / "store.json").exists():
        assert done_names(store) == {"train-00000", "train-00001", "train-00002", "val-00000"}
    finish(corpus, store)
    assert (store / "train" / "00000.tar").stat().st_mtime_ns == first_shard, "made once only"
    assert tree(store) == undisturbed


@pytest.mark.slow
def test_killed_while_shards_are_coded_anew_it_ends_with_the_same_bytes(corpus, tmp_path):
    """The job of the default codec, killed before, in and after the coding of its shards."""
    finish(corpus, tmp_path / "undisturbed", codec=())
    store = tmp_path / "store"
    for moment in ("between shards", "packed card", "coded shard"):
        kill_at(moment, corpus, store, codec=())
        if (store / "store.json").exists():
            break
    finish(corpus, store, codec=())
    assert tree(store) == tree(tmp_path / "undisturbed")
    assert verify_store(store).ok


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS)[:6])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(corpus, undisturbed, tmp_path, moment):
    store = tmp_path / "store"
    kill_at(moment, corpus, store)
    finish(corpus, store)
    assert tree(store) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_until_it_is_done(corpus, undisturbed, tmp_path, seed):
    """Kills after random times, most of them long enough to get something done."""
    store, draw = tmp_path / "store", random.Random(seed)
    started = time.monotonic()
    with running(corpus, tmp_path / "timed") as job:
        job.join()
    seconds = time.monotonic() - started
    for _ in range(40):
        with running(corpus, store) as job:
            job.join(draw.uniform(0.4, 1.1) * seconds)
        if (store / "store.json").exists():
            break
    finish(corpus, store)
    assert tree(store) == undisturbed


def test_interrupted_it_says_so_in_one_line_and_goes_on(corpus, undisturbed, tmp_path, capsys):
    store = tmp_path / "store"
    job = fork_recorded(
        interrupted_at, "00001.tar.partial", corpus, store, folder=tmp_path / "output"
    )
    code, out, err = ended(job, store)
    assert (code, out) == (130, "")
    assert done_names(store) == {"train-00000"}
    assert one_error(err).startswith("interrupted; finished work is kept")
    assert not list(store.rglob("*.partial"))
    finish_here(capsys, corpus, store)
    assert tree(store) == undisturbed


def test_interrupted_while_it_still_loads(tmp_path):
    with subprocess.Popen(
        command(tmp_path / "missing", tmp_path / "store"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    ) as job:
        while job.poll() is None and "numpy" not in Path(f"/proc/{job.pid}/maps").read_text():
            time.sleep(0.001)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=WAIT_SECONDS)
    assert job.returncode == 130
    assert out == ""
    assert one_error(err).startswith("interrupted")
    assert not (tmp_path / "store").exists()


def test_a_second_job_is_told_of_the_first(corpus, undisturbed, tmp_path, capsys):
    store = tmp_path / "store"
    with running(corpus, store) as job:
        assert wait_until(job, lambda: MOMENTS["first shard"](store))
        os.kill(job.pid, signal.SIGSTOP)
        before = tree(store)
        for options in ((), ("--overwrite",), ("--seed", "1", "--overwrite")):
            with pytest.raises(SystemExit) as left:
                main(command(corpus, store, *options)[3:])
            out, err = capsys.readouterr()
            assert (left.value.code, out) == (1, "")
            assert one_error(err).startswith("error: another job is writing")
        assert tree(store) == before
        os.kill(job.pid, signal.SIGCONT)
        code, out, err = ended(job, store)
        assert code == 0, err
    assert tree(store) == undisturbed


# ------------------------------------------------------------------------------------ full disks


@pytest.mark.slow
def test_no_room_for_a_shard(corpus, undisturbed, tmp_path, capsys):
    """Portable stand-in for a full disk: no file of this process may become larger than 40 kB."""
    store = tmp_path / "store"
    assert len(undisturbed["train/00000.tar"]) > 40_000 > len(undisturbed["tokenizer.safetensors"])

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    done = subprocess.run(
        command(corpus, store), capture_output=True, text=True, preexec_fn=limit, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert one_error(done.stderr).startswith("error: the disk is full: ")
    assert "train/00000.tar" in done.stderr
    assert not list(store.rglob("*.partial"))
    finish_here(capsys, corpus, store)
    assert tree(store) == undisturbed


def on_a_disk(source, folder, options):
    """Run the job on a new disk, then keep what it left there: all names, and the store."""
    disk = folder / "disk"
    mount_disk(disk, **options)
    try:
        main(command(source, disk / "store")[3:])
    finally:
        (folder / "left").write_text("\n".join(map(str, disk.rglob("*"))))
        if (disk / "store").exists():
            shutil.copytree(disk / "store", folder / "store")


@pytest.fixture
def job_on_disk(corpus, tmp_path):
    """Run the job on a disk that only its process sees: its exit code, stdout and stderr."""
    (tmp_path / "disk").mkdir()
    with (tmp_path / "probe").open("w") as probe, redirect_stderr(probe):
        if exit_codes([fork(mount_disk, tmp_path / "disk")]) != [0]:
            pytest.skip("no process may have disks of its own")

    def run(**options):
        job = fork_recorded(on_a_disk, corpus, tmp_path, options, folder=tmp_path / "output")
        return ended(job, tmp_path / "store")

    return run


@pytest.mark.parametrize(
    "room",
    [
        "second shard",
        pytest.param("tokenizer", marks=pytest.mark.slow),
        pytest.param("first shard", marks=pytest.mark.slow),
        pytest.param("card", marks=pytest.mark.slow),
    ],
)
def test_full_disk(corpus, undisturbed, tmp_path, job_on_disk, capsys, room):
    """A real file system that runs out of space; what is left is completed on another one."""
    shard = len(undisturbed["train/00000.tar"])
    begun = 44_000  # the folder of the job, which keeps lock, tokenizer and codebook
    spaces = {
        "tokenizer": 16_000,
        "first shard": begun + shard // 2,
        "second shard": begun + 8_000 + 3 * shard // 2,
        "card": begun + 8_000 + sum(len(d) for n, d in undisturbed.items() if n.endswith(".tar")),
    }
    code, out, err = job_on_disk(size=spaces[room])
    assert (code, out) == (1, "")
    assert one_error(err).startswith("error: the disk is full: ")
    left = (tmp_path / "left").read_text()
    assert ".partial" not in left
    assert "store.json" not in left
    assert ("train/00000.tar" in left) == (room in ("second shard", "card"))
    finish_here(capsys, corpus, tmp_path / "store")
    assert tree(tmp_path / "store") == undisturbed


def test_store_on_a_read_only_disk(tmp_path, job_on_disk):
    code, out, err = job_on_disk(flags=READ_ONLY)
    assert (code, out) == (2, "")
    line = one_error(err)
    assert line.startswith(f"error: {tmp_path / 'disk' / 'store'}")
    assert "Read-only file system" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_store_in_a_folder_of_somebody_else(corpus, tmp_path, capsys):
    (tmp_path / "theirs").mkdir(mode=0o555)
    with pytest.raises(SystemExit) as left:
        main(command(corpus, tmp_path / "theirs" / "store")[3:])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert "Permission denied" in one_error(err)


# ------------------------------------------------------------------------- where the output goes


def output_of(redirection, *arguments):
    """Exit code and stderr of `python -m seit …` with a shell's redirection."""
    script = f'"$0" -m seit "$@" {redirection}'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}", sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_output_that_nobody_reads():
    assert output_of("| true", "recipes", "list") == (1, "")


def test_output_on_a_full_disk():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    code, err = output_of("> /dev/full", "recipes", "list")
    assert code == 1
    assert one_error(err).startswith("error: the output could not be written: No space")


def test_closed_output():
    assert output_of(">&-", "recipes", "list") == (0, "")
    assert output_of("2>&-", "info", "/nowhere") == (2, "")


@pytest.mark.slow
def test_closed_streams_do_not_end_up_in_the_store(corpus, undisturbed, tmp_path):
    code, _ = output_of("<&- >&- 2>&-", *command(corpus, tmp_path / "store")[3:])
    assert code == 0
    assert tree(tmp_path / "store") == undisturbed
