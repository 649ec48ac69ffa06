"""Records: written whole, refused when altered, never trained twice, stale when the code they ran has changed."""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from coordreg import running
from coordreg.baseline import Blind, MeanPose, OnePose
from coordreg.coords import to_pixels
from coordreg.experiments import cascade, dark, dsnt, heatmap, integral, names, runs, stn, table
from coordreg.experiments.table import results
from coordreg.heatmap import Argmax, QuarterSecond, QuarterSign
from coordreg.method import Estimator
from coordreg.metrics.scoring import Scoring
from coordreg.records import (
    PROFILES,
    Reading,
    Record,
    RecordError,
    Run,
    checkpoint_of,
    checksum,
    code_path,
    complete,
    find,
    load,
    path_of,
    root,
    write,
)
from coordreg.rewritten import REWRITTEN
from coordreg.running import execute, run_all
from coordreg.spec import describe, digest, spec
from coordreg.train import Training


@pytest.fixture(autouse=True)
def _stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDREG_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COORDREG_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COORDREG_DEVICE", "cpu")


def _runs(**changes: object) -> list[Run]:
    return [replace(run, **changes) for run in runs("heatmap-resolution", "smoke")]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """One smoke run, trained once for the tests that only read it."""
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COORDREG_RESULTS", str(folder / "results"))
        patch.setenv("COORDREG_RUNS", str(folder / "runs"))
        patch.setenv("COORDREG_DEVICE", "cpu")
        return execute(runs("heatmap-resolution", "smoke")[-1], "smoke", progress=False)


def test_a_record_names_what_it_must(made: Record) -> None:
    assert made["config"]["seed"] == 0
    assert made["made"]["device"].startswith("cpu")
    assert set(made["made"]["versions"]) >= {"torch", "torchvision", "numpy"}
    assert made["made"]["commit"]
    assert made["made"]["interpreter"] in ("project", "own")
    assert made["images_seen"] == 48
    assert set(made["data"]) == {"train", "test", "test_images"}
    assert "coordreg.heatmap.Gaussian" in made["code"]
    assert "coordreg.train.fit" in made["code"]
    assert "coordreg.plots" not in " ".join(made["code"])
    reading = made.reading("quarter")
    assert len(reading["curve"]) == 51
    assert set(reading["joints"]["0.5"]) >= {"r_wrist", "head_top"}
    assert made.path.with_suffix(".npz").stat().st_size < 200_000


def test_a_file_has_a_line_a_key_and_names_its_fingerprints(made: Record) -> None:
    lines = made.path.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("{", "}")
    assert [json.loads(f"{{{line.rstrip(',')}}}") for line in lines[1:-1]] == [
        {key: value} for key, value in json.loads(made.path.read_text()).items()
    ]
    stored = json.loads(made.path.read_text())
    assert list(stored) == list(made.data)
    assert json.loads(code_path(made.path, stored["code"]).read_text()) == made["code"]
    readings = {name: reading["code"] for name, reading in stored["readings"].items()}
    for name, code in readings.items():
        assert json.loads(code_path(made.path, code).read_text()) == made.reading(name)["code"] != {}
    assert readings["argmax"] != readings["quarter"] == readings["quarter-flip"]  # flips are outside the decoder
    there = {path.stem for path in code_path(made.path, "").parent.iterdir()}
    assert there == {stored["code"], *readings.values()}


