import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import COMMIT, FakeHub, serve

from longplay.checkpoint import hub, modelscope
from longplay.checkpoint.hub import HubName, download, locate, parse_hub_name
from longplay.checkpoint.system import load_system
from longplay.errors import CheckpointError, DownloadError

FILES = {
    "inspiremusic.yaml": b"llm: 1\n",
    "llm.pt": bytes(range(256)) * 400,
    "music_tokenizer/model.pt": b"codec" * 100,
    "model.safetensors": b"base weights",
}
LONG = HubName("huggingface", "FunAudioLLM/InspireMusic-1.5B-Long")
LONG_MODELSCOPE = HubName("modelscope", "iic/InspireMusic-1.5B-Long")

QWEN = "Qwen/Qwen2.5-0.5B"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that both clients talk to, with empty caches."""
    repositories = {name: dict(FILES) for name in (LONG.repository, LONG_MODELSCOPE.repository, QWEN)}
    with serve(FakeHub(repositories)) as fake:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", fake.url)
        template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", fake.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(modelscope, "client_installed", lambda: False)
        yield fake


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("FunAudioLLM/InspireMusic-1.5B-Long", LONG),
        ("InspireMusic-1.5B-Long", LONG),
        ("someone/their-model@v2", HubName("huggingface", "someone/their-model", "v2")),
        ("modelscope:iic/InspireMusic-1.5B-Long", LONG_MODELSCOPE),
        ("modelscope:InspireMusic-Base@v1", HubName("modelscope", "iic/InspireMusic", "v1")),
        ("runs/lm/last", None),
        ("./model", None),
        ("~/model", None),
        ("model", None),
    ],
)
def test_hub_names(text: str, name: HubName | None) -> None:
    assert parse_hub_name(text) == name


def test_a_directory_wins_over_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "model").mkdir(parents=True)
    assert locate("someone/model") == Path("someone/model")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.*no such directory"):
        locate(tmp_path / "nowhere")


def test_the_bundled_model_lies_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "files", lambda package: tmp_path / package)
    with pytest.raises(CheckpointError, match="not part of this installation"):
        locate("nano")
    (tmp_path / "longplay" / "bundled" / "nano").mkdir(parents=True)
    assert locate("nano") == tmp_path / "longplay" / "bundled" / "nano"


@pytest.mark.parametrize("name", [LONG, LONG_MODELSCOPE], ids=["huggingface", "modelscope"])
class TestBothHubs:
    def test_every_needed_file_arrives(self, server: FakeHub, name: HubName) -> None:
        directory = locate(str(name))
        for path, data in FILES.items():
            if path not in hub.BASE_WEIGHTS:
                assert (directory / path).read_bytes() == data
        assert not (directory / "model.safetensors").exists()

    def test_base_weights_on_request(self, server: FakeHub, name: HubName) -> None:
        assert (download(name, complete=True) / "model.safetensors").read_bytes() == FILES["model.safetensors"]

    def test_of_qwen_they_are_what_there_is(self, server: FakeHub, name: HubName) -> None:
        theirs = HubName(name.hub, QWEN)
        assert (download(theirs) / "model.safetensors").read_bytes() == FILES["model.safetensors"]

    def test_a_second_download_transfers_nothing(self, server: FakeHub, name: HubName) -> None:
        download(name)
        server.requests.clear()
        download(name)
        assert not server.downloads("llm.pt")

    def test_a_cut_connection_is_resumed_where_it_broke(self, server: FakeHub, name: HubName) -> None:
        server.cut["llm.pt"] = 30_000
        directory = download(name)
        assert (directory / "llm.pt").read_bytes() == FILES["llm.pt"]
        assert server.downloads("llm.pt") == [None, "bytes=30000-"]

    def test_offline_uses_the_cache(self, server: FakeHub, name: HubName) -> None:
        online = download(name)
        server.requests.clear()
        assert download(name, offline=True) == online
        assert not server.requests

    def test_offline_without_a_cache_says_so(self, server: FakeHub, name: HubName) -> None:
        with pytest.raises(DownloadError, match=r"offline.*connect and try again"):
            download(name, offline=True)
        assert not server.requests

    def test_an_unknown_model_is_named(self, server: FakeHub, name: HubName) -> None:
        with pytest.raises(DownloadError, match=r"nobody/nothing.*no such model"):
            download(HubName(name.hub, "nobody/nothing"))

    def test_an_unknown_revision_is_named(self, server: FakeHub, name: HubName) -> None:
        with pytest.raises(DownloadError, match=r"v9.*revision"):
            download(HubName(name.hub, name.repository, "v9"))

    @pytest.mark.parametrize("revision", ["v1", COMMIT])
    def test_a_pinned_revision(self, server: FakeHub, name: HubName, revision: str) -> None:
        directory = download(HubName(name.hub, name.repository, revision))
        assert (directory / "inspiremusic.yaml").read_bytes() == FILES["inspiremusic.yaml"]

    def test_a_short_file_is_refused(self, server: FakeHub, name: HubName, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(modelscope, "ATTEMPTS", 1)
        server.lie["llm.pt"] = FILES["llm.pt"][:1000]
        with pytest.raises(DownloadError, match="run again"):
            download(name)


@pytest.mark.tiny_checkpoint
def test_a_published_model_is_opened_by_name(server: FakeHub, golden_directory: Path) -> None:
    source = golden_directory / "tiny_checkpoint"
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    server.repositories["FunAudioLLM/InspireMusic-Base"] = server.repositories["iic/InspireMusic"] = files
    expected = load_system(source)
    for name in ("InspireMusic-Base", "modelscope:iic/InspireMusic"):
        opened = load_system(name)
        assert opened.config == expected.config
        assert opened.digest == expected.digest


def test_a_damaged_file_is_refused(server: FakeHub) -> None:
    server.lie["llm.pt"] = bytes(len(FILES["llm.pt"]))
    with pytest.raises(DownloadError, match=r"llm.pt.*damaged"):
        download(LONG_MODELSCOPE)


def test_an_interrupted_download_is_not_taken_for_a_cached_one(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelscope, "ATTEMPTS", 1)
    server.cut["llm.pt"] = 30_000
    with pytest.raises(DownloadError, match="resume"):
        download(LONG_MODELSCOPE)
    with pytest.raises(DownloadError, match="offline"):
        download(LONG_MODELSCOPE, offline=True)
    assert (download(LONG_MODELSCOPE) / "llm.pt").read_bytes() == FILES["llm.pt"]
    assert server.downloads("llm.pt")[-1] == "bytes=30000-"


def test_a_path_that_leaves_the_directory_is_refused(server: FakeHub) -> None:
    server.repositories[LONG_MODELSCOPE.repository]["../../evil"] = b"x"
    with pytest.raises(DownloadError, match="unsafe path"):
        download(LONG_MODELSCOPE)


@pytest.mark.parametrize("name", [LONG, LONG_MODELSCOPE], ids=["huggingface", "modelscope"])
def test_a_hub_that_is_down(server: FakeHub, name: HubName, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = "http://127.0.0.1:9"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", dead)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", dead)
    with pytest.raises(DownloadError, match=r"(?i)cannot (be reached|reach)"):
        download(name)


@pytest.mark.skipif(not modelscope.client_installed(), reason="needs longplay[modelscope]")
def test_the_modelscope_client_is_used_where_it_is_installed(server: FakeHub) -> None:
    code = f"from longplay.checkpoint.hub import locate; print(locate('{LONG_MODELSCOPE}'))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )  # it reads its settings once
    directory = Path(done.stdout.splitlines()[-1])
    assert (directory / "llm.pt").read_bytes() == FILES["llm.pt"]
    assert not (directory / "model.safetensors").exists()
