"""Captions by a language model, over real HTTP from a server that speaks the chat protocol and misbehaves on request."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from longplay.data.language_model import EndpointError, LanguageModel
from longplay.data.manifest import Measured, Passage, Track, read_manifest, write_manifest
from longplay.data.written import question, read_answer, write_captions
from longplay.errors import UserError

pytest.importorskip("openai")

PASSAGES = (Passage(start=0, end=10, captions=("heard",), style=(0.5,)),)


def track(name: str, seconds: float = 60) -> Track:
    about = {"kind": "real", "title": "Secret Title", "source": "s", "licence": "CC0", "codec_ok": True}
    facts = {"captions": ("dub",), "bpm": 90.2, "key": "Eb minor", "genre": "dub", "instruments": ("bass",)}
    measured = Measured(brightness=900, density=7, loudness=(0, -1, -3, -6, -9, -12, -14, -20))
    facts["measured"] = measured
    return Track(id=name, path=f"{name}.wav", seconds=seconds, split="train", passages=PASSAGES, **about, **facts)


class Server:
    """Answers chat requests; `faults` are taken first: a status, or a text to answer with."""

    def __init__(self) -> None:
        self.faults: list[int | str] = []
        self.requests: list[dict[str, Any]] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
                with lock:
                    self.requests.append(body | {"path": handler.path})
                    fault = self.faults.pop(0) if self.faults else None
                    number = len(self.requests)
                if isinstance(fault, int):
                    handler.send_response(fault)
                    handler.send_header("retry-after", "0")
                    handler.end_headers()
                    handler.wfile.write(b'{"error": {"message": "injected"}}')
                    return
                text = fault or json.dumps(
                    [f"slow heavy dub, take {number}", f"Dub at 90 bpm in D# minor, take {number}."]
                )
                message = {"role": "assistant", "content": text}
                answer = {
                    "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
                }  # fmt: skip
                handler.send_response(200)
                handler.send_header("content-type", "application/json")
                handler.end_headers()
                handler.wfile.write(json.dumps(answer).encode())

            def log_message(handler, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
    running.thread.join()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "manifest.jsonl", [track(f"t{index}", seconds=60 + index) for index in range(4)])
    return tmp_path / "manifest.jsonl"


def model(server: Server, tmp_path: Path) -> LanguageModel:
    return LanguageModel(server.address, "tiny", tmp_path / "cache", first_wait=0.001)


def test_captions_are_written_counted_and_cached(server: Server, manifest: Path, tmp_path: Path) -> None:
    first = model(server, tmp_path)
    out = tmp_path / "written.jsonl"
    assert write_captions(manifest, out, first, count=2, workers=3) == (4, {})
    tracks = read_manifest(out)
    assert all(each.captions[-1] == "dub" and len(each.captions) == 3 for each in tracks)
    assert len({each.captions[0] for each in tracks}) == 4
    assert all(each.passages == PASSAGES for each in tracks)
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert (first.usage.requests, first.usage.input_tokens, first.usage.output_tokens) == (4, 400, 80)
    assert first.usage.cost(1.0, 10.0) == pytest.approx(1200e-6)

    asked = len(server.requests)
    again = model(server, tmp_path)
    assert write_captions(manifest, tmp_path / "again.jsonl", again, count=2, keep=False) == (4, {})
    assert len(server.requests) == asked
    assert (again.usage.requests, again.usage.cached, again.usage.cost(1, 10)) == (0, 4, 0)
    alone = read_manifest(tmp_path / "again.jsonl")
    assert all(each.passages == tuple(part.wordless for part in PASSAGES) for each in alone)
    assert not any("dub" in each.captions for each in alone)


def test_rate_limits_and_failing_servers_are_waited_for(server: Server, manifest: Path, tmp_path: Path) -> None:
    server.faults = [429, 500, 429, 503]
    asking = model(server, tmp_path)
    assert write_captions(manifest, tmp_path / "out.jsonl", asking, count=2, workers=1).tracks == 4
    assert asking.usage.retries == 4


def test_a_server_that_goes_on_failing_ends_the_run_and_the_next_goes_on(server: Server, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [track(f"t{index}", seconds=60 + index) for index in range(3)])
    asking = model(server, tmp_path)
    server.faults = ['["a slow and heavy dub", "another heavy dub"]', *[500] * 7]
    with pytest.raises(EndpointError, match="failed 7 times.*injected"):
        write_captions(tmp_path / "m.jsonl", tmp_path / "out.jsonl", asking, count=2, workers=1)
    assert not (tmp_path / "out.jsonl").exists()
    server.faults = []
    second = model(server, tmp_path)
    assert write_captions(tmp_path / "m.jsonl", tmp_path / "out.jsonl", second, count=2, workers=1).tracks == 3
    assert second.usage.cached >= 1


def test_a_wrong_key_is_not_tried_again(server: Server, manifest: Path, tmp_path: Path) -> None:
    server.faults = [401]
    with pytest.raises(EndpointError, match="tiny at http.*refuses the request"):
        write_captions(manifest, tmp_path / "out.jsonl", model(server, tmp_path), workers=1)


def test_refusals_are_asked_again_and_then_reported(server: Server, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [track("a"), track("b", seconds=99)])
    server.faults = ["I'm sorry, I cannot listen to music.", '["a", "b"]', "nothing", "I'm sorry, no."]
    found = write_captions(tmp_path / "m.jsonl", tmp_path / "out.jsonl", model(server, tmp_path), count=2, workers=1)
    assert found.tracks == 1
    (reason,) = found.refused.values()
    assert "is no JSON list" in reason
    kept = [each for each in read_manifest(tmp_path / "out.jsonl") if each.id in found.refused]
    assert [each.captions for each in kept] == [("dub",)]


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("Dub at 120 bpm with bass", "a tempo of 120 bpm"),
        ("Slow dub in C major with bass", "the key C major"),
        ("Sure, a slow dub with bass", "a refusal or a preface"),
        ("Bright dub with a heavy bass", "the word 'Bright', where the facts say the opposite"),
        ("Sparse and heavy dub with bass", "the word 'Sparse'"),
        ("A heavy dub that builds up slowly", "the word 'builds up'"),
        ("Heavy dub with a centroid of 900 Hz", "a measurement that no listener would type .900 Hz."),
        ("Heavy dub, 12 dB quieter at the end", "a measurement that no listener would type .12 dB."),
        ("dub", "3 characters"),
        ("long " * 100, "499 characters"),
    ],
)
def test_what_contradicts_the_facts_is_not_believed(caption: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_answer(json.dumps([caption]), track("a"), 1)


@pytest.mark.parametrize(
    "caption",
    [
        "Dub at 90 bpm in D# minor",
        "Heavy dub in E-flat minor",
        "a minor masterpiece of dub",
        "Dark, busy dub that fades out",
    ],
)
def test_what_agrees_is_believed_in_any_spelling(caption: str) -> None:
    assert read_answer(f"```json\n{json.dumps([caption])}\n```", track("a"), 1) == (caption,)
    with pytest.raises(ValueError, match="1 different captions, 2"):
        read_answer(json.dumps([caption, caption]), track("a"), 2)


def test_titles_are_never_told_to_the_model() -> None:
    assert "Secret" not in question(track("a"), 3)
    assert "Eb minor" in question(track("a"), 3)


def test_what_was_measured_is_told_to_the_model() -> None:
    told = json.loads(question(track("a"), 3).splitlines()[0].removeprefix("Facts: "))
    assert told["brightness (median spectral centroid in Hz)"] == 900
    assert told["density (note onsets a second)"] == 7
    assert told["loudness of each eighth in dB below the loudest"] == [0, -1, -3, -6, -9, -12, -14, -20]
    older = track("a").model_copy(update={"measured": None})
    assert "brightness" not in question(older, 3)
    assert read_answer('["Bright dub with a heavy bass"]', older, 1) == ("Bright dub with a heavy bass",)


def test_a_word_that_describes_the_track_already_is_not_questioned() -> None:
    style = track("a").model_copy(update={"genre": "bright dub"})
    assert read_answer('["Bright dub with a heavy bass"]', style, 1) == ("Bright dub with a heavy bass",)


def test_the_new_manifest_must_lie_beside_the_old_one(server: Server, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must lie beside"):
        write_captions(manifest, tmp_path / "other" / "out.jsonl", model(server, tmp_path))