def test_a_record_with_its_fingerprints_in_full_is_read_as_before(made: Record, tmp_path: Path) -> None:
    """The earlier form of the file: no folder of fingerprints beside it."""
    full = tmp_path / made.path.name
    full.write_text(json.dumps(made.data, indent=1))
    assert load(full).data == load(made.path).data
    assert len(full.read_text()) > 2 * len(made.path.read_text())
    write(full, load(full).data)
    assert full.read_text() == made.path.read_text()
    assert load(full).data == made.data


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (
            lambda path: path.unlink(),
            r"absent, but \w+\.json names it as its code; restore it from the repository, or",
        ),
        (lambda path: path.write_text(path.read_text()[:50]), r"not a fingerprint \(JSONDecodeError\); restore it"),
        (lambda path: path.write_bytes(b"\xff"), r"not a fingerprint \(UnicodeDecodeError\)"),
        (
            lambda path: path.write_text('{"a": "b"}'),
            r"the contents hash to \w{16}; it was edited or renamed: rest",
        ),
    ],
)
def test_a_fingerprint_that_is_gone_or_altered_is_told_and_written_again(
    made: Record, tmp_path: Path, alter: object, message: str
) -> None:
    path = tmp_path / made.path.name
    for name in (None, "argmax"):
        write(path, made.data)
        stored = json.loads(path.read_text())
        code = code_path(path, (stored if name is None else stored["readings"][name])["code"])
        alter(code)  # type: ignore[operator]
        with pytest.raises(RecordError, match=rf"{code.name}: {message}"):
            load(path)
    write(path, made.data)
    assert load(path).data == made.data


def test_what_is_read_is_the_reader_s_own(made: Record) -> None:
    first = load(made.path)
    first["code"].clear()
    first.reading("argmax")["code"].clear()
    assert load(made.path).data == made.data
    assert made["code"]


def test_many_may_write_the_same_fingerprints_at_once(made: Record, tmp_path: Path) -> None:
    def one(number: int) -> bool:
        config = {**made["config"], "seed": number}
        data = {**made.data, "config": config, "key": digest(config)}
        data["sum"] = checksum(data)
        path = tmp_path / f"{data['key']}.json"
        for _ in range(5):
            write(path, data)
            assert load(path).data == data
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(16)))
    assert len(list(tmp_path.glob("*.json"))) == 16
    left = {path.name for path in code_path(tmp_path / "a.json", "").parent.iterdir()}
    assert left == {path.name for path in code_path(made.path, "").parent.iterdir()}


def test_image_metrics_average_to_the_record(made: Record) -> None:
    for name in ("argmax", "quarter-flip"):
        images = made.images(name)
        for metric, value in (("0.5", made.reading(name)["at"]["0.5"]), ("auc", made.reading(name)["auc"])):
            count = images["count"].astype(float)
            assert 100 * (images[metric] * count).sum() / count.sum() == pytest.approx(value, abs=0.06)


def test_kept_output_decodes_to_the_kept_points(made: Record) -> None:
    output, points = made.kept("output"), made.kept("points")
    assert output.shape[0] == 24
    cells = to_pixels(torch.from_numpy(points[:24].astype(np.float32)), output.shape[-2:]).round().long().numpy()
    image, joint = np.ogrid[:24, :16]
    at = output[image, joint, cells[..., 1], cells[..., 0]]
    assert (at == output.max((-2, -1))).all()  # several cells may share the maximum in half precision
    with pytest.raises(ValueError, match="keeps no 'nothing'"):
        made.kept("nothing")


def test_nothing_is_trained_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _runs()[:1]
    first = run_all(wanted, "smoke", progress=False, report=lambda _: None)[0]

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(running, "fit", never)
    assert run_all(wanted, "smoke", progress=False)[0]["sum"] == first["sum"]


def test_a_new_reading_joins_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    run = replace(_runs()[0], readings=(Reading("argmax", Argmax()),), keep=0)
    old = execute(run, "smoke", progress=False)
    new = execute(replace(run, readings=(Reading("origin", Argmax(empty="origin")),)), "smoke", progress=False)
    assert set(new["readings"]) == {"argmax", "origin"}
    assert new.reading("argmax") == old.reading("argmax")
    assert new["wall_s"] == old["wall_s"]
    assert new["made"] == old["made"]  # how the weights were made; when they were read again stands beside it
    assert "time" in new["reread"]
    assert "reread" not in old.data
    assert set(new.images("argmax")) == set(new.images("origin"))


