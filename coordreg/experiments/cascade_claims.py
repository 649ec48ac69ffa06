"""What chapter 3's paper claims, declared before the runs of `experiments.cascade` existed."""

from collections.abc import Callable
from functools import partial

from coordreg.experiments.cascade import COUNTS, NOISE, POOLINGS, size
from coordreg.experiments.claims import Claim, Observation, Side, Widening
from coordreg.records import Record

JOINTS = {"head": ("head_top",), "shoulder": ("r_shoulder", "l_shoulder")}


def sigma(record: Record, reading: str, joint: str) -> float:
    """Spread of the x error against the labels in pixels, the mean of a joint's sides. ValueError where it has none."""
    found = [record.reading(reading)["pixels"]["labels"][name]["x"] for name in JOINTS[joint]]
    if None in found:
        raise ValueError(f"record {record['key']}: no {joint} lies near its label by reading {reading!r}, no spread")
    return _mean(found)


def ratio(record: Record, joint: str) -> float:
    """Spread of the x error of the refined answers over that of the same network's coarse ones, against the labels."""
    return sigma(record, "refined", joint) / sigma(record, "coarse", joint)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def smaller(record: Record) -> float:
    """The smaller of the ratios of head and shoulder."""
    return min(ratio(record, joint) for joint in JOINTS)


def larger(record: Record) -> float:
    """The larger of the ratios of head and shoulder."""
    return max(ratio(record, joint) for joint in JOINTS)


def noisy(record: Record, height: int) -> float:
    """Spread of the refined x error of the head over that of the labels themselves."""
    return sigma(record, "refined", "head") / (NOISE * height)


def _observed(row: str, text: str, side: Side, measure: Callable[[Record], float], high: float) -> Observation:
    """A number of one side's records that is to lie from 0 to `high`."""
    return Observation(row, text, side, side, metric="", measure=measure, low=0.0, high=high)


def claims(profile: str) -> list[Claim]:
    """The claims of figures 9, 11, 12, 14, of table 1 and of the spatial model."""
    s = size(profile)
    found: list[Claim] = []

    def add(row: str, text: str, better: Side, worse: Side, metric: str) -> None:
        found.append(Claim(row, text, better=better, worse=worse, metric=metric))

    alone = {by: Side("cascade-pooling", f"{by}x", "argmax") for by in POOLINGS}
    refined, left = (
        {by: Side("cascade-refinement", f"{by}x", reading) for by in POOLINGS} for reading in ("refined", "coarse")
    )
    for fine, rough in ((4, 8), (8, 16)):
        add("cascade-fig9", f"PCKh@0.1: {fine}x above {rough}x", alone[fine], alone[rough], "0.1")
        add("cascade-fig9", f"AUC: {fine}x above {rough}x", alone[fine], alone[rough], "auc")
    for by in POOLINGS:
        for joint in JOINTS:
            text = f"{by}x, {joint}: sigma of x below that of the coarse answers"
            found.append(_observed("cascade-tab1", text, refined[by], partial(ratio, joint=joint), 0.999))
        add("cascade-fig12", f"head, {by}x: the cascade above its coarse answers", refined[by], left[by], "auc head")
    for by in POOLINGS[1:]:
        text = f"wrist, {by}x: the cascade above its coarse answers"
        add("cascade-fig12", text, refined[by], left[by], "auc wrist")
        for joint in ("head", "wrist"):
            text = f"{joint}: the gain is larger at {by}x than at 4x"
            found.append(
                Widening(
                    "cascade-fig12", text, refined[by], left[by], metric=f"auc {joint}", than=(refined[4], left[4])
                )
            )
    for text, measure, high in (
        ("one of head and shoulder: sigma of x falls to at most 0.5", smaller, 0.5),
        ("the other: to at most 0.65", larger, 0.65),
    ):
        side = refined[8]
        found.append(_observed("cascade-fig11", f"8x: {text}", side, measure, high))
    text = "8x, head: sigma of x at most three times that of the labels (the paper: 1.09 of 0.65 px)"
    found.append(_observed("cascade-tab1", text, refined[8], partial(noisy, height=s.image), 3.0))
    both = [Side("cascade-sharing", kind, "refined") for kind in ("shared", "standard")]
    for metric, name in (("auc wrist", "wrist"), ("auc", "all joints")):
        add("cascade-fig14a", f"shared features above the standard cascade, {name}", both[0], both[1], metric)
    for count in COUNTS[profile]:
        spatial, usual, none = (
            Side("cascade-dropout", f"{name} {count}", "argmax") for name in ("spatial", "standard", "none")
        )
        add("cascade-fig14b", f"{count} images, wrist: SpatialDropout above none", spatial, none, "auc wrist")
        add("cascade-fig14b", f"{count} images, wrist: SpatialDropout above standard", spatial, usual, "auc wrist")
    return [*found, *_selection(s.test // 2)]


def _selection(half: int) -> list[Claim]:
    """Of the test figures of cascade-mrf the first `half` show two people, the others the annotated one alone."""
    maps = Side("cascade-mrf", "two people", "argmax")
    texts = {
        "histograms": "the tree, displacements from histograms,",
        "learnt": "the tree, displacements learnt,",
        "pairs": "the form of 2014, displacements from histograms,",
    }
    read = {name: Side("cascade-mrf", "two people", name) for name in texts}
    found = [
        Claim("cascade-mrf", f"two people: {text} above the maps' maxima", read[name], maps, "0.5", part=(0, half))
        for name, text in texts.items()
    ]
    torso = Side("cascade-mrf", "two people", "torso")
    for name in ("histograms", "learnt"):
        text = f"two people: {texts[name]} above what the torso point says without the picture"
        found.append(Claim("cascade-mrf", text, read[name], torso, "0.5", part=(0, half)))
        text = f"one person: {texts[name]} at most one point below the maps' maxima"
        found.append(Claim("cascade-mrf", text, read[name], maps, "0.5", margin=-1.0, part=(half, 2 * half)))
    return found
