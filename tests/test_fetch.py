"""Downloads from a server in this process, archives that mean harm, what `check` says, and the four commands."""

import hashlib
import http.server
import io
import re
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from coordreg.data import commands, fetch
from coordreg.data.commands import data_app
from coordreg.data.fetch import DATASETS, DataSet, Remote, check, download, extract

CONTENT = bytes(range(256)) * 400
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; breaks off after `cut` bytes; ignores ranges if told to."""

    files: dict[str, bytes]
    cut: int | None = None
    ranges = True
    asked: list[str | None]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.cut])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.files, made.asked = {"/a.bin": CONTENT}, []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


# -- download ---------------------------------------------------------------------------------------------------------


def test_download_checks_and_keeps(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.bin"
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert download(f"{server.address}/a.bin", path, SHA, md5, progress=False) == path
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
    download(f"{server.address}/a.bin", path, SHA, progress=False)
    assert len(server.asked) == 1
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"a\.bin: got sha256 .* expected .* damaged or another version"):
        download(f"{server.address}/a.bin", path, SHA, progress=False)


def test_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    for sha, md5 in (("0" * 64, None), (None, "0" * 32)):
        with pytest.raises(ValueError, match=r"expected 0000"):
            download(f"{server.address}/a.bin", tmp_path / "a.bin", sha, md5, progress=False)
        assert not list(tmp_path.iterdir())


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    server.cut = 30_000
    with pytest.raises(ConnectionError, match=r"30000 bytes are kept, run again"):
        download(f"{server.address}/a.bin", path, SHA, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin.part"]
    server.cut = None
    download(f"{server.address}/a.bin", path, SHA, progress=False)
    assert server.asked == [None, "bytes=30000-"]
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"x" * 500)
    server.ranges = False
    download(f"{server.address}/a.bin", tmp_path / "a.bin", SHA, progress=False)
    assert server.asked == ["bytes=500-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(("part", "requests"), [(CONTENT, 1), (CONTENT + b"more", 2)])
def test_a_part_that_is_long_enough(server: Server, tmp_path: Path, part: bytes, requests: int) -> None:
    (tmp_path / "a.bin.part").write_bytes(part)
    download(f"{server.address}/a.bin", tmp_path / "a.bin", SHA, progress=False)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.asked) == requests


def test_offline_and_absent_are_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"answered 404 .*the address may have moved"):
        download(f"{server.address}/b.bin", tmp_path / "b.bin", progress=False)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"cannot fetch .*0 bytes are kept.*--archive"):
        download(f"{server.address}/a.bin", tmp_path / "a.bin", progress=False, timeout=2.0)
    with pytest.raises(ValueError, match="expected one that begins with https"):
        download("file:///etc/hostname", tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


# -- archives ---------------------------------------------------------------------------------------------------------


def make_zip(path: Path, files: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_extract_with_and_without_anchor(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    archive = make(tmp_path / "a.x", {"top/joints.mat": b"1", "top/images/im1.jpg": b"22", "other/readme": b"3"})
    assert extract(archive, tmp_path / "plain") == 3
    assert (tmp_path / "plain/top/images/im1.jpg").read_bytes() == b"22"
    assert extract(archive, tmp_path / "set", "joints.mat") == 2
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["images", "joints.mat"]
    with pytest.raises(ValueError, match=r"holds no examples\.mat"):
        extract(archive, tmp_path / "no", "examples.mat")
    with pytest.raises(ValueError, match=r"joints\.mat: got md5"):
        extract(archive, tmp_path / "md5", "joints.mat", "0" * 32)
    assert not list((tmp_path / "md5").iterdir())


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil", "C:evil"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, make, name: str) -> None:  # type: ignore[no-untyped-def]
    archive = make(tmp_path / "a.x", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match="leads out of its folder; nothing was unpacked"):
        extract(archive, tmp_path / "in" / "to")
    assert [p.name for p in tmp_path.iterdir()] == ["a.x"]


def test_links_are_refused(tmp_path: Path) -> None:
    for archive in (
        make_zip(tmp_path / "a.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777),
        make_tar(tmp_path / "a.tar", {"link": b""}, tarfile.SYMTYPE),
        make_tar(tmp_path / "b.tar", {"link": b""}, tarfile.LNKTYPE),
        make_tar(tmp_path / "c.tar", {"pipe": b""}, tarfile.FIFOTYPE),
    ):
        with pytest.raises(ValueError, match="a link or device; nothing was unpacked"):
            extract(archive, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_damaged_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    tar = make_tar(tmp_path / "a.tar.gz", {"a": noise, "b": noise})
    tar.write_bytes(tar.read_bytes()[:60_000])
    zipped = make_zip(tmp_path / "a.zip", {"a": noise})
    data = bytearray(zipped.read_bytes())
    data[20_000] ^= 255
    zipped.write_bytes(data)
    for archive in (tar, zipped):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            extract(archive, tmp_path / "into")
        assert not list(tmp_path.glob("into/*"))
    (tmp_path / "page.zip").write_text("<html>sign in</html>")
    with pytest.raises(ValueError, match="neither a zip nor a tar file; it may be a web page"):
        extract(tmp_path / "page.zip", tmp_path / "into")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"needs .* GB unpacked"):
        extract(make_zip(tmp_path / "b.zip", {"a": noise}), tmp_path / "into")


# -- check and commands -----------------------------------------------------------------------------------------------


def mini_lspet(folder: Path, count: int = 3) -> None:
    """A tiny LSPET in its own layout, the last column NaN."""
    table = np.full((14, 3, count + 1), np.nan)
    table[:, :2, :count] = np.random.default_rng(0).uniform(20, 90, (14, 2, count))
    table[:, 2, :count] = 1
    (folder / "images").mkdir(parents=True)
    savemat(folder / "joints.mat", {"joints": table})
    for i in range(count):
        Image.new("RGB", (110, 110), (90, 120, 40 * i)).save(folder / "images" / f"im{i + 1:05d}.jpg")


def run(*args: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(data_app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    assert not isinstance(result.exception, ValueError | OSError)
    return re.sub(r"\s+", " ", result.output)


def test_check_counts_and_names(tmp_path: Path) -> None:
    mini_lspet(tmp_path / "lspet")
    (tmp_path / "lspet/images/im00002.jpg").unlink()
    report = check("lspet", tmp_path)
    assert report.state == "partial"
    assert report.absent == ("im00002.jpg",)
    said = run("check", "lspet", "--root", tmp_path)
    assert "not the official file" in said
    assert "3 of 4 columns labelled" in said
    assert "2 of 3 labelled ones are there, 1 absent" in said
    assert "im00002" not in said
    assert "absent: im00002.jpg" in run("check", "lspet", "--root", tmp_path, "--verbose")


def test_official_labels_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini_lspet(tmp_path / "lspet")
    known = DATASETS["lspet"]
    md5 = fetch.digest(tmp_path / "lspet/joints.mat", "md5")
    fake = DataSet(known.name, known.title, known.home, known.terms, labels_md5=md5)
    monkeypatch.setitem(DATASETS, "lspet", fake)
    assert check("lspet", tmp_path).state == "complete"
    assert "the official file" in check("lspet", tmp_path).lines[0]


def test_check_of_sets_that_are_not_there(tmp_path: Path) -> None:
    for name in DATASETS:
        report = check(name, tmp_path)
        assert (report.name, report.state) == (name, "missing")
        assert DATASETS[name].home in run("check", name, "--root", tmp_path, code=1)
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/person_keypoints_val2017.json").write_text("{}")
    report = check("coco", tmp_path)
    assert report.state == "partial"
    assert "val2017/*.jpg" in report.absent
    assert "got the data set 'lps', expected one of ['coco'" in run("check", "lps", code=1)


def test_fetch_from_a_mirror(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini_lspet(tmp_path / "source")
    files = {
        f"lsp-abc/{p.relative_to(tmp_path / 'source')}": p for p in (tmp_path / "source").rglob("*") if p.is_file()
    }
    server.files["/HEAD.zip"] = make_zip(tmp_path / "a.zip", {k: p.read_bytes() for k, p in files.items()}).read_bytes()
    known = DATASETS["lspet"]
    md5 = fetch.digest(tmp_path / "source/joints.mat", "md5")
    for labels, code in (("0" * 32, 1), (md5, 0)):
        remote = Remote("all", f"{server.address}/HEAD.zip", anchor="joints.mat")
        fake = DataSet(known.name, known.title, known.home, known.terms, (remote,), "", known.expects, labels)
        monkeypatch.setitem(DATASETS, "lspet", fake)
        said = run("fetch", "lspet", "--root", tmp_path / "data", code=code)
        assert ("joints.mat: got md5" in said) == bool(code)
        assert (tmp_path / "data/lspet/joints.mat").exists() == (not code)
    assert "unpacked 4 files" in said
    assert "lspet: complete" in said
    assert sorted(p.name for p in (tmp_path / "data/lspet").iterdir()) == ["images", "joints.mat"]
    # By hand, from an archive or another address: a partial copy is accepted, and called one.
    monkeypatch.setitem(DATASETS, "lspet", known)
    said = run("fetch", "lspet", "--root", tmp_path / "hand", "--archive", tmp_path / "a.zip")
    assert "lspet: partial" in said
    assert "not the official file" in said
    run("fetch", "lspet", "--root", tmp_path / "other", "--url", f"{server.address}/HEAD.zip", "--keep")
    assert (tmp_path / "other/lspet/archives/given-HEAD.zip").exists()


def test_fetch_says_where_to_turn(tmp_path: Path) -> None:
    assert "kaggle.com" in run("fetch", "lsp", "--root", tmp_path, code=1)
    assert "drive.google.com" in run("fetch", "flic", "--root", tmp_path, code=1)
    assert "only checks human36m" in run("fetch", "human36m", "--root", tmp_path, code=1)
    assert "expected some of ['annotations', 'val2017', 'train2017']" in run(
        "fetch", "coco", "--root", tmp_path, "--part", "val", code=1
    )
    assert "there is no file" in run("fetch", "lsp", "--root", tmp_path, "--archive", tmp_path / "no.zip", code=1)
    fake = make_zip(tmp_path / "FLIC.zip", {"FLIC/examples.mat": b"not the real one"})
    assert "got sha256" in run("fetch", "flic", "--root", tmp_path, "--archive", fake, code=1)
    assert [p.name for p in tmp_path.iterdir()] == ["FLIC.zip"]


def test_large_parts_are_fetched_only_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    coco = DATASETS["coco"]
    assert [r.part for r in commands._chosen(coco, None, None, None)] == ["annotations", "val2017"]
    assert "--part train2017 (19 GB" in capsys.readouterr().out
    assert [r.part for r in commands._chosen(coco, ["train2017"], None, None)] == ["train2017"]


def test_the_table_is_sound() -> None:
    for known in DATASETS.values():
        assert known.terms
        assert known.remotes or known.manual
        for remote in known.remotes:
            assert remote.url.startswith(("https://", "http://images.cocodataset.org/"))
            assert remote.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", remote.sha256)
        assert known.labels_md5 is None or re.fullmatch(r"[0-9a-f]{32}", known.labels_md5)


def test_pack_and_show(tmp_path: Path) -> None:
    mini_lspet(tmp_path / "lspet")
    out = tmp_path / "p.npz"
    said = run("pack", "lspet", "--size", "40", "--root", tmp_path, "--out", out)
    assert "lspet: 3 packed, 0 images absent, 1 columns without labels" in said
    assert out.is_file()
    sheet = tmp_path / "out" / "sheet.png"
    run("show", "lspet", "--root", tmp_path, "--out", sheet, "--count", "5", "--size", "60")
    with Image.open(sheet) as image:
        assert image.size == (180, 60)
        colours = image.convert("RGB").getcolors() or []
    seen = {colour: count for count, colour in colours}
    left, right, middle = ((228, 87, 46), (46, 134, 228), (242, 193, 78))
    assert min(seen[left], seen[right], seen[middle]) > 50
    assert "expected one of ['lsp', 'lspet']" in run("show", "mpii", "--out", sheet, code=1)

    victim = tmp_path / "lspet/images/im00001.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    assert "im00001.jpg is not a whole picture" in run("pack", "lspet", "--root", tmp_path, "--out", out, code=1)
    said = run("pack", "lspet", "--root", tmp_path, "--out", out, "--skip-corrupt", "--size", "40")
    assert "2 packed" in said
    assert "1 corrupt skipped: im00001.jpg" in said
    assert "im00001.jpg" in run("show", "lspet", "--root", tmp_path, "--out", sheet, code=1)
    assert "1 damaged skipped: im00001.jpg" in run(
        "show", "lspet", "--root", tmp_path, "--out", sheet, "--skip-corrupt"
    )