@pytest.mark.parametrize("listed", [True, False])
def test_a_new_reading_joins_those_of_an_earlier_form_that_is_listed(listed: bool) -> None:
    """Its weights serve as well. With any other form all is made afresh: other code may have made other weights."""
    (entry,) = REWRITTEN
    run = replace(_runs()[0], readings=(Reading("argmax", Argmax()),), keep=0)
    method = run.estimator["method"].replace(decoder=QuarterSign())
    run = replace(run, estimator=run.estimator.replace(method=method))
    path = execute(run, "smoke", progress=False).path
    data = load(path).data
    came = dict(entry.came)
    data["code"] = {k: v for k, v in data["code"].items() if k not in came}
    data["code"][entry.name] = entry.earlier if listed else "00000000"
    data["sum"] = checksum(data)
    write(path, data)
    weights = checkpoint_of(run, "smoke")
    state = torch.load(weights)
    torch.save({**state, "config": json.dumps({**json.loads(state["config"]), "code": data["code"]})}, weights)
    asked = replace(run, readings=(Reading("origin", Argmax(empty="origin")),))
    with contextlib.nullcontext() if listed else pytest.warns(UserWarning, match="starting afresh: .*configuration"):
        new = execute(asked, "smoke", progress=False)
    assert set(new["readings"]) == ({"argmax", "origin"} if listed else {"origin"})
    assert (new["code"] == data["code"]) == listed
    assert new.stale == []


def test_a_reading_that_was_never_measured_makes_no_record_stale() -> None:
    run = replace(_runs()[0], readings=(Reading("argmax", Argmax()),), keep=0)
    path = execute(run, "smoke", progress=False).path
    asked = replace(run, readings=(*run.readings, Reading("origin", Argmax(empty="origin"))))
    assert load(path, asked).stale == []
    assert find(asked, "smoke") is None  # it is missing, which is another thing
    data = load(path).data
    data["readings"]["argmax"]["code"] = dict.fromkeys(data["readings"]["argmax"]["code"], "0")
    assert Record(data, path, asked).stale  # what was measured is still looked at


def test_label_and_readings_are_outside_the_key_and_the_seed_inside() -> None:
    run = _runs()[0]
    assert replace(run, label="other", readings=(), keep=3).key == run.key
    assert replace(run, seed=7).key != run.key
    assert replace(run, training=replace(run.training, lr=1e-4)).key != run.key


def test_outputs_are_kept_where_a_page_or_a_claim_reads_them() -> None:
    """What only one network is drawn of is kept of the first seed; what all seeds are counted in, of all."""

    def kept(name: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for run in runs(name, "cpu"):
            if run.keep:
                found.setdefault(run.label, []).append(run.seed)
        return found

    every = [0, 1, 2]
    assert kept("integral-losses") == {"I*": [0], "I1": [0]}
    assert kept("volumes-strategies") == {"I* 1": [0], "I* 2": [0]}
    assert kept("dsnt-activations") == {"softmax": every, "relu": every}
    assert set(kept("dsnt-sweep")) == {"sigma 1 lambda 1", "sigma 2 lambda 1"}
    assert list(kept("dsnt-regularisers").values()) == [every] * 10
    assert kept("dsnt-halves") == {}
    assert kept("dark-encodings") == {"biased 16 px": every, "unbiased 16 px": every}


def test_experiments_share_runs() -> None:
    resolution = {r.key for r in runs("heatmap-resolution", "cpu")}
    h1 = {r.key for r in runs("heatmap-losses", "cpu") if r.label == "H1"}
    sigma = {r.key for r in runs("heatmap-sigma", "cpu") if r.label == "sigma 1"}
    assert h1 == sigma
    assert h1 < resolution


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda d: d["config"].update(seed=5), "edited or renamed"),
        (lambda d: d["readings"]["argmax"].update(auc=99.0), "do not match their checksum"),
        (lambda d: d.update(code=d["readings"]["argmax"]["code"]), "do not match their checksum"),
        (lambda d: d.update(code={}), "do not match their checksum"),
        (lambda d: d.update(readings=[]), "do not match their checksum"),
        (lambda d: d.pop("sum"), "not a record"),
    ],
)
def test_an_altered_record_is_refused(made: Record, tmp_path: Path, alter: object, message: str) -> None:
    data = json.loads(made.path.read_text())
    alter(data)  # type: ignore[operator]
    copy = tmp_path / made.path.name
    shutil.copytree(code_path(made.path, "").parent, code_path(copy, "").parent)
    copy.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=message):
        load(copy)


