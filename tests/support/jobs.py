"""Small corpora, and settings and ends of jobs, that the tests of tokenizing share."""

import io
import tarfile
from contextlib import contextmanager

import pytest
from support.files import plant
from support.pictures import png

import seit
from seit.ingest import TokenizeConfig, batches, config, job, plan, tokenize
from seit.ingest.pieces import maker, revision, seal

CONFIG = TokenizeConfig(size=64, codes=64, shard_samples=1024)
LISTING = {"plan": "listing", "fit_samples": None}
"""Changes that make the settings of a job in pieces those of a listed one."""


def small(root, count=40):
    """A folder of a few images of two classes."""
    return plant(root, {f"{'ab'[n % 2]}/{n}.png": png(n, 20) for n in range(count)})


def flawed(root, count, num_broken):
    """As :func:`small`, and a few pictures that cannot be read."""
    return plant(
        small(root, count), {f"a/broken {n}.jpg": b"\xff\xd8\xff" for n in range(num_broken)}
    )


def message(kind, source, store, config=CONFIG):
    """The one-line message with which a job is refused, or fails."""
    with pytest.raises(kind) as caught:
        tokenize(source, store, config)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def stop_after(inputs):
    """A progress callback that interrupts the job after so many inputs."""

    def progress(done, total, skipped):
        if done >= inputs:
            raise KeyboardInterrupt

    return progress


def tar_of(members):
    """The bytes of a tar of (name, content) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def samples_of(numbers, label=lambda n: str(n % 3)):
    """The members of samples for :func:`tar_of`: pictures, and their labels if they have any."""
    for n in numbers:
        yield f"{n:04d}.png", png(n, 24)
        if label(n) is not None:
            yield f"{n:04d}.cls", label(n).encode()


def columns(store, split):
    """Key → (class, ids, metadata) of the samples of a split."""
    opened = seit.open(store)
    return {
        sample.key: (
            opened.classes[sample.label] if sample.label >= 0 else None,
            sample.tokens.tolist(),
            dict(sample.metadata),
        )
        for sample in opened[split]
    }


def assert_same_samples(one, other):
    """Check that two stores hold the same samples, in any order."""
    first, second = seit.open(one), seit.open(other)
    assert first.classes == second.classes
    assert set(first) == set(second)
    for split in first:
        assert columns(one, split) == columns(other, split)
    assert first.card.source_bytes == second.card.source_bytes


@contextmanager
def blocks_of(samples):
    """Let jobs write blocks of so many samples, so that few pictures make several shards."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (batches, config, job, plan, maker, revision, seal):
            patch.setattr(module, "BLOCK_SAMPLES", samples)
        yield
