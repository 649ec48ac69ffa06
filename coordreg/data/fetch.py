"""Where data sets come from, and how they are fetched: checked, resumable, nothing half-written under a final name.

No loader downloads by itself; only `python -m coordreg data fetch NAME` does. What may not be downloaded for you (an
account, a licence to accept, a site that is gone) is said with the page to turn to.
"""

import gzip
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from coordreg.data import lsp

CHUNK = 1 << 18


@dataclass(frozen=True)
class Remote:
    """One archive. size: bytes. anchor: a file whose folder becomes the set's own. large: fetched only if asked for."""

    part: str
    url: str
    size: int | None = None
    sha256: str | None = None
    anchor: str | None = None
    large: bool = False


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set. expects: (pattern under its folder, how many files, or None for at least one)."""

    name: str
    title: str
    home: str
    terms: str
    remotes: tuple[Remote, ...] = ()
    manual: str = ""
    expects: tuple[tuple[str, int | None], ...] = ()
    labels_md5: str | None = None


_COCO, _ANNOTATIONS = "http://images.cocodataset.org", "annotations/annotations_trainval2017.zip"
_MPII = "https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1"
_SHA = {
    "annotations": "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    "val2017": "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    "train2017": "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    "FLIC": "778a4847f068592af40e959381c153838e4f68bb1d798e3824a9d88e5b881955",
}
DATASETS = {
    d.name: d
    for d in (
        DataSet(
            "lsp",
            "Leeds Sports Pose, 2,000 photographs",
            "http://sam.johnson.io/research/lsp.html (offline since about 2021)",
            "no licence stated; cite Johnson and Everingham, BMVC 2010; research use",
            manual="The official lsp_dataset.zip is no longer online. A copy is on Kaggle (an account is needed): "
            "https://www.kaggle.com/datasets/dkrivosic/leeds-sports-pose-lsp . Give a zip you have with "
            "--archive FILE, or the address of a copy with --url.",
            expects=(("joints.mat", 1), ("images/im*.jpg", 2000)),
            labels_md5="6f6b4d6ab03c9e0883a5a2fb641f0507",
        ),
        DataSet(
            "lspet",
            "Leeds Sports Pose Extended, 10,000 photographs",
            "http://sam.johnson.io/research/lspet.html (offline since about 2021)",
            "no licence stated; cite Johnson and Everingham, CVPR 2011; research use",
            (Remote("all", "https://github.com/axelcarlier/lsp/archive/HEAD.zip", anchor="joints.mat"),),
            expects=(("joints.mat", 1), ("images/im*.jpg", 10000)),
            labels_md5="19f4db95af06c8d38bea3658c6c34728",
        ),
        DataSet(
            "mpii",
            "MPII Human Pose, about 25,000 photographs",
            "http://human-pose.mpi-inf.mpg.de/",
            "free for research; simplified BSD licence; cite Andriluka et al., CVPR 2014",
            (Remote("labels", f"{_MPII}_u12_2.zip"), Remote("images", f"{_MPII}.tar.gz", large=True)),
            expects=(("mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat", 1), ("images/*.jpg", None)),
        ),
        DataSet(
            "coco",
            "COCO 2017 key points",
            "https://cocodataset.org/",
            "annotations CC BY 4.0; photographs under their Flickr licences",
            (
                Remote("annotations", f"{_COCO}/{_ANNOTATIONS}", 252907541, _SHA["annotations"]),
                Remote("val2017", f"{_COCO}/zips/val2017.zip", 815585330, _SHA["val2017"]),
                Remote("train2017", f"{_COCO}/zips/train2017.zip", 19336861798, _SHA["train2017"], large=True),
            ),
            expects=(
                ("annotations/person_keypoints_val2017.json", 1),
                ("annotations/person_keypoints_train2017.json", 1),
                ("val2017/*.jpg", 5000),
                ("train2017/*.jpg", 118287),
            ),
        ),
        DataSet(
            "flic",
            "FLIC, 5,003 people in 4,552 film stills",
            "https://bensapp.github.io/flic-dataset.html",
            "the page says MIT; stills from films, keep to research; cite Sapp and Taskar, CVPR 2013",
            manual="FLIC.zip is on Google Drive, which asks a browser to confirm: "
            "https://drive.google.com/uc?id=0B4K3PZp8xXDJN0Fpb0piVjQ3Y3M&export=download . Then give it with "
            f"--archive FLIC.zip (300257553 bytes, sha256 {_SHA['FLIC']}).",
            expects=(("examples.mat", 1), ("images/*.jpg", 4552)),
        ),
        DataSet(
            "human36m",
            "Human3.6M",
            "http://vision.imar.ro/human3.6m/",
            "academic use with an account and a signed licence; no redistribution",
            manual="Human3.6M may only be fetched by its licensees, from http://vision.imar.ro/human3.6m/ ; unpack its "
            "archives as S1/MyPoseFeatures/..., S1/Videos/... and so on, then run `data check human36m`.",
            expects=tuple((f"S{s}/MyPoseFeatures/D3_Positions/*.cdf", None) for s in (1, 5, 6, 7, 8, 9, 11)),
        ),
    )
}
#: Archives given by hand whose hash is known.
ARCHIVES = {"FLIC.zip": _SHA["FLIC"]}


def dataset(name: str) -> DataSet:
    """Look a data set up. Raises ValueError, listing what there is."""
    if name not in DATASETS:
        raise ValueError(f"data: got the data set {name!r}, expected one of {sorted(DATASETS)}")
    return DATASETS[name]


# -- download ---------------------------------------------------------------------------------------------------------


def digest(path: Path, kind: str = "sha256") -> str:
    """The hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def verify(path: Path, sha256: str | None = None, md5: str | None = None) -> None:
    """Raise ValueError if the file does not have the hashes given."""
    for kind, want in (("sha256", sha256), ("md5", md5)):
        if want is not None and (got := digest(path, kind)) != want:
            raise ValueError(f"{path.name}: got {kind} {got}, expected {want}; the file is damaged or another version")