def test_a_renamed_or_truncated_record_is_refused(made: Record, tmp_path: Path) -> None:
    copy = tmp_path / "0123456789abcdef.json"
    copy.write_text(made.path.read_text())
    with pytest.raises(RecordError, match="edited or renamed"):
        load(copy)
    cut = tmp_path / made.path.name
    cut.write_text(made.path.read_text()[:200])
    with pytest.raises(RecordError, match="not a record"):
        load(cut)


def test_a_full_disk_leaves_no_half_record(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _runs()[0]

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="No space left"):
            execute(run, "smoke", progress=False)
    assert find(run, "smoke") is None
    assert not list(path_of(run, "smoke").parent.glob("*"))
    assert execute(run, "smoke", progress=False).reading("argmax")


def test_stale_when_reached_code_changes(made: Record) -> None:
    assert made.stale == []
    code = {**made["code"], "coordreg.heatmap.Gaussian": "00000000"}
    altered = Record({**made.data, "code": code}, made.path, made.run)
    assert altered.stale == ["coordreg.heatmap.Gaussian"]


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(ValueError, match=r"'heatmap-nose'.*heatmap-resolution"):
        runs("heatmap-nose", "cpu")
    with pytest.raises(ValueError, match=r"'fast', expected one of smoke, cpu, gpu, paper"):
        runs("heatmap-resolution", "fast")
    assert {"heatmap-resolution", "heatmap-losses", "heatmap-lsp"} <= set(names())


def test_published_takes_the_highest_complete_profile_and_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "fit", None)
    nothing = results("heatmap-resolution")
    assert nothing.profile is None
    assert "not run" in nothing.caption
    with pytest.raises(ValueError, match="16 px"):
        nothing.of("16 px")


def test_an_experiment_that_is_under_way_is_not_called_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = execute(_runs()[0], "smoke", progress=False)
    some = runs("heatmap-resolution", "cpu")
    there = {run.key for run in some[:2]}

    def find(run: Run, profile: str) -> Record | None:
        return made if profile == "cpu" and run.key in there else None

    monkeypatch.setattr(table, "find", find)
    text = f"heatmap-resolution: 2 of {len(some)} runs of the cpu profile are recorded."
    assert results("heatmap-resolution").caption == f"{text} No profile has all its records."
    both = table.together("heatmap-resolution", "heatmap-losses")
    assert both[0].caption == f"{text} No profile has all the records of this comparison."
    assert both[1].caption.startswith("heatmap-losses: not run.")

    def damaged(run: Run, profile: str) -> Record | None:
        if profile == "cpu":
            raise RecordError("truncated")
        return None

    with monkeypatch.context() as broken:
        broken.setattr(table, "find", damaged)
        assert table._state("heatmap-resolution") == "not run"
    monkeypatch.setattr(table, "doubt", lambda _: "made from a fixture")
    assert results("heatmap-resolution").caption.startswith("heatmap-resolution: not run.")


def test_data_that_are_not_there_read_as_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COORDREG_LSP", str(tmp_path / "nothing.npz"))
    found = results("heatmap-lsp", "smoke")
    assert found.profile is None
    assert "no pack of photographs" in found.caption


def test_a_reading_of_the_same_name_is_not_taken_for_another() -> None:
    run = replace(_runs()[0], readings=(Reading("x", Argmax()),), keep=0)
    execute(run, "smoke", progress=False)
    other = replace(run, readings=(Reading("x", QuarterSecond(), flip="plain"),))
    assert find(run, "smoke") is not None
    assert find(other, "smoke") is None
    with pytest.raises(ValueError, match="'x' means two things"):
        run_all([run, other], "smoke", progress=False)


def test_a_decoder_that_changes_makes_the_record_stale(made: Record) -> None:
    assert "coordreg.heatmap.Argmax" in made.reading("argmax")["code"]
    readings = {**made["readings"], "argmax": {**made.reading("argmax"), "code": {"coordreg.heatmap.Argmax": "0"}}}
    assert "coordreg.heatmap.Argmax" in Record({**made.data, "readings": readings}, made.path, made.run).stale


