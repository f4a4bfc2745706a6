"""Excerpts of a corpus as Ogg/Opus files with a manifest, within a size: what travels to a machine that reaches nothing.

Usage: pack.py MANIFEST OUT MIB [SECONDS] [KBPS]. Every track gives an excerpt from its middle, in an order that mixes all
sources, until MIB mebibytes are full; an eighth of them is for the valid split.
"""

import random
import sys
from pathlib import Path

import soundfile as sf

from longplay.data.manifest import MANIFEST, Split, Track, read_manifest, write_manifest


def excerpt(track: Track, source: Path, out: Path, seconds: float, kbps: float) -> Track:
    """Write the middle of a track; what the manifest says of times inside it no longer holds and is left out."""
    with sf.SoundFile(source) as file:
        rate, frames = file.samplerate, round(seconds * file.samplerate)
        file.seek(max(0, (file.frames - frames) // 2))
        wav = file.read(frames, dtype="float32", always_2d=True).mean(1)
    path = out / f"{track.id}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)
    # libsndfile: 0 is 256 kb/s, 1 is 6 kb/s, linear between them
    sf.write(path, wav, rate, format="OGG", subtype="OPUS", compression_level=(256 - kbps) / 250)
    change = {
        "path": str(path.relative_to(out)),
        "seconds": len(wav) / rate,
        "sections": (),
        "chords": (),
        "bars": (),
        "passages": (),
    }
    return track.model_copy(update=change)


def pack(manifest: Path, out: Path, mebibytes: float, seconds: float, kbps: float) -> list[Track]:
    """Excerpts of as many tracks as fit; the files that are left out of `manifest` are those of later tracks."""
    kept: list[Track] = []
    shares: dict[Split, float] = {"train": 7 / 8, "valid": 1 / 8}
    for split, share in shares.items():
        tracks = [track for track in read_manifest(manifest) if track.split == split]
        random.Random(0).shuffle(tracks)
        left = share * mebibytes * 2**20
        for index, track in enumerate(tracks):
            packed = excerpt(track, manifest.parent / track.path, out, seconds, kbps)
            left -= (out / packed.path).stat().st_size
            if left < 0 and index:  # every split has one, however small the size
                (out / packed.path).unlink()
                break
            kept.append(packed)
    write_manifest(out / MANIFEST, kept)
    return kept


if __name__ == "__main__":
    arguments = [float(value) for value in sys.argv[3:]]
    size, length, rate = (*arguments, *(44.0, 60.0, 96.0)[len(arguments) :])
    packed = pack(Path(sys.argv[1]), Path(sys.argv[2]), size, length, rate)
    print(f"{len(packed)} excerpts, {sum(track.seconds for track in packed) / 3600:.2f} h")
