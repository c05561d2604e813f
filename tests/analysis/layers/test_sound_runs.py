"""A run over a store of sounds as a subject: its frames are the columns of the grids."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

import seit
from seit.analysis.layers.counterparts import counterparts
from seit.analysis.layers.maps import compare_layers
from seit.analysis.subjects.mel import MelSubject
from seit.analysis.subjects.runs import RunSubject
from seit.errors import UsageError
from seit.stream import read_sounds
from seit.tokenizers import MelConfig, MelTokenizer, save_tokenizer
from seit.training import Run

RATE, WINDOW = 8000, 2000
SECONDS = WINDOW / RATE
MEL = MelConfig(
    sample_rate=RATE, window=WINDOW, hop=125, taper=200, fft=256, bands=16, frames=16, patch=(2, 4)
)
SETTINGS = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "stem": "1/1/0",
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
    },
    "data": {"batch_size": 4},
    "optim": {"lr_batch_size": 0},
    "schedule": {"steps": 2, "warmup_steps": 1},
    "ema": {"decay": 0.0},
    "run": {"device": "cpu", "loggers": []},
}


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Sounds of 0.5 and 1.2 seconds, a store of them, and a run."""
    place = tmp_path_factory.mktemp("heard")
    random = np.random.default_rng(0)
    for number in range(12):
        length = int((1.2 if number % 3 else 0.5) * RATE)
        pitch = 300 + 900 * (number % 2)
        tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(length) / RATE)
        folder = place / "sounds" / ("val" if number < 6 else "train") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number}.wav", tone + 0.02 * random.normal(size=length), RATE)
    waves = torch.from_numpy(random.normal(0, 0.1, (8, WINDOW)).astype(np.float32))
    save_tokenizer(MelTokenizer.fit(waves, MEL, num_codes=16, dim=4), place / "mel.safetensors")
    seit.tokenize(place / "sounds", out=place / "store", tokenizer=str(place / "mel.safetensors"))
    seit.train(place / "store", out=place / "run", config=SETTINGS)
    return place


def test_columns_are_frames_and_windows_have_places(heard):
    store = seit.open(heard / "store")
    subject = RunSubject(Run.open(heard / "run"), store, "val", device=torch.device("cpu"))
    grid = store.card.tokenizer.grid
    share = subject._augment.output_size[1] / grid[1]
    places = {place.key: place for place in subject.places}
    long = [place for place in subject.places if "#" in place.key]
    assert {place.file for place in long} <= {key.partition("#")[0] for key in places}
    for place in subject.places:
        number = int(place.key.partition("#")[2] or 0)
        margin = (1 - share) / 2 * SECONDS
        assert place.start == pytest.approx(number * SECONDS + margin)
        assert place.seconds == pytest.approx(share * SECONDS)
    clips = list(subject.clips())
    columns = subject._augment.output_size[1]
    tokens = torch.from_numpy(np.stack([clip.tokens for clip in clips]))
    with torch.inference_mode():
        inputs = subject._augment.evaluate(tokens)
        states = subject.model.forward_intermediates(inputs, intermediates_only=True, norm=False)
    for row, clip in enumerate(clips):
        assert clip.tokens.shape == grid
        assert clip.rate("tokens") == pytest.approx(columns / (share * SECONDS))
        frames = inputs[row].permute(2, 1, 0).flatten(1)
        assert np.allclose(clip.values["tokens"], frames, atol=1e-6)
        frames = states[0][row].permute(2, 1, 0).flatten(1)
        assert np.allclose(clip.values["blocks.0"], frames, atol=1e-5)


def test_a_run_is_compared_with_the_spectrograms_of_its_files(heard):
    store = seit.open(heard / "store")
    subject = RunSubject(Run.open(heard / "run"), store, "val", device=torch.device("cpu"))
    sounds = read_sounds(str(heard / "sounds"), split="val")
    mel = MelSubject(sounds.clips, classes=sounds.classes)
    matches = counterparts(subject, mel)
    assert len(matches) == len(subject.places) > len(mel.places)
    for match in matches:
        own, other = subject.places[match.row], mel.places[match.other]
        assert own.file == other.file
        assert own.start <= match.start < match.end <= own.start + own.seconds
        assert match.end <= other.start + other.seconds + 1e-9
    values = np.array(compare_layers(subject, mel).cka)
    assert values.shape == (len(subject.layers), 1)
    assert values[0, 0] > 0.2, "codes of a spectrogram are like it"


def test_a_comparison_is_not_that_of_other_sounds(heard, tmp_path):
    sounds = read_sounds(str(heard / "sounds"), split="val")
    last = sounds.clips[-1]
    changed = [*sounds.clips[:-1], replace(last, samples=last.samples[::-1])]
    mel, other = (MelSubject(clips, classes=sounds.classes) for clips in (sounds.clips, changed))
    first = compare_layers(mel, mel, out=tmp_path / "out")
    again = compare_layers(mel, mel, out=tmp_path / "out", resume=True)
    assert again.record() == first.record()
    with pytest.raises(UsageError, match=r"the finished analysis at .* differs in data"):
        compare_layers(mel, other, out=tmp_path / "out", resume=True)


def test_a_run_reads_the_data_of_its_store(heard):
    store = seit.open(heard / "store")
    subject = RunSubject(Run.open(heard / "run"), store, "val", device=torch.device("cpu"))
    assert subject.fingerprint() == store.card.seal