def test_weights_that_are_asked_for_again_leave_the_record_alone(tmp_path: Path) -> None:
    run = _runs()[0]
    execute(run, "smoke", progress=False)
    before = path_of(run, "smoke").read_bytes()
    checkpoint_of(run, "smoke").unlink()
    execute(run, "smoke", progress=False, checkpoint_needed=True)
    assert checkpoint_of(run, "smoke").exists()
    assert path_of(run, "smoke").read_bytes() == before


def test_other_weights_are_never_mixed_into_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    run = replace(_runs()[0], readings=(Reading("argmax", Argmax()),), keep=0)
    execute(run, "smoke", progress=False)
    checkpoint_of(run, "smoke").unlink()
    real = running.fit
    monkeypatch.setattr(running, "fit", lambda *a, **k: [v + 1.0 for v in real(*a, **k)])  # as another machine might
    new = execute(replace(run, readings=(Reading("origin", Argmax(empty="origin")),)), "smoke", progress=False)
    assert set(new["readings"]) == {"origin"}


def test_a_kill_between_the_two_files_of_a_record_is_mended() -> None:
    run = replace(_runs()[0], readings=(Reading("argmax", Argmax()),), keep=0)
    record = execute(run, "smoke", progress=False)
    record.path.with_suffix(".npz").write_bytes(b"of a newer record")
    with pytest.raises(RecordError, match="absent or altered"):
        record.arrays()
    more = replace(run, readings=(*run.readings, Reading("origin", Argmax(empty="origin"))))
    assert set(execute(more, "smoke", progress=False).images("argmax")) == {"0.5", "0.1", "auc", "count"}


def test_a_decoder_for_a_method_without_one_is_refused() -> None:
    run = replace(runs("heatmap-mean", "smoke")[0], readings=(Reading("argmax", Argmax()),))
    with pytest.raises(ValueError, match="MeanPose has no decoder to exchange"):
        execute(run, "smoke", progress=False)


COMMITTED = Path(__file__).parent.parent / "results"
#: The fingerprints, listed before the records that name them. Those of smoke are a rerun's own, and not committed.
CODES = [p for p in sorted(COMMITTED.glob("*/code/*.json")) if p.parent.parent.name != "smoke"]
RECORDS = [p for p in sorted(COMMITTED.glob("*/*.json")) if p.parent.name != "smoke"]


def test_committed_records_are_whole_current_and_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COORDREG_RESULTS")
    declared = {}
    for name in names():
        for profile in PROFILES:
            try:
                declared |= {(profile, r.key): r for r in runs(name, profile)}
            except ValueError:  # the experiment has no such profile
                continue
    used = set[Path]()
    for path in RECORDS:
        run = declared.get((path.parent.name, path.stem))
        assert run is not None, f"{path.name} belongs to no experiment"
        record = load(path, run)
        assert record.arrays()
        assert record.stale == [], path.name
        assert "changes" not in record["made"]["commit"], path.name
        used |= {code_path(path, digest(part["code"])) for part in (record.data, *record["readings"].values())}
    lone = sorted(path.name for path in set(CODES) - used)
    assert not lone, f"no record names these any more, remove them from code/: {', '.join(lone)}"
    assert sum(p.stat().st_size for p in root().rglob("*")) < 40e6