def download(
    url: str,
    path: Path,
    sha256: str | None = None,
    md5: str | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> Path:
    """Fetch `url` to `path`, going on where an earlier attempt stopped.

    The file appears whole and checked, or not at all; one already there is kept if it has the hashes given. Raises
    ConnectionError if the host cannot be reached or breaks off (what came is kept as `path`.part), ValueError if the
    hash is wrong (nothing is kept).
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"download: got the address {url!r}, expected one that begins with https:// or http://")
    if path.exists():
        verify(path, sha256, md5)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    try:
        try:
            _receive(url, part, start, path.name, progress, timeout)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not start:
                raise
            # 416, nothing after `start`: the part is the whole file, or one longer than what is there now.
            if not str(error.headers.get("Content-Range", "")).endswith(f"/{start}"):
                part.unlink()
                _receive(url, part, 0, path.name, progress, timeout)
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"{url} answered {error.code} {error.reason}; the address may have moved") from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise OSError(28, f"the disk is full; free some space and run again, {part} is kept") from error
        kept = part.stat().st_size if part.exists() else 0
        raise ConnectionError(
            f"cannot fetch {url} ({error}); {kept} bytes are kept, run again with a network to go on from there. "
            "On a machine without one, fetch the file elsewhere and give it with --archive"
        ) from error
    try:
        verify(part, sha256, md5)
    except ValueError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def _receive(url: str, part: Path, start: int, label: str, progress: bool, timeout: float) -> None:
    headers = {"User-Agent": "coordreg"} | ({"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
        resumed = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
        start = start if resumed else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(total=total, initial=start, desc=label, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() < total:
                raise http.client.IncompleteRead(b"", total - file.tell())


# -- archives ---------------------------------------------------------------------------------------------------------


def extract(archive: Path, into: Path, anchor: str | None = None, md5: str | None = None) -> int:
    """Unpack a zip or tar file into a folder and return the number of files.

    All names are looked at before anything is written: links, devices and paths out of the folder are refused.
    anchor: the name of a file; its folder in the archive becomes `into`, and what lies outside of that folder is left.
    md5: the anchor's. Raises ValueError for an unsafe, damaged or unknown archive, or one the disk has no room for.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                infos = [i for i in zipped.infolist() if not i.is_dir()]
                odd = [i.filename for i in infos if stat.S_IFMT(i.external_attr >> 16) not in (0, stat.S_IFREG)]
                files = {i.filename: i.file_size for i in infos}
                return _unpack(_plan(archive, files, odd, into, anchor), zipped.open, into, anchor, md5)
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarred:
                members = [m for m in tarred.getmembers() if not m.isdir()]
                files = {m.name: m.size for m in members}
                odd = [m.name for m in members if not m.isreg()]
                return _unpack(_plan(archive, files, odd, into, anchor), tarred.extractfile, into, anchor, md5)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}); it is damaged, fetch it again") from error
    raise ValueError(f"{archive} is neither a zip nor a tar file; it may be a web page saved under this name")


