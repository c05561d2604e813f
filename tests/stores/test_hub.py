"""Uploads to a stand-in of the Hugging Face hub, over HTTP on loopback."""

import huggingface_hub.constants
import pytest
import yaml
from support.hub import served
from support.stores import build_store

import seit
from seit.errors import ChangedError, DamagedError, SeitError, UsageError
from seit.shards import read_card
from seit.stores.hub import hub_name

# huggingface_hub passes files to its HTTP library in an older way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch):
    with served() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", found.token)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield found


@pytest.fixture
def store(tmp_path):
    build_store(tmp_path / "store", shards={"train": (5, 4), "val": (3,)})
    return tmp_path / "store"


def test_a_store_and_its_card_are_uploaded(hub, store, call, tmp_path):
    code, shown, _ = call("convert", store, "hf://me/birds", "--license", "cc0-1.0", "--private")
    assert (code, "12" in shown) == (0, True)
    uploaded = hub.repositories["me/birds"]
    assert hub.private["me/birds"]
    copy = tmp_path / "copy"
    for name, data in uploaded.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    assert seit.verify(copy).ok
    assert read_card(copy) == read_card(store)
    page = uploaded["README.md"].decode()
    front = yaml.safe_load(page.split("---")[1])
    assert front["license"] == "cc0-1.0"
    assert "hf://datasets/me/birds" in page
    asked = hub.asked.copy()
    seit.convert(store, out="hf://datasets/me/birds")
    assert hub.commits["me/birds"] == 2, "a complete upload is left alone"
    assert sum((hub.asked - asked).values()) < 5


def test_an_interrupted_upload_resumes(hub, store, monkeypatch):
    monkeypatch.setattr("seit.stores.hub._COMMIT_FILES", 2)
    steps = []

    def stop(done, total):
        steps.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seit.convert(store, out="hf://me/birds", progress=stop)
    assert "store.json" not in hub.repositories["me/birds"], "the card comes last"
    sent = {name: count for name, count in hub.asked.items() if name.startswith("PUT")}
    seit.convert(store, out="hf://me/birds", progress=lambda *step: steps.append(step))
    assert {name: hub.asked[name] for name in sent} == sent, "nothing is sent twice"
    assert hub.repositories["me/birds"]["store.json"] == (store / "store.json").read_bytes()
    assert steps[-1] == (steps[0][1],) * 2


def test_a_card_that_somebody_wrote_stays(hub, store):
    hub.repositories["me/birds"] = {"README.md": b"mine", ".gitattributes": b""}
    seit.convert(store, out="hf://me/birds")
    assert hub.repositories["me/birds"]["README.md"] == b"mine"


def test_other_contents_are_a_conflict(hub, store, tmp_path):
    hub.repositories["me/notes"] = {"notes.txt": b"mine"}
    with pytest.raises(UsageError, match=r"holds other files, such as 'notes.txt'; choose a new"):
        seit.convert(store, out="hf://me/notes")
    seit.convert(store, out="hf://me/birds")
    build_store(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="holds another store"):
        seit.convert(tmp_path / "other", out="hf://me/birds")
    assert hub.repositories["me/notes"] == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("part", "status", "error", "words"),
    [
        ("/create", 401, UsageError, "does not know the token; set HF_TOKEN"),
        ("/create", 403, UsageError, "may not write there"),
        ("/create", 404, UsageError, "no such user or organization"),
        ("/commit", 409, ChangedError, "at this moment; run the same command again"),
        ("/commit", 412, ChangedError, "has changed it meanwhile; run the same command again"),
        ("/commit", 507, SeitError, "HTTP status 507; run the same command again, it resumes"),
        ("/lfs/", 403, UsageError, "may not write there"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, store, part, status, error, words):
    hub.fails[part] = status
    with pytest.raises(error, match=words) as raised:
        seit.convert(store, out="hf://me/birds")
    assert "\n" not in str(raised.value)


def test_a_hub_that_does_not_answer_is_one_line(hub, store, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SeitError, match="hf://datasets/me/birds cannot be written") as raised:
        seit.convert(store, out="hf://me/birds")
    assert "\n" not in str(raised.value)


def test_a_damaged_store_is_not_uploaded(hub, store):
    shard = store / "val" / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"val.00000.tar does not match the card"):
        seit.convert(store, out="hf://me/birds")


def test_the_hub_is_asked_only_by_its_name(hub, store, tmp_path):
    with pytest.raises(UsageError, match=r"uploads to hf://OWNER/NAME; leave --license"):
        seit.convert(store, out=tmp_path / "copy", license_id="cc0-1.0")
    seit.convert(store, out=tmp_path / "copy")
    for name in ("hf://birds", "hf://me/birds/deep", "hf://models/me/birds/x", "hf://me/b?x"):
        with pytest.raises(UsageError, match="is no repository of the hub"):
            seit.convert(store, out=name)
    assert not hub.asked
    assert hub_name("hf://datasets/me/birds") == hub_name("hf://me/birds") == "me/birds"