@pytest.mark.parametrize(
    ("module", "reading", "metric"),
    [
        (heatmap, "argmax", "auc"),
        (dsnt, "method", "auc"),
        (integral, "method", "auc"),
        (stn, "method", "accuracy"),
        (dark, "argmax", "auc"),
        (cascade, {"coarse": "argmax", "shared": "refined", "standard": "refined"}, "auc"),
    ],
)
def test_chosen_rates_are_those_the_search_found(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, reading: str | dict[str, str], metric: str
) -> None:
    monkeypatch.delenv("COORDREG_RESULTS")
    experiment = f"{module.__name__.rsplit('.', 1)[1]}-rates"
    for profile, chosen in module.CHOSEN.items():
        declared: dict[str, list[Run]] = {}
        for run in runs(experiment, profile):
            declared.setdefault(run.label.split()[0], []).append(run)
        done = {kind: found for kind, found in declared.items() if complete(found, profile)}
        assert set(chosen) == set(done), f"{experiment}: rates in use are those of the searches that have ended"
        ended = (find(run, profile) for found in done.values() for run in found)
        search = table.Results(experiment, profile, tuple(record for record in ended if record is not None))
        for loss, rate in chosen.items():
            read = reading if isinstance(reading, str) else reading[loss]
            found = {label: search.mean(label, read, metric) for label in search.labels if label.split()[0] == loss}
            best = max(found, key=lambda label: found[label])
            assert best == f"{loss} {rate:g}", found
            tried = sorted(float(label.split()[-1]) for label in found)
            assert rate not in (tried[0], tried[-1]), f"{loss}: an end of the list came out best; it must go on"


def test_rates_of_table_5_are_those_its_search_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COORDREG_RESULTS")
    for profile, chosen in dark.BACKBONE_CHOSEN.items():
        if not complete(runs("dark-backbone-rates", profile), profile):
            assert not chosen, "rates are in use that no search on record found"
            continue
        search = results("dark-backbone-rates", profile)
        networks = [label.rsplit(" ", 1) for label in search.labels]
        assert set(chosen) == {name for name, _ in networks}
        for name, rate in chosen.items():
            found = {float(lr): search.mean(f"{name} {lr}", "quarter", "auc") for n, lr in networks if n == name}
            assert max(found, key=lambda lr: found[lr]) == rate
            assert min(found) < rate < max(found), f"{name}: an end of the list came out best; it must go on"


def test_weaker_coefficients_are_those_the_search_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COORDREG_RESULTS")
    chosen = dsnt.WEAKER["cpu"]
    if not complete(runs("dsnt-coefficients", "cpu"), "cpu"):
        assert not chosen
        return
    weak, whole = results("dsnt-coefficients", "cpu"), results("dsnt-rates", "cpu")
    for label, row in (("variance 1", "variance"), ("KL 1", "KL"), ("JS 1", "DSNTr")):
        paper = max(whole.mean(v, "method", "auc") for v in whole.labels if v.split()[0] == row)
        found = {v: weak.mean(v, "method", "auc") for v in weak.labels if v.startswith(label)}
        best = max(found, key=lambda v: found[v])
        taken = {f"{label} {weight:g}" for name, weight in chosen.items() if name.split()[0] == label.split()[0]}
        assert taken == ({best} if found[best] > paper + 1 else set()), (found, paper)
    assert set(chosen) <= set(dsnt.REGULARISERS)


def test_the_mean_pose_learns_the_mean() -> None:
    run = replace(
        _runs()[0],
        estimator=spec(Estimator, backbone=spec(Blind), head=spec(OnePose, joints=16), method=spec(MeanPose)),
        training=Training(300, 64, 0.05),
        readings=(Reading("method"),),
        keep=1,
        scoring=Scoring(),
    )
    record = execute(run, "smoke", progress=False)
    labels = run.train.open().coords.mean(0).numpy()
    assert np.abs(record.kept("points")[0].astype(np.float32) - labels).max() < 0.2  # flips exchange left and right
    assert describe(run.estimator)["method"] == {"make": "coordreg.baseline.MeanPose"}


def test_the_flip_test_on_points_averages_points() -> None:
    run = _runs()[0]
    torch.manual_seed(0)
    estimator, test = run.estimator.build(), run.test.open()
    found = running.read(estimator, run, Reading("flip-points", flip="points"), test)
    images = test.images.float() / 255
    there, mirrored = estimator.predict(images), estimator.predict(images.flip(-1))
    back = mirrored.coords.clone()
    back[..., 0] *= -1
    order = list(range(16))
    for a, b in test.pairs:
        order[a], order[b] = b, a
    assert found.points is not None
    torch.testing.assert_close(found.points, (there.coords + back[:, order]) / 2)
    assert not torch.allclose(found.points, there.coords)