def _plan(
    archive: Path, files: dict[str, int], odd: list[str], into: Path, anchor: str | None
) -> dict[str, PurePosixPath]:
    """Which member goes where, after looking at all of them."""
    if odd:
        raise ValueError(f"{archive} holds {odd[0]!r}, a link or device; nothing was unpacked, do not use it")
    paths = {name: PurePosixPath(name.replace("\\", "/")) for name in files}
    for name, path in paths.items():
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise ValueError(f"{archive} holds {name!r}, which leads out of its folder; nothing was unpacked")
    if anchor is not None:
        homes = sorted((p.parent for p in paths.values() if p.name == anchor), key=lambda p: len(p.parts))
        if not homes:
            raise ValueError(f"{archive} holds no {anchor}; it is not the data set asked for")
        paths = {n: p.relative_to(homes[0]) for n, p in paths.items() if p.is_relative_to(homes[0])}
    into.mkdir(parents=True, exist_ok=True)
    need, free = sum(files[name] for name in paths), shutil.disk_usage(into).free
    if need > free:
        raise ValueError(f"{archive} needs {need / 1e9:.1f} GB unpacked and {into} has {free / 1e9:.1f} GB free")
    return paths


def _unpack(
    paths: dict[str, PurePosixPath], opener: Callable[[str], Any], into: Path, anchor: str | None, md5: str | None
) -> int:
    """Unpack aside and move at the end: a kill leaves a folder to throw away, no half a picture."""
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=into) as aside:
        for name, path in tqdm(paths.items(), desc="unpack", unit="file", disable=len(paths) < 100):
            target = Path(aside) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with opener(name) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
        if anchor is not None:
            verify(Path(aside) / anchor, md5=md5)
        for path in paths.values():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(aside) / path, into / path)
    return len(paths)


# -- check ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What of a data set is there. state: "complete", "partial" or "missing". absent: names of files not there."""

    name: str
    folder: Path
    state: str
    lines: tuple[str, ...]
    absent: tuple[str, ...] = ()


def check(name: str, root: Path) -> Report:
    """Look at what of a data set lies under `root`; photographs are counted, not opened."""
    known = dataset(name)
    if name in lsp.DIGITS:
        return _check_lsp(known, Path(root))
    base = Path(root) / name
    lines, absent, found = [], [], 0
    for pattern, want in known.expects:
        count = sum(1 for _ in base.glob(pattern)) if base.is_dir() else 0
        lines.append(
            f"{pattern}: {count}" + (f" of {want}" if want is not None else "") + ("" if count else " (missing)")
        )
        found += count
        absent += [pattern] if count < (want or 1) else []
    state = "missing" if not found else ("partial" if absent else "complete")
    return Report(name, base, state, tuple(lines), tuple(absent))


def _check_lsp(known: DataSet, root: Path) -> Report:
    try:
        base = lsp.folder(root, known.name)
    except ValueError as error:
        return Report(known.name, root / known.name, "missing", (str(error),), ("joints.mat",))
    official = digest(base / "joints.mat", "md5") == known.labels_md5
    records = lsp.read(root, known.name)
    total = len(records.paths) + len(records.absent) + records.unlabelled
    labels = "the official file" if official else "not the official file: a partial or re-saved copy"
    lines = (
        f"joints.mat: {labels}; {total - records.unlabelled} of {total} columns labelled",
        f"images: {len(records.paths)} of {total - records.unlabelled} labelled ones are there, "
        f"{len(records.absent)} absent",
        *((f"{records.unlabelled} columns without labels are left out",) if records.unlabelled else ()),
    )
    if not records.paths:
        return Report(known.name, base, "missing", lines, tuple(records.absent))
    state = "complete" if official and not records.absent else "partial"
    return Report(known.name, base, state, lines, tuple(records.absent))
